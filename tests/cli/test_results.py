"""Commands about results: validate, show, compare, verify, boards, and export to other registries."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import make_result, signed
from commands import CLBENCH, clbench, execute, refusal

from clbench.results.io import load_result, save_result
from clbench.results.verification import record_sha256
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")


# --- validate, show, submit, leaderboard ---


def test_validate_tells_valid_edited_partial_and_broken_files_apart(saved, edited, tmp_path):
    valid, partial = saved(), saved("partial.json", quick=True)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert clbench("validate", valid) == f"{valid}: valid\n"
    assert "CLB004" in clbench("validate", partial, code=2)
    assert clbench("validate", "--allow-partial", partial) == f"{partial}: valid\n"
    verdicts = json.loads(clbench("validate", "--json", valid, edited, partial, broken, code=2))
    codes = {Path(name).name: {finding["code"] for finding in found} for name, found in verdicts.items()}
    assert codes["mine.json"] == set()
    assert {"CLB011", "CLB016"} <= codes["edited.json"]
    assert codes["partial.json"] == {"CLB004"}
    assert codes["broken.json"] == {"CLB000"}


def test_a_result_that_would_break_every_board_is_invalid(tmp_path):
    """1e308 seconds are a finite number, and the sum of two is none."""
    good = make_result(SUITE, method="mine")
    runs = tuple(run.model_copy(update={"train_seconds": 1e308}) for run in good.runs)
    save_result(signed(good.model_copy(update={"runs": runs})), tmp_path / "mine.json")
    assert "CLB013 train_seconds" in clbench("validate", tmp_path / "mine.json", code=2)


def test_show_prints_matrices_and_summary_but_not_of_an_edited_file(saved, edited):
    shown = clbench("show", saved())
    for text in ("mine on styles of mini-v2", "CSD", "average forgetting", "regime"):
        assert text in shown
    assert "byzantine" in clbench("show", saved(), "--run", 2)
    assert json.loads(clbench("show", saved(), "--json"))["summary"]["csd"]["average_score"]["n"] == 10
    assert "run 11" in refusal("show", saved(), "--run", 11)
    assert "CLB" in refusal("show", edited)


def test_a_result_of_the_suite_to_tune_on_cannot_be_submitted(tmp_path):
    save_result(make_result(load_suite("mini-v2-dev"), method="mine"), tmp_path / "mine.json")
    said = refusal("submit", tmp_path / "mine.json", "--submitter", "A. Lab", "--submissions", tmp_path / "submissions")
    assert "mini-v2-dev" in said
    assert "only those of mini-v2, sdxl-v1, ssd1b-v1 have a board" in said


def test_submit_files_a_valid_result_once_and_refuses_partial_and_edited_ones(saved, edited, tmp_path):
    folder = tmp_path / "submissions"
    options = ("--submitter", "A. Lab", "--submissions", folder)
    assert "CLB004" in refusal("submit", saved("partial.json", quick=True), *options)
    assert "CLB" in refusal("submit", edited, *options)
    assert not folder.exists()
    told = clbench("submit", saved(), *options)
    assert "git switch -c submit-mini-v2-styles-mine" in told
    assert "Before you open the pull request" in told
    assert not (tmp_path / "leaderboard").exists(), "the tables are rebuilt after the merge"
    filed = folder / "mini-v2" / "styles" / "mine.json"
    assert json.loads(filed.read_text())["submission"]["submitter"] == "A. Lab"
    before = filed.read_bytes()
    clbench("submit", saved(level=0.6), *options)
    assert filed.read_bytes() == before, "nothing is replaced"
    clbench("submit", saved(level=0.5), *options)
    assert {path.name for path in filed.parent.iterdir()} == {"mine.json", "mine+2.json", "mine+3.json"}
    again = (*options, "--contact", "me@example.org")
    clbench("submit", saved(level=0.5), *again)
    assert {path.name for path in filed.parent.iterdir()} == {"mine.json", "mine+2.json", "mine+3.json"}
    assert json.loads((filed.parent / "mine+3.json").read_text())["submission"]["contact"] == "me@example.org"
    assert clbench("validate", *filed.parent.iterdir()).endswith("3 of 3 files are valid\n")


def test_another_source_or_other_settings_are_another_variant(saved, tmp_path):
    folder = tmp_path / "submissions"
    options = ("--submitter", "A. Lab", "--submissions", folder)
    clbench("submit", saved(), *options)
    other = load_result(saved(level=0.6))
    edited = other.model_copy(update={"method": other.method.model_copy(update={"source_sha256": "b" * 64})})
    save_result(signed(edited), tmp_path / "edited.json")
    said = refusal("submit", tmp_path / "edited.json", *options)
    assert "source aaaaaaaaaaaa, and this result of mine, source bbbbbbbbbbbb" in said
    assert "--variant" in said
    stronger = saved(level=0.6, settings={"strength": 10.0})
    assert "this result of mine, strength=10.0" in refusal("submit", stronger, *options)
    save_result(signed(edited), folder / "mini-v2/styles/mine+2.json")
    files = (folder / "mini-v2/styles/mine.json", folder / "mini-v2/styles/mine+2.json")
    assert "mine+2.json: CLB026 its source or settings are not those of the first 'mine'" in clbench(
        "validate", *files, code=2
    )
    assert "CLB026" in refusal("leaderboard", "--submissions", folder, "--output", tmp_path / "board")


def test_a_row_is_the_mean_over_replicates(saved, tmp_path):
    folder, board = tmp_path / "submissions", tmp_path / "board"
    for seed, level in enumerate((0.3, 0.6)):
        clbench("submit", saved(seed=seed, level=level), "--submitter", "me", "--submissions", folder)
    clbench("leaderboard", "--submissions", folder, "--output", board)
    [record] = json.loads((board / "mini-v2/styles.json").read_text())["methods"]
    files = [load_result(folder / f"mini-v2/styles/{name}.json") for name in ("mine", "mine+2")]
    means = [np.mean([run.matrix("csd")[-1].mean() for run in result.runs]) for result in files]
    assert record["csd.average_score.mean"] == pytest.approx(np.mean(means))
    assert "mean of 2 submissions" in record["remark"]
    assert record["runs"] == 10


def test_leaderboard_writes_a_page_a_track_and_the_same_bytes_again(saved, tmp_path):
    folder, board = tmp_path / "submissions", tmp_path / "board"
    for index, method in enumerate(("mine", "yours")):
        result = saved(method=method, seed=index, level=0.3 + 0.2 * index)
        clbench("submit", result, "--submitter", "me", "--submissions", folder)
    options = ("leaderboard", "--submissions", folder, "--output", board, "--json")
    written = [Path(path) for path in json.loads(clbench(*options))]
    page, *data = [path for path in written if path.parent.name == "mini-v2"]
    assert page == board / "mini-v2" / "styles.md"
    assert "published" in (board / "sdxl-v1" / "styles.md").read_text()
    assert {path.suffix for path in data} == {".csv", ".json", ".tex"}
    text = page.read_text()
    assert text.index("yours") < text.index("mine")
    clbench(*options)
    assert page.read_text() == text


@pytest.fixture
def own_runs(tmp_path):
    """What runs wrote: a complete variant, a partial one, and a store full of JSON."""
    for name, options in {"strong": {"settings": {"strength": 10.0}}, "hasty": {"quick": True}}.items():
        result = make_result(SUITE, method="ewc", variant=name, **options)
        save_result(
            result, tmp_path / "runs" / result.place.replace(".json", ".partial.json" * result.partial or ".json")
        )
    for place in ("store/cell/ab/x.json", "store/row/y.json", "tensorboard/a/b.json"):
        (tmp_path / "runs" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / place).write_text("{}")
    return tmp_path


def test_leaderboard_makes_the_board_of_ones_own_runs_and_marks_partial_ones(own_runs):
    shown = clbench("leaderboard", "--submissions", "runs", "--site", "site", cwd=own_runs)
    assert "strong" in shown
    assert "hasty*" in shown
    page = (own_runs / "runs/leaderboard/mini-v2/styles.md").read_text()
    assert "ewc, strength=10.0" in page
    assert "ewc; partial, 1 run" in page
    assert "Partial results have no rank" in page
    assert not (own_runs / "runs/leaderboard/sdxl-v1").exists(), "boards of others' results alone"
    assert (own_runs / "site/mini-v2/styles/methods/hasty.html").is_file()
    again = clbench("leaderboard", "--submissions", "runs", cwd=own_runs)
    assert again.count("wrote") == 5, "the board itself is no result"


def test_leaderboard_ranks_ones_own_among_the_submissions(own_runs):
    theirs = make_result(SUITE, method="theirs", level=0.6)
    same = make_result(SUITE, method="ewc", variant="strong")
    for result in (theirs, same, make_result(SUITE, "objects", method="elsewhere")):
        save_result(result, own_runs / "submissions" / result.place)
    done = execute(CLBENCH, "leaderboard", "--submissions", "runs", "--with", "submissions", cwd=own_runs)
    assert "strong.json stands in place of the submission" in done.stderr
    assert "theirs" in done.stdout
    assert "elsewhere" not in done.stdout
    board = json.loads((own_runs / "runs/leaderboard/mini-v2/styles.json").read_text())
    assert {one["variant"]: one["rank"] for one in board["methods"]} == {"theirs": "1", "strong": "2", "hasty": "–"}


def test_leaderboard_of_a_folder_without_results_or_with_many_bad_ones_says_so_briefly(tmp_path):
    (tmp_path / "runs").mkdir()
    empty = execute(CLBENCH, "leaderboard", "--submissions", "runs", cwd=tmp_path, code=2)
    assert "runs holds no results" in empty.stderr
    bad = tmp_path / "runs/mini-v2/styles"
    bad.mkdir(parents=True)
    for number in range(40):
        (bad / f"{number}.json").write_text("{}")
    done = execute(CLBENCH, "leaderboard", "--submissions", "runs", cwd=tmp_path, code=2)
    assert "and 35 more" in done.stderr
    assert len(done.stderr) < 3000


def test_an_unwritable_place_is_one_sentence_and_exit_1(saved, tmp_path):
    (tmp_path / "file").touch()
    options = ("--submitter", "me", "--submissions", tmp_path / "file" / "submissions")
    assert str(tmp_path / "file") in refusal("submit", saved(), *options, code=1)


def test_compare_says_what_differs_on_the_shared_runs_and_how_sure_that_is(saved):
    worse, better = saved("worse.json", method="worse", level=0.3), saved("better.json", method="better", level=0.5)
    told = json.loads(clbench("compare", better, worse, "--json"))
    assert len(told["runs"]) == 10
    score = told["statistics"]["csd"]["average_score"]
    assert score["first"] - score["second"] == pytest.approx(score["difference"])
    assert score["interval"] == pytest.approx([score["difference"]] * 2), "the same in every run"
    assert score["p"] == score["p_corrected"] == 2 / 2**10
    assert score["chance"] == 1.0
    kept = told["statistics"]["csd"]["kept"]
    assert kept["first"] - kept["second"] == pytest.approx(kept["difference"])
    table = clbench("compare", better, worse)
    assert "better against worse on styles, 10 shared runs" in table
    assert f"{100 * kept['first']:.1f}" in next(line for line in table.splitlines() if "kept, %" in line)
    assert "sign-flip test over 10 orders of all rows at once (step-down max-T; exact)" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 82


def test_compare_and_show_take_names_and_several_results(tmp_path):
    for track in ("styles", "objects"):
        for name in ("a", "b", "c"):
            result = make_result(SUITE, track, method="ewc", variant=name)
            save_result(result, tmp_path / "runs" / result.place)
    told = json.loads(clbench("compare", "a", "b", "c", "--track", "objects", "--json", cwd=tmp_path))
    assert [(one["first"], one["second"], one["track"]) for one in told] == [
        ("a", "b", "objects"),
        ("a", "c", "objects"),
    ]
    shown = clbench("show", "a", "b", "--track", "styles", cwd=tmp_path)
    assert "a (ewc) on styles of mini-v2" in shown
    assert "b (ewc) on styles of mini-v2" in shown
    assert "give --track" in execute(CLBENCH, "compare", "a", "b", cwd=tmp_path, code=2).stderr
    assert "did you mean 'a'" in execute(CLBENCH, "show", "aa", "--track", "styles", cwd=tmp_path, code=2).stderr
    assert "two results or more" in execute(CLBENCH, "compare", "a", cwd=tmp_path, code=2).stderr


def test_compare_refuses_results_that_cannot_be_compared(saved, edited):
    assert "not valid: CLB" in refusal("compare", edited, saved())
    objects = saved("objects.json", track_name="objects")
    assert "different suites or tracks" in refusal("compare", saved(), objects)


def test_verify_recomputes_and_notes_it_for_the_maintainers(saved, edited, tmp_path):
    path, note = saved(), tmp_path / "VERIFIED.json"
    assert f"{path}: recomputed" in clbench("verify", path, "--record", note)
    noted = json.loads(note.read_text())["mini-v2/styles/mine"]
    assert (noted["level"], noted["sha256"]) == ("recomputed", record_sha256(load_result(path)))
    assert "CLB" in refusal("verify", edited)
    assert "did you mean 'rerun'" in refusal("verify", path, "--level", "reruns")
    assert "--images" in refusal("verify", path, "--level", "artifacts")


def test_validate_ends_with_one_verdict_over_many_files(saved, edited):
    done = execute(CLBENCH, "validate", saved("good.json"), edited, code=2)
    assert done.stdout.splitlines()[-1] == "1 of 2 files are valid"
    assert {"CLB011", "CLB016", "CLB018", "CLB019"} <= {
        word for line in done.stdout.splitlines() for word in line.split() if word.startswith("CLB")
    }


# --- export --format eee ---


def test_a_result_becomes_a_record_for_other_registries(saved, tmp_path):
    clbench("export", saved(), "--format", "eee", "--to", tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["schema_version"] == "0.3.0"
    assert len(record["evaluation_results"]) > 10
    result = saved()
    content = result.read_bytes()
    assert f"{result} exists" in refusal("export", result, "--format", "eee", "--to", result)
    assert result.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format", "eee", "--task", "winter"), "takes neither --task nor --images"),
        (("--format", "csv"), "there is no format 'csv'"),
    ],
)
def test_an_export_that_cannot_be_is_refused(saved, options, says):
    assert says in refusal("export", saved(), *options)
