"""A result's summary: statistics of its score matrices over its runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from clbench.results.schema import Controls, MetricSummary, Result, Run, Spread, real_rows, task_orders
from clbench.scores import IF_MEASURED, STATISTICS
from clbench.suite import Track


def matrices_of(runs: Sequence[Run], metric: str) -> NDArray[np.float64]:
    """The score matrices with nan for null, (runs, T + 1, T)."""
    return np.array([run.scores[metric] for run in runs], dtype=float)


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and population standard deviation; None if there is no value, or one is nan or beyond all measure."""
    return _spreads(np.asarray(values, dtype=float)[None])[0] if len(values) else None


def _spreads(values: NDArray[np.float64]) -> list[Spread | None]:
    """`spread` of each row of (statistics, runs)."""
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = zip(values.mean(axis=1).tolist(), values.std(axis=1).tolist(), strict=True)
    count = values.shape[1]
    return [
        Spread(mean=mean, std=std, n=count) if math.isfinite(mean) and math.isfinite(std) else None
        for mean, std in pairs
    ]


def floor_rows(runs: Sequence[Run], controls: Controls, metric: str, track: Track) -> NDArray[np.float64]:
    """(runs, T), each in the run's order: the floor of that run's last task; nan where the metric has none."""
    orders = task_orders(runs, track)
    if metric not in controls.last_task_floor:
        return np.full(orders.shape, np.nan)
    return np.array(controls.last_task_floor[metric])[orders[:, -1:], orders]


def past_floor(result: Result, metric: str, track: Track) -> list[float]:
    """For each run, the mean of its last-task floor over the past tasks; nan for a single task."""
    rows = floor_rows(result.runs, result.controls, metric, track)[:, :-1]
    return rows.mean(axis=1).tolist() if rows.shape[1] else [math.nan] * len(rows)


def statistics_of(
    runs: Sequence[Run], controls: Controls, metric: str, track: Track, names: Iterable[str] = STATISTICS
) -> dict[str, NDArray[np.float64]]:
    """Statistic -> its value in each run, (runs,); nan where it is undefined."""
    matrices = matrices_of(runs, metric)
    floors, reals = (rows(runs, controls, metric, track) for rows in (floor_rows, real_rows))
    return {name: STATISTICS[name].each(matrices, floors, reals) for name in names}


def summarize(runs: Sequence[Run], controls: Controls, track: Track) -> dict[str, MetricSummary]:
    """Metric id -> every statistic over the runs, from the score matrices and the controls."""
    matrices = np.stack([matrices_of(runs, metric) for metric in track.metrics])
    floors, reals = (
        np.stack([rows(runs, controls, metric, track) for metric in track.metrics]) for rows in (floor_rows, real_rows)
    )
    found = [statistic.each(matrices, floors, reals) for statistic in STATISTICS.values()]
    summary = {}
    for metric, values in zip(track.metrics, np.stack(found, axis=1), strict=True):  # (statistics, runs)
        spreads = zip(STATISTICS, _spreads(values), strict=True)
        summary[metric] = {name: value for name, value in spreads if value or name not in IF_MEASURED}
    return summary
