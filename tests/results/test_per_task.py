"""What a result says of each task, and the standard errors over tasks and over orders."""

import numpy as np
import pytest
from builders import make_result, probing, tiny_suite

from clbench.results.analysis import analyze
from clbench.results.per_task import error_over_orders, error_over_tasks, per_task

SUITE = probing(tiny_suite())
TRACK = SUITE.track("styles")
RESULT = make_result(SUITE, seed=3)
METHOD = analyze(RESULT, TRACK)


def test_each_tasks_parts_are_those_of_its_columns_wherever_an_order_puts_it():
    found = per_task(METHOD, "csd")
    real = np.array(RESULT.controls.real_against_real["csd"])
    for number, name in enumerate(TRACK.task_names):
        columns = [(run.matrix("csd"), run.task_order.index(name)) for run in RESULT.runs]
        base = [R[0, j] for R, j in columns]
        gains = [R[j + 1, j] - R[0, j] for R, j in columns]
        past = [(R[3, j] - R[0, j], real[number] - R[0, j]) for R, j in columns if j < 2]
        assert found["base"][number] == pytest.approx(np.mean(base))
        assert found["real"][number] == pytest.approx(real[number])
        assert found["learned"][number] == pytest.approx(np.sum(gains) / np.sum(real[number] - np.array(base)))
        assert found["average_score"][number] == pytest.approx(np.mean([R[3, j] for R, j in columns]))
        kept = np.sum([gain for gain, _ in past]) / np.sum([room for _, room in past]) if past else np.nan
        assert found["kept"][number] == pytest.approx(kept, nan_ok=True)
        leaks = [(run.leak or {})["csd"] for run in RESULT.runs]
        places = [run.task_order.index(name) for run in RESULT.runs]
        moved = [rows[1][j] - rows[0][j] for rows, j in zip(leaks, places, strict=True)]
        assert found["leak"][number] == pytest.approx(np.mean(moved))


def test_the_error_of_a_mean_over_tasks_is_the_usual_one():
    scores = per_task(METHOD, "csd")["average_score"]
    assert error_over_tasks(METHOD, "csd", "average_score") == pytest.approx(np.std(scores, ddof=1) / np.sqrt(3))
    assert error_over_tasks(METHOD, "csd", "average_incremental_score") is None, "it is no sum over tasks"


def test_the_error_of_a_ratio_agrees_with_what_drawing_tasks_again_gives():
    """A jackknife of Kept over tasks is close to the ratio estimator's formula, and shares no code with it."""
    R, real = METHOD.matrices["csd"], METHOD.reals["csd"]
    gains, rooms = (R[:, -1] - R[:, 0])[:, :-1], (real - R[:, 0])[:, :-1]
    names = np.array([run.task_order[:-1] for run in RESULT.runs])
    without = []
    tasks = sorted(set(names.ravel()))
    for name in tasks:
        others = names != name
        without.append(gains[others].sum() / rooms[others].sum())
    count = len(tasks)
    jackknife = np.sqrt((count - 1) / count * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert error_over_tasks(METHOD, "csd", "kept") == pytest.approx(jackknife, rel=0.35)


def test_the_error_over_orders_averages_the_seeds_of_an_order_first():
    values = METHOD.statistics["csd"]["kept"].reshape(2, 2).mean(axis=1)
    assert error_over_orders(METHOD, "csd", "kept") == pytest.approx(np.std(values, ddof=1) / np.sqrt(2))
    single = analyze(make_result(SUITE, quick=True), TRACK)
    assert error_over_orders(single, "csd", "kept") is None
