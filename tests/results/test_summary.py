"""The summary: the mean and spread of each statistic over a result's runs."""

import numpy as np
import pytest
from builders import make_result, probing, tiny_suite

from clbench.results.summary import summarize

SUITE = tiny_suite()
GOOD = make_result(SUITE)


def test_the_summary_is_mean_and_std_over_the_runs_of_each_statistic():
    finals = [np.mean(run.matrix("csd")[-1]) for run in GOOD.runs]
    summary = GOOD.summary["csd"]["average_score"]
    assert summary is not None
    assert (summary.mean, summary.std, summary.n) == pytest.approx((np.mean(finals), np.std(finals, ddof=1), 4))


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
        assert (summary.mean, summary.std) == pytest.approx((np.mean(shares), np.std(shares, ddof=1)))


def test_learned_and_kept_are_null_for_a_metric_without_real_against_real():
    real = {name: values for name, values in GOOD.controls.real_against_real.items() if name != "clip_t"}
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
    low = dict.fromkeys(GOOD.summary, (0.0,) * 3)
    controls = GOOD.controls.model_copy(update={"real_against_real": low})
    assert summarize(GOOD.runs, controls, SUITE.track("styles"))["csd"]["kept"] is None


def test_a_single_run_has_no_deviation():
    summary = summarize(GOOD.runs[:1], GOOD.controls, SUITE.track("styles"))["csd"]["average_score"]
    assert summary is not None
    assert (summary.std, summary.n) == (None, 1)


def test_leak_and_drift_are_summarized_where_the_track_measures_them():
    suite = probing(SUITE)
    result = make_result(suite)
    track = suite.track("styles")
    pairs = np.array([(run.leak or {})["csd"] for run in result.runs])
    leak, drift = result.summary["csd"]["leak"], result.summary["clip_i"]["drift"]
    assert leak is not None
    assert leak.mean == pytest.approx((pairs[:, 1] - pairs[:, 0]).mean())
    assert drift is not None
    assert drift.mean == pytest.approx(1 - np.mean([(run.drift or {})["clip_i"] for run in result.runs]))
    assert result.summary["clip_i"].keys() == {"drift"}, "of the track's other statistics it has none"
    assert result.summary["csd"]["forward_transfer"] is not None
    assert track.measured(1) == 2


def test_a_secondary_metric_has_no_shares_since_real_images_hardly_score_above_the_base_in_it():
    assert GOOD.summary["clip_t"]["learned"] is None
    assert GOOD.summary["clip_t"]["kept"] is None
