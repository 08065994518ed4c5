"""What a run keeps can be exported, and its result verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import yaml
from builders import signed
from commands import CLBENCH, clbench, execute, refusal
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_sdxl import RESOLUTION, plain_pipeline, write_suite

from clbench.data.assets import resolve_assets
from clbench.data.images import load_images
from clbench.data.locate import AssetPaths
from clbench.errors import ClbenchError
from clbench.plugins import get_method
from clbench.protocol.device import one_thread
from clbench.protocol.sampling import shared_noise
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.io import load_result, save_result
from clbench.results.schema import Result
from clbench.results.summary import summarize
from clbench.results.verification import read_verified, record, record_sha256, status
from clbench.runner import harness, verify
from clbench.runner.export import export_model
from clbench.runner.reopen import reopen
from clbench.runner.verify import rerun, score_images, write_images
from clbench.storage.store import Store
from clbench.suite import Track, load_suite
from clbench.utils.files import file_sha256

CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


# --- keeping and exporting ---


@pytest.fixture(scope="session")
def kept(world, tiny, tmp_path_factory):
    """A short suite of three tasks, run by two methods with everything kept."""
    folder = tmp_path_factory.mktemp("kept")
    write_suite(folder / "short")
    suite = yaml.safe_load((folder / "short" / "suite.yaml").read_text())
    tasks = yaml.safe_load((folder / "short" / "objects.yaml").read_text())["tasks"][:3]
    (folder / "short" / "objects.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    suite["seeds"] = [0]
    suite["tracks"] = {"objects": suite["tracks"]["objects"] | {"orders": {"0": [2, 0, 1]}}}
    (folder / "short" / "suite.yaml").write_text(yaml.safe_dump(suite))
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": folder / "runs"}
    for method in ("naive", "merge_init"):
        harness.run(method, "objects", str(folder / "short"), keep=("states", "images"), **options)
    return folder


def images_of(
    kept: Path, world: Path, method: str, position: int
) -> tuple[TrackRuntime, torch.Tensor, list[str], torch.Tensor]:
    """What the engine draws after a task, with its prompts and noise."""
    suite = load_suite(str(kept / "short"))
    assets = resolve_assets(suite, str(kept / "short"), "objects", AssetPaths(world, kept / "short"))
    with one_thread("cpu"):
        runtime = TrackRuntime(suite, "objects", Store(kept / "runs" / "store"), assets=assets)
        sequence = TaskSequence(runtime, get_method(method), "0", 0)
        state = sequence.stored_state(position)
    assert state is not None
    prompts, noise = (
        runtime.track.eval_prompts(runtime.track.tasks[0])[:1],
        shared_noise(runtime.backbone, 1, 42, RESOLUTION),
    )
    runtime.backbone.use_adapter(None)
    runtime.backbone.deploy(get_method(method).weights(state))
    return runtime, runtime.backbone.generate(prompts, noise, 3, 5.0), prompts, noise


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "task", "form", "rank", "error"),
    [
        ("naive", "2", "diffusers", 4, 0),
        ("merge_init", "sneaker", "diffusers", None, 0),
        ("merge_init", "2", "lora", 8, 1e-6),
    ],
)
def test_an_exported_model_draws_in_diffusers_what_the_engine_draws(
    kept, world, tmp_path, method, task, form, rank, error
):
    result = load_result(kept / "runs" / "short" / "objects" / f"{method}.json")
    with reopen(result, str(kept / "short"), kept / "runs" / "store", data_root=world) as (runtime, sequences):
        written = export_model(runtime, sequences, task, tmp_path, form=form)
    assert written.rank == rank
    assert written.relative_error <= error
    _, ours, prompts, noise = images_of(kept, world, method, 1)
    pipeline = plain_pipeline(world)
    if rank:
        pipeline.load_lora_weights(written.path.parent)
    else:
        pipeline.unet = diffusers.UNet2DConditionModel.from_pretrained(written.path)
    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "latents": noise, "output_type": "pt"}
    plain = pipeline(prompts[0], height=RESOLUTION, width=RESOLUTION, **options).images
    torch.testing.assert_close(ours, plain, **CLOSE)


def test_a_lora_of_too_small_a_rank_says_and_records_what_it_loses(kept, world, tmp_path):
    result = kept / "runs" / "short" / "objects" / "merge_init.json"
    options = ("--suite", kept / "short", "--data-root", world, "--task", "2", "--rank", 4)
    said = clbench("export", result, *options, "--format", "lora", "--to", tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    with safe_open(path, "pt") as file:
        recorded = file.metadata()
    factors = load_file(path)
    with reopen(load_result(result), str(kept / "short"), kept / "runs" / "store", data_root=world) as (_, sequences):
        state = sequences[0].stored_state(1)
    assert state is not None
    change = state.merged
    lost = [
        change[name] - factors[f"unet.{name}.lora_B.weight"] @ factors[f"unet.{name}.lora_A.weight"] for name in change
    ]
    share = float(sum(one.square().sum() for one in lost) / sum(one.square().sum() for one in change.values())) ** 0.5
    assert 0.01 < share < 1
    assert float(recorded["relative_error"]) == pytest.approx(share, rel=1e-3)
    assert recorded["rank"] == "4"
    assert f"LoRA of rank 4, relative error {share:.1e}" in said
    assert "--rank goes with --format lora" in refusal("export", result, *options, "--to", tmp_path / "new")


def test_other_images_in_their_places_are_kept(kept, world, tmp_path):
    result = load_result(kept / "runs" / "short" / "objects" / "naive.json")
    with reopen(result, str(kept / "short"), kept / "runs" / "store", data_root=world) as (runtime, sequences):
        write_images(runtime, sequences, tmp_path)
        write_images(runtime, sequences, tmp_path)  # the same again
        path = tmp_path / "run-1" / "02" / "01" / "003.png"
        path.write_text("weeks of work")
        with pytest.raises(ClbenchError, match=r"003\.png exists"):
            write_images(runtime, sequences, tmp_path)
    assert path.read_text() == "weeks of work"


def test_all_states_and_images_are_kept_where_asked(kept):
    store = kept / "runs" / "store"
    assert len(list((store / "state").rglob("*.safetensors"))) == 2 * 3
    cells = {path.name.split(".")[0] for path in (store / "cell").rglob("*.json")}
    images = sorted((store / "cell").rglob("*.000.png"))
    assert {path.name.split(".")[0] for path in images} == cells
    assert Image.open(images[0]).size == (RESOLUTION, RESOLUTION)


def test_a_state_that_was_not_kept_cannot_be_exported_and_the_sentence_says_why(kept, world, tmp_path):
    result = load_result(kept / "runs" / "short" / "objects" / "naive.json")
    with reopen(result, str(kept / "short"), tmp_path / "store", data_root=world) as (runtime, sequences):
        with pytest.raises(ClbenchError, match="--keep states"):
            export_model(runtime, sequences, "1", tmp_path)
        with pytest.raises(ClbenchError, match="did you mean 'sneaker'"):
            export_model(runtime, sequences, "sneakers", tmp_path)


@pytest.mark.parametrize(
    ("method", "place"), [("naive", "pytorch_lora_weights.safetensors"), ("merge_init", "unet/config.json")]
)
def test_an_export_deletes_no_model_that_lies_in_its_place(kept, world, tmp_path, method, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("weeks of work")
    result = kept / "runs" / "short" / "objects" / f"{method}.json"
    options = ("--suite", kept / "short", "--data-root", world, "--task", "2")
    said = refusal("export", result, "--to", tmp_path, *options)
    assert f"{tmp_path / Path(place).parts[0]} exists" in said
    assert "--to" in said
    assert (tmp_path / place).read_text() == "weeks of work"
    assert "wrote" in clbench("export", result, "--to", tmp_path / "new", *options)


# --- verifying ---


@pytest.fixture
def naive(kept, world):
    """A kept result, and its runtime and sequences."""
    result = load_result(kept / "runs" / "short" / "objects" / "naive.json")
    with reopen(result, str(kept / "short"), kept / "runs" / "store", data_root=world) as opened:
        yield result, *opened


def lie(result: Result) -> Result:
    """One score of a trained model raised."""
    run = result.runs[0]
    rows = [list(row) for row in run.scores["dino"]]
    rows[2][0] += 0.3  # type: ignore[operator]
    return result.model_copy(update={"runs": (run.model_copy(update={"scores": {**run.scores, "dino": rows}}),)})


def test_submitted_images_give_the_submitted_scores_and_a_raised_one_is_found(naive, tmp_path):
    result, runtime, sequences = naive
    write_images(runtime, sequences, tmp_path)
    checked = list(score_images(result, runtime, tmp_path))
    assert len(checked) == 6 * 2  # cells of three tasks, two metrics
    assert max(one.difference for one in checked) < 1e-6
    [wrong] = [one for one in score_images(lie(result), runtime, tmp_path) if one.difference > 0.01]
    assert (wrong.run, wrong.row, wrong.metric) == (1, 2, "dino")


def test_an_image_that_is_not_the_manifests_is_refused(naive, tmp_path):
    result, runtime, sequences = naive
    write_images(runtime, sequences, tmp_path)
    Image.new("RGB", (RESOLUTION, RESOLUTION)).save(tmp_path / "run-1" / "02" / "01" / "003.png")
    with pytest.raises(ClbenchError, match=r"003\.png is missing, or is not the image"):
        list(score_images(result, runtime, tmp_path))
    (tmp_path / "manifest.json").write_text('{"../../secret": "0"}')
    with pytest.raises(ClbenchError, match="not a manifest of files below"):
        list(score_images(result, runtime, tmp_path))


@pytest.mark.parametrize("wrong", ["larger", "text"])
def test_an_image_of_another_size_or_none_at_all_is_refused(naive, tmp_path, wrong):
    result, runtime, sequences = naive
    manifest = write_images(runtime, sequences, tmp_path)
    path = tmp_path / "run-1" / "02" / "01" / "003.png"
    if wrong == "larger":
        Image.new("RGB", (2 * RESOLUTION, RESOLUTION)).save(path)
    else:
        path.write_text("no image")
    sums = json.loads(manifest.read_text()) | {"run-1/02/01/003.png": file_sha256(path)}
    manifest.write_text(json.dumps(sums))
    with pytest.raises(ClbenchError, match=r"003\.png is no image of this suite"):
        list(score_images(result, runtime, tmp_path))


@pytest.mark.long
def test_running_again_gives_the_same_bits_and_finds_a_raised_score(naive, kept, world, tmp_path):
    result, *_ = naive
    with reopen(result, str(kept / "short"), tmp_path / "store", data_root=world) as (_, sequences):
        checked, honest = rerun(result, sequences, 1, 3, None, lambda what: None)
        assert len({(one.row, one.task) for one in checked}) == 6
        assert max(one.difference for one in checked) == 0
        assert honest.holds
        found, forged = rerun(lie(result), sequences, 1, 3, honest.seed, lambda what: None)
    assert [(one.row, one.metric) for one in found if one.difference > 0.01] == [(2, "dino")]
    assert ("early rows", "dino") in {(one.name, one.metric) for one in forged.figures if not one.holds}
    assert (honest.seed_given, forged.seed_given) == (False, True)
    assert honest.seed == forged.seed
    assert honest.runs == (("0", 0),)


def test_what_is_run_again_is_drawn_anew_each_time(naive, monkeypatch):
    result, _, sequences = naive
    seeds = {rerun(result, sequences, 1, 3, None, lambda what: None)[1].seed for _ in range(3)}
    assert len(seeds) == 3
    monkeypatch.setattr(verify.secrets, "randbits", lambda bits: bits)
    assert rerun(result, sequences, 1, 3, None, lambda what: None)[1].seed >= 50


def test_images_that_are_copies_of_the_suites_own_pictures_are_refused(naive, tmp_path):
    result, runtime, sequences = naive
    manifest = write_images(runtime, sequences, tmp_path)
    [picture, *_] = load_images(runtime.track.tasks[1].reference, RESOLUTION, runtime.assets.folders)
    path = tmp_path / "run-1" / "02" / "01" / "003.png"
    noise = np.random.default_rng(0).integers(-1, 2, (RESOLUTION, RESOLUTION, 3))
    copy = np.asarray(ImageOps.fit(picture, (RESOLUTION, RESOLUTION)), dtype=int)
    Image.fromarray(np.clip(copy + noise, 0, 255).astype(np.uint8)).save(path)
    sums = json.loads(manifest.read_text()) | {"run-1/02/01/003.png": file_sha256(path)}
    manifest.write_text(json.dumps(sums))
    with pytest.raises(ClbenchError, match=r"003\.png is a copy of one of the suite's own pictures"):
        list(score_images(result, runtime, tmp_path))


@pytest.mark.long
def test_the_command_reruns_notes_what_it_did_and_refuses_a_forged_result(kept, world, tmp_path):
    path, note = kept / "runs" / "short" / "objects" / "naive.json", tmp_path / "VERIFIED.json"
    options = ("--suite", kept / "short", "--data-root", world, "--level", "rerun", "--output", tmp_path / "again")
    said = clbench("verify", path, *options, "--record", note)
    assert "repeated order 0 with seed 0, and 0 last cells of other runs" in said
    assert "signed mean" in said
    result = load_result(path)
    noted = read_verified(note)["short/objects/naive"]
    assert (noted.level, noted.sha256, noted.cells) == ("rerun", record_sha256(result), 6)
    assert noted.rerun
    assert noted.rerun.runs == (("0", 0),)
    assert {one.name for one in noted.rerun.figures} == {"largest cell", "early rows", "average score", "signed mean"}
    assert noted.environment
    assert {"clbench", "torch"} <= noted.environment.packages.keys()
    assert noted.environment.device == "cpu"

    save_result(shifted(result, -0.05, load_suite(str(kept / "short")).track("objects")), tmp_path / "forged.json")
    failed = execute(CLBENCH, "verify", tmp_path / "forged.json", *options, "--record", tmp_path / "no.json", code=1)
    assert "forged.json does not hold, by early rows of" in failed.stderr
    assert not (tmp_path / "no.json").exists()


def shifted(result: Result, by: float, track: Track) -> Result:
    """A forger's result: every score of a trained model is another, and all else fits. (Raised, some pass 1 here.)"""

    def moved(rows):
        return (rows[0], *(tuple(v if v is None else v + by for v in row) for row in rows[1:]))

    runs = tuple(
        run.model_copy(update={"scores": {metric: moved(rows) for metric, rows in run.scores.items()}})
        for run in result.runs
    )
    return signed(result.model_copy(update={"runs": runs, "summary": summarize(runs, result.controls, track)}))


def test_what_was_verified_holds_for_that_result_alone_and_is_never_lowered(naive, tmp_path):
    result, *_ = naive
    path = tmp_path / "VERIFIED.json"
    assert status(read_verified(path), result) == "unverified"
    record(path, result, "rerun", [])
    record(path, result, "recomputed", [])
    assert status(read_verified(path), result) == "rerun"
    assert status(read_verified(path), signed(lie(result))) == "unverified"
    edits = {
        "command": "clbench run --method better",
        "submitter": "Somebody Else",
        "settings": {**result.settings, "note": None},
        "backbone": result.backbone.model_copy(update={"id": "another"}),
        "environment": result.environment.model_copy(update={"device": "abacus"}),
    }
    for field, value in edits.items():  # the result's own checksum does not cover them
        edited = result.model_copy(update={field: value})
        assert edited.checksum == signed(edited).checksum
        assert status(read_verified(path), edited) == "unverified"
    assert status(read_verified(path), result.model_copy(update={"summary": {}})) == "rerun", "it is recomputed"
    path.write_text("[]")
    with pytest.raises(ClbenchError, match="not a file of verifications"):
        read_verified(path)
