"""The whole path on untrained models: what is scored, what is shared, what survives a kill, damage or a full disk."""

import errno
import gc
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from builders import outcome
from paths import FILES
from PIL import Image
from watching import Events, raises_at, sentence, wait_until, watch

import clbench
from clbench.backbones.sdxl import Backbone
from clbench.errors import ClbenchError, WorkFailed
from clbench.results.io import load_result
from clbench.results.schema import Result
from clbench.results.validation import check_result
from clbench.runner import harness
from clbench.runner import sample_grid as samples
from clbench.runner.harness import result_path
from clbench.runner.reopen import reopen
from clbench.utils import files


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Method -> outcome and folder of a quick run that nothing happened to."""
    return {}


@pytest.fixture
def undisturbed(run, finished, tmp_path_factory):
    """What a quick run of a method gives when nothing happens to it."""

    def outcome_of(method: str, copy_to: Path | None = None):
        if method not in finished:
            folder = tmp_path_factory.mktemp("undisturbed")
            finished[method] = outcome(run(method, output=folder)), folder
        expected, folder = finished[method]
        if copy_to:
            shutil.copytree(folder, copy_to)
        return expected

    return outcome_of


# --- what a result holds ---


def check_shape(result: Result, suite: clbench.suite.Suite) -> None:
    tasks = len(suite.track(result.track).tasks)
    for run in result.runs:
        assert set(run.scores) == set(suite.track(result.track).metrics)
        for metric in run.scores:
            seen = ~np.isnan(run.matrix(metric))
            assert seen[0].all()
            assert (seen[1:] == np.tri(tasks, dtype=bool)).all()
            assert run.matrix(metric)[0].std() > 0


@pytest.mark.long
def test_all_runs_of_a_method_give_a_valid_result_file(run, mock_suite, mock_folder, tmp_path):
    result = run("naive", quick=False, plugins=())
    assert [(one.order, one.seed) for one in result.runs] == [(o, s) for o in ("forward", "backward") for s in (0, 5)]
    assert not result.partial
    assert check_result(result, mock_suite) == []
    check_shape(result, mock_suite)
    assert load_result(result_path(tmp_path / "runs", result)) == result
    assert result.command == f"clbench run --method naive --track styles --suite {mock_folder} --device cpu"
    forward, _, backward, _ = result.runs
    for metric in forward.scores:
        assert forward.scores[metric][0] == backward.scores[metric][0][::-1]
        assert len({one.scores[metric][3] for one in result.runs}) == 4


@pytest.mark.long
def test_the_objects_track_runs_too_and_a_quick_run_says_that_it_is_partial(run, mock_suite, tmp_path):
    result = run("magmax", "objects")
    assert result.partial
    assert [finding.code for finding in check_result(result, mock_suite)] == ["CLB004"]
    assert check_result(result, mock_suite, allow_partial=True) == []
    check_shape(result, mock_suite)
    assert result_path(tmp_path, result).name == "magmax.partial.json"


@pytest.mark.long
def test_progress_ends_at_the_announced_amount_of_work(run):
    for units_of_a_task in (2, 0):  # trained and scored; found
        seen = []
        run("naive", on_event=seen.append)
        plan = next(event for event in seen if event["event"] == "plan")
        made = Counter()
        for event in seen:
            if event["event"] == "work":
                made[event["unit"]] += event["made"]
        assert sum(made.values()) == pytest.approx(plan["work"])
        ended = [event for event in seen if event["event"] == "end"]
        assert len(ended) == plan["units"]
        assert sum("task 2 of 3" in event["label"] for event in ended) == units_of_a_task


def test_a_run_from_python_needs_no_command_line(undisturbed, mock_folder, tmp_path):
    expected = undisturbed("merge_ortho", copy_to=tmp_path / "runs")
    output = str(tmp_path / "runs")
    result = clbench.run(method="merge_ortho", track="styles", suite=mock_folder, quick=True, output=output)
    assert outcome(result) == expected


@pytest.mark.long
def test_a_sample_grid_shows_every_cell_of_a_run_however_it_was_run_and_whatever_the_threads_of_its_reader(
    run, mock_folder, tmp_path
):
    result = run("ewc", settings={"strength": 3.0}, memory="low", orders=["backward"], seeds=[5], quick=False)

    def draw(store: str) -> Path:
        with reopen(result, mock_folder, tmp_path / store, FILES) as opened:
            return samples.draw_grid(*opened, tmp_path, result.variant)

    with pytest.raises(ClbenchError, match=r"elsewhere does not hold the run with order backward, seed 5"):
        draw("elsewhere")
    torch.set_num_threads(2)
    try:
        path = draw("runs/store")
    finally:
        torch.set_num_threads(1)
    grid = np.asarray(Image.open(path)).astype(int)
    for row in range(5):
        for column in range(3):
            tile = grid[samples.HEADER + 64 * row :, samples.LABEL + 64 * column :][:62, :62]
            assert (tile.std() > 0) == (column < row - 1 or row < 2), "drawn on and below the diagonal"


# --- equal work is done once ---


def test_the_frozen_base_trains_nothing_and_keeps_the_base_models_scores(run):
    seen = Events()
    result = run("frozen_base", on_event=seen.append)
    assert not seen.trainings
    for rows in result.runs[0].scores.values():
        for number, row in enumerate(rows[1:], start=1):
            assert row[:number] == rows[0][:number]
    assert set(result.runs[0].state_bytes) == {0}
    assert result.runs[0].regime == "model"


@pytest.mark.long
def test_no_resume_does_everything_again_and_gives_the_same(run, undisturbed, tmp_path):
    expected = undisturbed("merge_init", copy_to=tmp_path / "runs")
    seen = Events()
    assert outcome(run("merge_init", on_event=seen.append)) == expected
    assert (seen.trainings, seen.drawn) == (0, [])
    assert outcome(run("merge_init", resume=False, on_event=seen.append)) == expected
    assert (seen.trainings, len(seen.drawn)) == (3, 9)


# --- a killed run goes on ---

MOMENTS = [
    ("merge_ortho", Backbone, "predict", 2),
    pytest.param("ewc", Backbone, "predict", 5, marks=pytest.mark.long),  # after the first training, in its end_task
    pytest.param("self_replay", Backbone, "generate", 6, marks=pytest.mark.long),
    ("merge_ortho", files.os, "fsync", random.Random(0).randrange(1, 70)),
    *[
        pytest.param("merge_ortho", files.os, "fsync", random.Random(moment).randrange(1, 70), marks=pytest.mark.long)
        for moment in (1, 2)
    ],
]


@pytest.mark.parametrize(("method", "owner", "name", "count"), MOMENTS)
def test_an_interrupted_run_ends_with_identical_scores(run, undisturbed, method, owner, name, count, tmp_path):
    expected = undisturbed(method)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, owner, name, raises_at(count, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(method)
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    seen = Events()
    assert outcome(run(method, on_event=seen.append)) == expected
    assert seen.trainings <= 3


@pytest.mark.long
def test_a_run_that_is_shot_goes_on_and_ends_with_identical_scores(run, undisturbed, mock_folder, tmp_path):
    folder = tmp_path / "runs"
    words = ["run", "--suite", mock_folder, "--method", "merge_init", "--track", "styles", "--quick"]
    words += ["--device", "cpu", "--output", str(folder)]
    process = warm.start(words, os.environ, Path.cwd(), tmp_path)
    wait_until(lambda: list(folder.glob("store/row/*/*.json")))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    expected = undisturbed("merge_init")
    seen = Events()
    assert outcome(run("merge_init", on_event=seen.append)) == expected
    assert seen.trainings <= 2


def damage(root: Path, kinds: list[str], what: str) -> None:
    """Flip a byte in the middle of every such file, or of the checksum itself."""
    for path in [path for kind in kinds for path in (root / kind).rglob("*") if path.is_file()]:
        if (path.suffix == ".sha256") == (what == "checksum"):
            raw = bytearray(path.read_bytes())
            raw[32 if what == "checksum" else len(raw) // 2] ^= 0xFF
            path.write_bytes(raw)


@pytest.mark.parametrize(
    ("kinds", "what"),
    [
        (["row"], "artifact"),
        (["row", "cell"], "artifact"),
        (["row", "state"], "artifact"),
        (["row", "state", "fit", "cost", "controls"], "checksum"),
    ],
)
def test_a_damaged_artifact_is_set_aside_and_made_again(run, undisturbed, kinds, what, tmp_path):
    expected = undisturbed("merge_init", copy_to=tmp_path / "runs")
    damage(tmp_path / "runs" / "store", kinds, what)
    with pytest.warns(UserWarning, match="set aside as .* done again"):
        assert outcome(run("merge_init")) == expected
    assert all(list((tmp_path / "runs" / "store" / kind).rglob("*.damaged")) for kind in kinds if kind != "cost")


# --- bad input and bad disks ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "merge_inti"}, "did you mean 'merge_init'"),
        ({"track": "style"}, "did you mean 'styles'"),
        ({"orders": ["7"]}, "no order '7'"),
        ({"seeds": [1]}, "no seed 1"),
        ({"orders": []}, "no order was chosen"),
        ({"precision": "fp8"}, "--precision 'fp8': Input should be 'fp32', 'bf16' or 'fp16'"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"settings": {"strength": 1}}, "'strength'"),
    ],
)
def test_bad_input_is_refused_before_any_work(run, options, says):
    with pytest.raises(ClbenchError) as caught:
        run(**options)
    assert caught.value.exit_code == 2
    assert says in sentence(caught)


def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(run, tmp_path):
    (tmp_path / "file").touch()
    seen = Events()
    with pytest.raises(ClbenchError) as caught:
        run(output=tmp_path / "file" / "runs", on_event=seen.append)
    assert (
        sentence(caught)
        == f"--output {tmp_path}/file/runs/mock/styles is no folder that can be written: Not a directory"
    )
    assert caught.value.exit_code == 2
    assert not seen.trainings


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 41])
def test_a_full_disk_is_one_sentence_and_loses_nothing(run, undisturbed, count):
    expected = undisturbed("merge_ortho")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, files.os, "fsync", raises_at(count, full))
        with pytest.raises(WorkFailed) as caught:
            run()
    assert "No space left on device" in sentence(caught)
    assert outcome(run()) == expected


@pytest.mark.filterwarnings("ignore:.*merged weights need")
def test_a_really_full_disk_is_one_sentence_and_loses_nothing(run, undisturbed, backbone, tmp_path):
    expected = undisturbed("merge_ortho")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(WorkFailed) as caught:
            run(output=small)
        assert "No space left on device" in sentence(caught)
        kept = len(list(small.rglob("*.json")))
        assert kept > 0
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert outcome(run(output=small)) == expected
        backbone.deploy({})  # which lets go of a state that is mapped from the disk, as do the failure's frames
        del caught
        gc.collect()
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- no global randomness ---


@pytest.mark.long
def test_no_global_random_state_is_needed_or_used(mock_folder, undisturbed, tmp_path):
    expected = undisturbed("merge_ortho")
    torch.manual_seed(17)
    random.seed(17)
    np.random.seed(17)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    result = harness.run(  # which loads the models too
        "merge_ortho", "styles", mock_folder, quick=True, output=tmp_path / "own", device="cpu"
    )
    assert outcome(result) == expected
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
