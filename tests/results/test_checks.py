"""The checks: each finds what it is for, in a result whose checksum fits."""

from pathlib import Path

import numpy as np
import pytest
from builders import make_result, probing, signed, tiny_suite

from clbench.results.schema import Result, Spread
from clbench.results.summary import summarize
from clbench.results.tuning import SettingRange, Tuning
from clbench.results.validation import check_result
from clbench.suite import load_suite

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)


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


def test_a_share_beyond_all_measure_is_null_and_valid():
    """A denominator of one denormal: the ratio is not a finite number."""
    scores = {**GOOD.runs[0].scores, "csd": ((0.0,) * 3, (0.5, None, None), (0.5, 0.5, None), (0.5, 0.5, 0.5))}
    real, floor = GOOD.controls.real_against_real, GOOD.controls.last_task_floor
    rows = ((5e-324, 0.0, 0.0),) * 3
    controls = GOOD.controls.model_copy(
        update={"real_against_real": {**real, "csd": rows[0]}, "last_task_floor": {**floor, "csd": rows}}
    )
    run = GOOD.runs[0].model_copy(update={"scores": scores})
    summary = summarize([run], controls, SUITE.track("styles"))
    assert summary["csd"]["learned"] is None
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


@pytest.mark.parametrize("field", ["train_seconds", "eval_seconds", "peak_memory_bytes", "trainable_parameters"])
def test_clb013_a_cost_beyond_what_boards_can_add(field):
    assert codes(with_run(1, **{field: 10**16})) == ["CLB013"]


def test_clb012_a_state_beyond_what_exists():
    assert codes(with_run(1, regime="growing", state_bytes=(1, 1, 10**16))) == ["CLB012"]


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


# --- what strangers' texts, names, runs and controls may be ---

WITH_TEXT = {
    "submitter": lambda text: {"submitter": text},
    "command": lambda text: {"command": text},
    "settings": lambda text: {"settings": {"device": text}},
    "a name in settings": lambda text: {"settings": {text: 1}},
    "backbone": lambda text: {"backbone": GOOD.backbone.model_copy(update={"id": text})},
    "environment": lambda text: {"environment": GOOD.environment.model_copy(update={"processor": text})},
    "method.config.deep": lambda text: {"method": GOOD.method.model_copy(update={"config": {"deep": [{"a": text}]}})},
}


@pytest.mark.parametrize("letter", ["\x1b", "\n", "\x00", "\u202e", "\u2066", "\u200f", "\ue000"])
@pytest.mark.parametrize("field", WITH_TEXT)
def test_clb020_a_text_that_is_not_printable(field, letter):
    result = GOOD.model_copy(update=WITH_TEXT[field](f"a{letter}b"))
    [finding] = check_result(signed(result), SUITE)
    assert finding.code == "CLB020"
    assert field in finding.message
    assert f"U+{ord(letter):04X}" in finding.message
    assert finding.message.isprintable()


def test_clb020_accepts_what_people_write():
    assert codes(GOOD.model_copy(update={"submitter": "Žofie Nováková, 東京大学; <b>&amp;"})) == []


@pytest.mark.parametrize("name", ["CON", "con", "nul.v2", "Lpt1"])
def test_clb021_a_name_that_windows_reserves(name):
    result = GOOD.model_copy(update={"variant": name})
    assert codes(result, path=Path("submissions", result.place)) == ["CLB021"]
    assert codes(result) == [], "one's own run may have it"


def jittered(rows, by: float):
    rng = np.random.default_rng(1)
    return [tuple(None if value is None else value + by * rng.uniform(-1, 1) for value in row) for row in rows]


@pytest.mark.parametrize(("number", "by"), [(2, 0.0), (3, 0.0), (3, 0.001)])
def test_clb022_a_run_that_is_a_copy_of_another_one(number, by):
    """Run 2 has the order of run 1, run 3 another one. Base rows are kept: only what was trained is copied."""
    own = GOOD.runs[number - 1].scores
    copied = [list(own["csd"][0]), *jittered(GOOD.runs[0].scores["csd"][1:], by)]
    assert codes(with_run(number, scores={**own, "csd": copied})) == ["CLB022"]


def test_clb022_a_model_that_is_never_changed_has_equal_runs():
    result = GOOD
    for number, run in enumerate(GOOD.runs):
        scores = {
            metric: [list(rows[0]), *([value if j <= i else None for j, value in enumerate(rows[0])] for i in range(3))]
            for metric, rows in run.scores.items()
        }
        runs = list(result.runs)
        runs[number] = run.model_copy(update={"scores": scores})
        result = result.model_copy(update={"runs": tuple(runs)})
    result = result.model_copy(update={"summary": summarize(result.runs, GOOD.controls, SUITE.track("styles"))})
    assert codes(result) == []


def test_clb023_controls_that_are_not_the_known_ones():
    mini = load_suite("mini-v2")
    good = make_result(mini)

    def forged(field: str, change) -> list[str]:
        values = change(dict(getattr(good.controls, field)))
        controls = good.controls.model_copy(update={field: values})
        summary = summarize(good.runs, controls, mini.track("styles"))
        result = signed(good.model_copy(update={"controls": controls, "summary": summary}))
        return [finding.code for finding in check_result(result, mini)]

    def moved(by: float):
        def change(values):
            rows = [list(row) for row in values["csd"]]
            rows[0][1] += by
            return {**values, "csd": rows}

        return change

    assert forged("last_task_floor", moved(0.01)) == ["CLB023"]
    assert forged("last_task_floor", moved(1e-5)) == [], "another machine's last digits"
    assert forged("real_against_real", lambda values: {**values, "clip_t": (0.5,) * 10}) == ["CLB023"]
    floor = np.full((10, 10), 0.9)
    np.fill_diagonal(floor, good.controls.real_against_real["clip_t"])
    assert forged("last_task_floor", lambda values: {**values, "clip_t": floor.tolist()}) == ["CLB023"]


@pytest.mark.parametrize(
    "edit",
    [
        {"leak": None},
        {"drift": None},
        {"leak": {"csd": ((0.1,) * 3, (0.2,) * 3)}},
        {"leak": dict.fromkeys(("csd", "dino"), ((0.1,) * 2, (0.2,) * 3))},
        {"leak": dict.fromkeys(("csd", "dino"), ((0.1,) * 3, (1.2,) * 3))},
        {"drift": dict.fromkeys(("clip_i", "dino"), (0.5,))},
        {"drift": dict.fromkeys(("clip_i", "dino"), (0.5, 1.5))},
    ],
)
def test_clb027_leak_and_drift_are_those_of_the_track(edit):
    suite = probing(SUITE)
    good = make_result(suite)
    assert check_result(good, suite) == []
    wrong = good.model_copy(update={"runs": (good.runs[0].model_copy(update=edit), *good.runs[1:])})
    assert "CLB027" in [finding.code for finding in check_result(signed(wrong), suite)]


TUNING = Tuning(
    suite=GOOD.suite.model_copy(update={"name": "tiny-dev", "sha256": "d" * 64}),
    track="styles",
    orders=("0",),
    trials=8,
    space={"scale": SettingRange(low=0.1, high=10, log=True, relative=False, integer=False, default=0.5)},
    chosen={"scale": 1.0},
)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"chosen": {"scale": 2.0}}, "tuning.chosen.scale is 2, but the method was run with 1.0"),
        ({"chosen": {}}, "the method's scale differs from its default, but the search did not choose that"),
        ({"chosen": {"scale": 20.0}}, "setting 'scale' is 20, outside its search range [0.1, 10]"),
        ({"space": {}}, "setting 'scale' has no search range"),
        ({"track": "objects"}, "tuning.track is 'objects', but the result is of 'styles'"),
        ({"suite": GOOD.suite}, "on whose own tasks nothing may be tuned"),
    ],
)
def test_clb029_the_settings_are_those_that_a_search_chose_elsewhere(edit, says):
    good = make_result(SUITE, settings={"scale": 1.0}).model_copy(update={"tuning": TUNING})
    assert codes(good) == []
    wrong = good.model_copy(update={"tuning": TUNING.model_copy(update=edit)})
    assert codes(wrong) == ["CLB029"]
    assert says in " ".join(finding.message for finding in check_result(wrong, SUITE))


def test_clb010_the_next_task_is_measured_where_the_track_wants_it():
    suite = probing(SUITE)
    good = make_result(suite)
    base, *rows = good.runs[0].scores["csd"]
    unmeasured = [
        tuple(None if j == i else value for j, value in enumerate(row)) for i, row in enumerate(rows, start=1)
    ]
    scores = {**good.runs[0].scores, "csd": (base, *unmeasured)}
    first = good.runs[0].model_copy(update={"scores": scores})
    wrong = good.model_copy(update={"runs": (first, *good.runs[1:])})
    assert "CLB010" in [finding.code for finding in check_result(signed(wrong), suite)]


def test_a_result_of_version_1_is_valid_whatever_its_summary_says():
    old = GOOD.model_copy(update={"schema_version": "1", "summary": {}})
    assert check_result(old, SUITE) == []


def test_version_1_does_not_excuse_from_what_a_track_measures():
    suite = probing(SUITE)
    old = GOOD.model_copy(update={"schema_version": "1", "suite": make_result(suite).suite, "summary": {}})
    assert {"CLB010", "CLB027"} <= {finding.code for finding in check_result(signed(old), suite)}
