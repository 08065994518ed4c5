"""The result file: what is written comes back, what is wrong is named, what is hostile is refused."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from builders import make_result, signed, tiny_suite
from rich.console import Console

import clbench.utils.files
from clbench.cli.render import heatmap, render_result, result_table
from clbench.errors import ClbenchError, WorkFailed
from clbench.results.checks import check_result
from clbench.results.io import load_result, save_result
from clbench.results.schema import Result, Spread, result_schema
from clbench.results.summary import summarize
from clbench.suite import load_suite

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)


# --- The file ---


@pytest.mark.parametrize("track", ["styles", "objects"])
def test_a_saved_result_loads_as_the_same_result(tmp_path, track):
    result = make_result(SUITE, track)
    save_result(result, tmp_path / "deep" / "result.json")
    assert load_result(tmp_path / "deep" / "result.json") == result


def test_saving_writes_the_same_bytes_and_one_line_a_matrix_row(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    save_result(GOOD, first)
    save_result(load_result(first), second)
    assert first.read_bytes() == second.read_bytes()
    row = json.dumps(list(GOOD.runs[0].scores["csd"][1]))
    assert row in [line.strip().rstrip(",") for line in first.read_text().splitlines()]
    assert json.loads(first.read_text()) == GOOD.model_dump(mode="json")


def test_text_that_looks_like_json_survives_the_layout(tmp_path):
    odd = GOOD.model_copy(update={"command": 'run [\n 1,\n 2\n] "[ 3 ]" \\ é', "submitter": "[\t]"})
    save_result(odd, tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == odd


def test_a_failed_write_leaves_the_earlier_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    save_result(GOOD, path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(clbench.utils.files.os, "fsync", full_disk)
    with pytest.raises(WorkFailed, match=r"cannot write .*r\.json: No space left on device"):
        save_result(PARTIAL, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.json"]


def test_the_committed_schema_is_the_one_the_models_generate():
    committed = Path(clbench.results.schema.__file__).with_name("result.schema.json")
    assert json.loads(committed.read_text()) == result_schema(), (
        "the schema changed: write result_schema() to clbench/results/result.schema.json with json.dumps(..., indent=2)"
    )


def test_every_field_of_the_schema_says_what_it_holds():
    schema = result_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, field in model.get("properties", {}).items():
            assert field.get("description"), f"{model['title']}.{name} has no description"


def edited(path: Path, old: str, new: str) -> Path:
    save_result(GOOD, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"track": "styles"', '"track": "styles", "score": 1', "field score: Extra inputs"),
        ('"seed": 0', '"seed": 0, "seed": 1', "field seed appears twice"),
        ('"seed": 0', '"seed": "0"', r"field runs\.0\.seed"),
        ('"seed": 0', '"seed": 1' + "0" * 400, r"field runs\.0\.seed"),
        ('"seed": 0', '"seed": 0.5', r"field runs\.0\.seed"),
        ('"seed": 0', '"sneed": 0', r"field runs\.0\.seed: Field required \(and 1 more\)"),
        ('"train_seconds": 10.5', '"train_seconds": NaN', "NaN is not a finite number"),
        ('"train_seconds": 10.5', '"train_seconds": -Infinity', "-Infinity is not a finite number"),
        ('"train_seconds": 10.5', '"train_seconds": 1e999', "1e999 is not a finite number"),
        ('"train_seconds": 10.5', '"train_seconds": 1' + "0" * 400, r"field runs\.0\.train_seconds"),
        ('"train_seconds": 10.5', '"train_seconds": 1' + "0" * 9000, "not a result file"),
        ('"train_seconds": 10.5', '"train_seconds": true', r"field runs\.0\.train_seconds"),
        ('"scale": 1.0', '"scale": 1e999', "1e999 is not a finite number"),
        ('"scale": 1.0', '"scale": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"scale": 1.0', '"scale": ' + "[" * 500 + "]" * 500, "recursion limit"),
        ('"name": "naive"', '"name": "../../x"', r"field method\.name"),
        ('"name": "naive"', '"name": "<script>"', r"field method\.name"),
        ('"name": "naive"', r'"name": "naive\n"', r"field method\.name"),
        ('"name": "naive"', r'"name": "\ud800"', "not a result file"),
        ('"csd": [', r'"c\u001b[31m": [', r"field runs\.0\.scores\.c\?\[31m"),
        ('"schema_version": "1"', '"schema_version": "2"', "field schema_version"),
        ('"regime": "adapter"', '"regime": "free"', r"field runs\.0\.regime"),
        ('"created_at": "2025-01-02T03:04:05Z"', '"created_at": "2025-01-02T03:04:05"', "field created_at"),
        ('"precision": "fp32"', '"precision": {"a": 1}', r"field settings\.precision"),
        ("{", "[{", "not a result file"),
        ("{", "", "not a result file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence_with_file_and_field(tmp_path, old, new, message):
    path = edited(tmp_path / "bad.json", old, new)
    with pytest.raises(ClbenchError, match=message) as caught:
        load_result(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"null", b"[]", b"[" * 10_000_000, b'{"\x1b[31m\\u001b\\n": 1}', b"7"]
)
def test_bytes_that_are_no_result_are_refused(tmp_path, raw):
    path = tmp_path / "bad.json"
    path.write_bytes(raw)
    with pytest.raises(ClbenchError, match="not a result file") as caught:
        load_result(path)
    assert str(caught.value).isprintable()


def test_a_huge_missing_or_unreadable_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(ClbenchError, match="larger than 20 MB"):
        load_result(tmp_path / "huge.json")
    with pytest.raises(ClbenchError, match="No such file"):
        load_result(tmp_path / "none.json")
    with pytest.raises(ClbenchError, match="directory"):
        load_result(tmp_path)


# --- The summary ---


def test_the_summary_is_mean_and_population_std_over_the_runs_of_each_statistic():
    finals = [np.mean(run.matrix("csd")[-1]) for run in GOOD.runs]
    summary = GOOD.summary["csd"]["average_score"]
    assert summary is not None
    assert (summary.mean, summary.std, summary.n) == pytest.approx((np.mean(finals), np.std(finals), 4))


def test_memory_uses_the_floor_of_the_runs_own_last_task_in_the_runs_order():
    track = SUITE.track("styles")
    floor = np.array(GOOD.controls.last_task_floor["dino"])
    shares = []
    for run in GOOD.runs:
        order, R = track.orders[run.order], run.matrix("dino")
        kept = sum(R[3, j] - floor[order[2], order[j]] for j in (0, 1))
        shares.append(kept / sum(R[j + 1, j] - floor[order[2], order[j]] for j in (0, 1)))
    summary = GOOD.summary["dino"]["memory"]
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(shares))


def test_learned_and_kept_use_the_real_images_of_each_task_in_the_runs_order():
    track = SUITE.track("styles")
    real = np.array(GOOD.controls.real_against_real["dino"])
    learned, kept = [], []
    for run in GOOD.runs:
        order, R = track.orders[run.order], run.matrix("dino")
        learned.append(sum(R[j + 1, j] - R[0, j] for j in range(3)) / sum(real[order[j]] - R[0, j] for j in range(3)))
        kept.append(sum(R[3, j] - R[0, j] for j in (0, 1)) / sum(real[order[j]] - R[0, j] for j in (0, 1)))
    for name, shares in (("learned", learned), ("kept", kept)):
        summary = GOOD.summary["dino"][name]
        assert summary is not None
        assert (summary.mean, summary.std) == pytest.approx((np.mean(shares), np.std(shares)))


def test_learned_and_kept_are_null_for_a_metric_without_real_against_real():
    real = without(GOOD.controls.real_against_real, "clip_t")
    controls = GOOD.controls.model_copy(update={"real_against_real": real})
    summary = summarize(GOOD.runs, controls, SUITE.track("styles"))
    assert summary["clip_t"]["learned"] is summary["clip_t"]["kept"] is None
    assert summary["csd"] == GOOD.summary["csd"]


def test_forward_transfer_is_summarized_only_where_it_is_measured():
    assert "forward_transfer" not in GOOD.summary["csd"]
    rows = tuple(tuple(value if value is not None else 0.3 for value in row) for row in GOOD.runs[0].scores["csd"])
    runs = tuple(run.model_copy(update={"scores": {**run.scores, "csd": rows}}) for run in GOOD.runs)
    assert summarize(runs, GOOD.controls, SUITE.track("styles"))["csd"]["forward_transfer"] is not None


def test_a_statistic_that_is_undefined_in_a_run_is_null():
    high = dict.fromkeys(GOOD.summary, ((0.9,) * 3,) * 3)
    controls = GOOD.controls.model_copy(update={"last_task_floor": high})
    assert summarize(GOOD.runs, controls, SUITE.track("styles"))["csd"]["memory"] is None


# --- The checks ---


def codes(result: Result, **options) -> list[str]:
    """What is found where the checksum is as its maker would write it."""
    return sorted({finding.code for finding in check_result(signed(result), SUITE, **options)})


def with_run(number: int, **update) -> Result:
    """GOOD with fields of one run changed (numbers from 1) and its summary recomputed where that is possible."""
    runs = list(GOOD.runs)
    runs[number - 1] = runs[number - 1].model_copy(update=update)
    result = GOOD.model_copy(update={"runs": tuple(runs)})
    try:
        summary = summarize(runs, GOOD.controls, SUITE.track("styles"))
    except (ValueError, KeyError, IndexError):
        return result
    return result.model_copy(update={"summary": summary})


def with_cell(number: int, row: int, column: int, value: float | None) -> Result:
    scores = {metric: [list(line) for line in rows] for metric, rows in GOOD.runs[number - 1].scores.items()}
    scores["csd"][row][column] = value
    return with_run(number, scores=scores)


def without(values: dict, key: str) -> dict:
    return {name: value for name, value in values.items() if name != key}


def test_a_complete_result_is_valid_on_both_tracks():
    assert codes(GOOD) == codes(make_result(SUITE, "objects")) == []


def test_a_partial_result_is_valid_only_where_partial_ones_are_allowed():
    assert codes(PARTIAL) == ["CLB004"]
    assert codes(PARTIAL, allow_partial=True) == []
    [finding] = check_result(PARTIAL, SUITE)
    assert "3 runs are missing" in finding.message
    assert "--allow-partial" in finding.message


@pytest.mark.parametrize(
    ("field", "value"), [("name", "other"), ("version", "2"), ("sha256", "f" * 64)], ids=lambda value: str(value)[:7]
)
def test_clb001_another_suite(field, value):
    result = GOOD.model_copy(update={"suite": GOOD.suite.model_copy(update={field: value})})
    assert codes(result) == ["CLB001"]


def test_clb002_unknown_track():
    assert codes(GOOD.model_copy(update={"track": "sounds"})) == ["CLB002"]


def test_clb003_a_run_outside_the_protocol_or_twice():
    assert codes(with_run(4, seed=7), allow_partial=True) == ["CLB003", "CLB005"]
    assert codes(with_run(4, order="77")) == ["CLB003", "CLB004", "CLB005"]
    twice = GOOD.model_copy(update={"runs": (*GOOD.runs, GOOD.runs[0])})
    summary = summarize(twice.runs, GOOD.controls, SUITE.track("styles"))
    assert codes(twice.model_copy(update={"summary": summary})) == ["CLB003"]


def test_clb005_a_result_that_lies_about_being_partial():
    assert codes(GOOD.model_copy(update={"partial": True}), allow_partial=True) == ["CLB005"]
    assert codes(PARTIAL.model_copy(update={"partial": False}), allow_partial=True) == ["CLB005"]


def test_clb006_wrong_task_order():
    assert codes(with_run(3, task_order=("byzantine", "winter", "ink art"))) == ["CLB006", "CLB011"]
    assert codes(with_run(3, task_order=("byzantine", "byzantine", "<script>"))) == ["CLB006"]
    assert codes(with_run(3, task_order=())) == ["CLB006"]
    finding, *_ = check_result(with_run(3, task_order=("byzantine", "winter", "ink art")), SUITE)
    assert "wrong task order in run 3 (order '5', seed 0)" in finding.message


def test_clb007_metrics_missing_or_more():
    assert codes(with_run(1, scores=without(GOOD.runs[0].scores, "dino"))) == ["CLB007"]
    assert codes(with_run(1, scores={**GOOD.runs[0].scores, "clip_i": GOOD.runs[0].scores["csd"]})) == ["CLB007"]


@pytest.mark.parametrize(
    "rows", [(), ((0.1,) * 3,) * 3, ((0.1,) * 4,) * 4, ((0.1, 0.1),) * 4, ((0.1,) * 3, (), (), ())]
)
def test_clb008_a_matrix_of_another_shape(rows):
    assert "CLB008" in codes(with_run(2, scores={**GOOD.runs[1].scores, "csd": rows}))


@pytest.mark.parametrize("value", [1.01, -1.5, 1e300, float("nan")])
def test_clb009_a_score_that_is_no_cosine(value):
    assert "CLB009" in codes(with_cell(2, 3, 1, value))


def test_a_memory_beyond_all_measure_is_null_and_valid():
    """A denominator of one denormal: the ratio is not a finite number."""
    row = GOOD.runs[0].scores["csd"]
    scores = {**GOOD.runs[0].scores, "csd": (row[0], (5e-324, None, None), (0.5, 0.0, None), (0.5, 0.5, 0.5))}
    real, floor = GOOD.controls.real_against_real, GOOD.controls.last_task_floor
    controls = GOOD.controls.model_copy(
        update={
            "real_against_real": {**real, "csd": (0.0,) * 3},
            "last_task_floor": {**floor, "csd": ((0.0,) * 3,) * 3},
        }
    )
    run = GOOD.runs[0].model_copy(update={"scores": scores})
    summary = summarize([run], controls, SUITE.track("styles"))
    assert summary["csd"]["memory"] is None
    result = PARTIAL.model_copy(update={"runs": (run,), "controls": controls, "summary": summary})
    assert codes(result, allow_partial=True) == []


def test_clb010_a_seen_task_or_a_base_score_that_was_not_measured():
    assert codes(with_cell(2, 3, 1, None)) == ["CLB010"]
    assert codes(with_cell(2, 0, 2, None)) == ["CLB010"]
    assert codes(with_cell(2, 1, 2, 0.3)) == [], "tasks not yet seen may be measured"


def test_clb011_another_base_row_in_one_run():
    value = GOOD.runs[1].scores["csd"][0][0]
    assert value is not None
    assert codes(with_cell(2, 0, 0, value + 1e-4)) == ["CLB011"]
    assert codes(with_cell(2, 0, 0, value + 1e-8)) == []


def test_clb012_state_sizes_that_are_none():
    assert codes(with_run(1, state_bytes=(1, 1))) == ["CLB012"]
    assert codes(with_run(1, state_bytes=())) == ["CLB012"]
    assert codes(with_run(1, state_bytes=(1, 1, -1))) == ["CLB012"]


@pytest.mark.parametrize("field", ["train_seconds", "eval_seconds", "peak_memory_bytes", "trainable_parameters"])
def test_clb013_a_negative_cost(field):
    assert codes(with_run(1, **{field: -1})) == ["CLB013"]


@pytest.mark.parametrize("regime", ["model", "adapter", "constant"])
def test_clb014_a_growing_state_that_claims_not_to_grow(regime):
    assert codes(with_run(1, regime=regime, state_bytes=(100, 200, 300))) == ["CLB014"]
    assert codes(with_run(1, regime=regime, state_bytes=(100, 200, 201))) == []
    assert codes(with_run(1, regime="growing", state_bytes=(100, 200, 300))) == []


def with_controls(**update) -> Result:
    return GOOD.model_copy(update={"controls": GOOD.controls.model_copy(update=update)})


def test_clb015_controls_missing_misshaped_or_contradictory():
    real, floor = GOOD.controls.real_against_real, GOOD.controls.last_task_floor
    assert codes(with_controls(real_against_real=without(real, "csd"))) == ["CLB015"]
    assert codes(with_controls(last_task_floor=without(floor, "dino"))) == ["CLB015"]
    assert codes(with_controls(last_task_floor={**floor, "csd": ((0.1,) * 3,) * 2})) == ["CLB015"]
    assert codes(with_controls(real_against_real={**real, "csd": (0.1,)})) == ["CLB015"]
    assert codes(with_controls(real_against_real={**real, "csd": (0.1,) * 3})) == ["CLB015"]
    assert codes(with_controls(real_against_real={**real, "csd": (9.0,) * 3})) == ["CLB015"]
    fewer = with_controls(real_against_real=without(real, "clip_t"))
    summary = summarize(fewer.runs, fewer.controls, SUITE.track("styles"))
    assert codes(fewer.model_copy(update={"summary": summary})) == [], "secondary metrics need no controls"


def test_clb016_a_summary_that_the_runs_do_not_give():
    def with_summary(**update) -> Result:
        return GOOD.model_copy(update={"summary": {**GOOD.summary, **update}})

    csd = GOOD.summary["csd"]
    score = csd["average_score"]
    assert score is not None
    better = score.model_copy(update={"mean": score.mean + 1e-6})
    assert codes(with_summary(csd={**csd, "average_score": better})) == ["CLB016"]
    assert codes(with_summary(csd={**csd, "average_score": None})) == ["CLB016"]
    assert codes(with_summary(csd={**csd, "average_score": score.model_copy(update={"n": 8})})) == ["CLB016"]
    assert codes(with_summary(csd={**csd, "fame": Spread(mean=1, std=0, n=4)})) == ["CLB016"]
    assert codes(with_summary(csd=without(csd, "base"))) == ["CLB016"]
    assert codes(with_summary(fid=csd)) == ["CLB016"]
    rounded = score.model_copy(update={"mean": score.mean + 1e-12})
    assert codes(with_summary(csd={**csd, "average_score": rounded})) == []


def test_clb017_a_file_in_another_methods_place():
    assert codes(GOOD, path=Path("submissions/tiny/styles/naive.json")) == []
    for path in ("submissions/tiny/styles/best.json", "submissions/tiny/objects/naive.json", "naive.json"):
        assert codes(GOOD, path=Path(path)) == ["CLB017"]


def test_all_failures_are_reported_at_once():
    runs = (GOOD.runs[0].model_copy(update={"state_bytes": (), "train_seconds": -1.0}), *GOOD.runs[1:])
    assert codes(GOOD.model_copy(update={"runs": runs, "partial": True})) == ["CLB005", "CLB012", "CLB013"]


# --- The terminal ---


def printed(*renderables, result: Result | None = None, **options) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor", legacy_windows=False)
    if result is not None:
        render_result(result, SUITE, console, **options)
    console.print(*renderables)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_show_prints_every_metric_the_summary_and_the_controls():
    text = printed(result=GOOD)
    for word in (
        "CSD",
        "DINO",
        "CLIP-T",
        "average score",
        "learned",
        "kept",
        "memory",
        "last-task floor",
        "real against real",
        "adapter",
    ):
        assert word in text
    assert "partial" not in text


def test_show_says_that_a_result_is_partial():
    assert "partial: 1 of the protocol's 4 runs" in printed(result=PARTIAL)
    assert "naive*" in printed(result_table(PARTIAL))


def percent(spread: Spread | None) -> str:
    assert spread is not None
    return f"{100 * spread.mean:.0f} ± {100 * spread.std:.0f} %"


def test_the_table_at_the_end_of_a_run_has_the_shares_in_percent():
    text = printed(result_table(GOOD))
    for heading in ("Score ↑", "Forgetting ↓", "Learned ↑", "Kept ↑", "Base"):
        assert heading in text
    assert "Plasticity" not in text
    assert "Memory" not in text
    for metric in ("csd", "dino"):
        assert percent(GOOD.summary[metric]["learned"]) in text
        assert percent(GOOD.summary[metric]["kept"]) in text


def test_a_secondary_metric_has_no_shares_since_real_images_hardly_score_above_the_base_in_it():
    assert GOOD.summary["clip_t"]["learned"] is None
    assert GOOD.summary["clip_t"]["kept"] is None


def test_the_table_at_the_end_of_a_run_fits_80_columns_without_cutting_a_number():
    wide = {
        "average_score": Spread(mean=-0.123, std=0.456, n=8),
        "average_forgetting": Spread(mean=0.123, std=0.456, n=8),
        "learned": Spread(mean=-1.09, std=1.01, n=8),
        "kept": Spread(mean=-1.19, std=1.02, n=8),
        "base": Spread(mean=-0.123, std=0, n=8),
    }
    method = GOOD.method.model_copy(update={"name": "merge_ortho_products"})
    result = GOOD.model_copy(update={"method": method, "summary": {"clip_t": wide}, "partial": True})
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("-0.123 ± 0.456", "0.123 ± 0.456", "-109 ± 101 %", "-119 ± 102 %", " -0.123", "CLIP-T"):
        assert shown in text


def test_show_gives_the_shares_in_percent_and_everything_else_in_cosines():
    text = printed(result=GOOD)
    csd = GOOD.summary["csd"]
    for name in ("learned", "kept", "memory"):
        [line] = [line for line in text.splitlines() if line.strip().startswith(name)]
        assert percent(csd[name]) in line
    assert text.count("%") == 7, "three shares of two headline metrics; of the secondary one, memory alone"


def test_show_can_print_one_run_under_its_tasks_names():
    assert "byzantine" not in printed(result=GOOD)
    text = printed(result=GOOD, run=1)
    assert text.index("winter") < text.index("byzantine") < text.index("ink art")
    with pytest.raises(ClbenchError, match="no run 5; this result has runs 1 to 4"):
        printed(result=GOOD, run=5)


@pytest.mark.parametrize("named", [True, False])
def test_a_ten_task_heatmap_fits_80_columns_without_cutting_a_score(named):
    R = np.tril(np.full((11, 10), 0.25), -1) - np.eye(11, 10) + np.where(np.arange(11) == 0, 0.5, 0)[:, None]
    R[np.triu_indices(11, 0, 10)] = np.nan
    R[0], R[1, 0] = 0.5, -0.05
    names = [f"palette knife {number}" if named else "" for number in range(10)]
    console = Console(file=io.StringIO(), width=80)
    console.print(heatmap(R, names, "CSD"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "-0.05" in console.file.getvalue()
    assert sum(line.count("0.25") for line in lines) == 54


def test_clb018_an_edit_that_no_statistic_feels():
    """Two scores of the last row swapped: every mean stays."""
    rows = [list(row) for row in GOOD.runs[0].scores["csd"]]
    rows[-1][0], rows[-1][1] = rows[-1][1], rows[-1][0]
    runs = (GOOD.runs[0].model_copy(update={"scores": {**GOOD.runs[0].scores, "csd": rows}}), *GOOD.runs[1:])
    edited_ = GOOD.model_copy(update={"runs": runs, "summary": summarize(runs, GOOD.controls, SUITE.track("styles"))})
    assert [finding.code for finding in check_result(edited_, SUITE)] == ["CLB018"]
    assert check_result(signed(edited_), SUITE) == []  # it is no signature


def test_clb019_a_base_row_that_is_not_the_known_one():
    mini = load_suite("mini-v2")
    good = make_result(mini)
    assert check_result(good, mini) == []

    def moved(by: float) -> Result:
        runs = []
        for run in good.runs:
            rows = [list(row) for row in run.scores["csd"]]
            rows[0][run.task_order.index("winter")] += by  # type: ignore[operator]
            runs.append(run.model_copy(update={"scores": {**run.scores, "csd": rows}}))
        summary = summarize(runs, good.controls, mini.track("styles"))
        return signed(good.model_copy(update={"runs": tuple(runs), "summary": summary}))

    [finding] = check_result(moved(0.01), mini)
    assert finding.code == "CLB019"
    assert "base score of 'winter'" in finding.message
    assert check_result(moved(1e-5), mini) == []  # another machine's last digits
