"""All scores of a result in Python: the mean matrix of a metric, and the data frame."""

import sys
from typing import Any

import numpy as np
import pytest
from builders import make_result, tiny_suite

from clbench.errors import ClbenchError
from clbench.results.schema import Result

SUITE = tiny_suite()
GOOD = make_result(SUITE)


def with_run(number: int, **update) -> Result:
    runs = list(GOOD.runs)
    runs[number] = runs[number].model_copy(update=update)
    return GOOD.model_copy(update={"runs": tuple(runs)})


def test_the_matrix_is_the_mean_over_runs_with_nan_where_one_did_not_measure():
    matrix = GOOD.matrix("dino")
    assert matrix.shape == (4, 3)
    assert matrix[3, 0] == pytest.approx(np.mean([run.matrix("dino")[3, 0] for run in GOOD.runs]))
    assert np.isnan(matrix[1:][np.triu_indices(3, 1)]).all()
    row = (None, *GOOD.runs[1].scores["dino"][0][1:])
    one = with_run(1, scores={**GOOD.runs[1].scores, "dino": (row, *GOOD.runs[1].scores["dino"][1:])})
    assert np.isnan(one.matrix("dino")[0, 0])


def test_the_matrix_of_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ClbenchError, match=r"no metric 'dinno'; did you mean 'dino'\? \(known: csd, dino, clip_t\)"):
        GOOD.matrix("dinno")
    lacking = with_run(2, scores={"csd": GOOD.runs[2].scores["csd"]})
    with pytest.raises(ClbenchError, match=r"no metric 'dino' \(known: csd\)"):
        lacking.matrix("dino")


@pytest.mark.parametrize(
    "update",
    [
        {"task_order": ("byzantine", "winter")},
        {"scores": {**GOOD.runs[1].scores, "csd": ((0.1,) * 3,) * 3}},
        {"scores": {**GOOD.runs[1].scores, "csd": ((0.1,) * 3, (0.1,) * 3, (), (0.1,) * 3)}},
    ],
    ids=["tasks", "rows", "ragged"],
)
def test_matrices_of_another_shape_are_refused_in_one_sentence(update):
    with pytest.raises(ClbenchError, match="not all runs have 3 tasks and a csd matrix of 4 x 3; see"):
        with_run(1, **update).matrix("csd")


def test_the_frame_has_a_row_for_each_metric_run_row_of_the_matrix_and_task():
    pytest.importorskip("pandas")
    frame: Any = GOOD.to_frame()
    assert list(frame.columns) == ["metric", "order", "seed", "after", "learned", "task", "score"]
    expected = []
    for metric in ("csd", "dino", "clip_t"):
        for run in GOOD.runs:
            for after, scores in enumerate(run.scores[metric]):
                learned = run.task_order[after - 1] if after else None
                for task, score in zip(run.task_order, scores, strict=True):
                    expected.append((metric, run.order, run.seed, after, learned, task, score))
    rows = [
        tuple(None if value != value else value for value in row) for row in frame.itertuples(index=False, name=None)
    ]
    assert rows == expected
    assert frame.score.dtype == float
    assert frame.seed.dtype == frame.after.dtype == int


def test_the_frame_gives_the_summarys_score_back():
    pytest.importorskip("pandas")
    frame: Any = GOOD.to_frame()
    last = frame[(frame.metric == "csd") & (frame.after == 3)]
    summary = GOOD.summary["csd"]["average_score"]
    assert summary is not None
    assert last.groupby(["order", "seed"]).score.mean().mean() == pytest.approx(summary.mean)


def test_without_pandas_the_frame_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "clbench.results.frame", raising=False)
    with pytest.raises(ClbenchError, match=r"^pandas is not installed; this needs `pip install pandas`$"):
        GOOD.to_frame()
