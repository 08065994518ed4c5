"""Every statistic of a result's runs, computed once, and their summary over the runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clbench.metrics import METRICS
from clbench.results.schema import Controls, MetricSummary, Run, Spread
from clbench.scores import STATISTICS
from clbench.suite import Track


@dataclass(frozen=True, eq=False)
class RunValues:
    """The scores of a result's runs and every statistic of them, as arrays; nan = not measured, or undefined."""

    track: Track
    matrices: dict[str, NDArray[np.float64]]
    """Metric of the track -> the score matrices, (runs, T + 1, T)."""
    reals: dict[str, NDArray[np.float64]]
    """Metric -> the score of each task's real images, in the run's order: (runs, T)."""
    floors: dict[str, NDArray[np.float64]]
    """Metric -> each task's score with the look of the run's last task, in the run's order: (runs, T)."""
    statistics: dict[str, dict[str, NDArray[np.float64]]]
    """Metric -> statistic -> its value in each run, (runs,). A metric of the drift alone has no other."""

    @cached_property
    def summary(self) -> dict[str, MetricSummary]:
        """Metric -> every statistic over the runs; an optional one only where it is measured."""
        return {
            metric: {
                name: found
                for name, found in zip(values, _spreads(np.stack(list(values.values()))), strict=True)
                if found or not STATISTICS[name].optional
            }
            for metric, values in self.statistics.items()
        }

    @property
    def file_summary(self) -> dict[str, MetricSummary]:
        """Metric -> the part of the summary that result files hold."""
        return {
            metric: {name: own for name, own in summary.items() if STATISTICS[name].in_results}
            for metric, summary in self.summary.items()
        }


def run_values(runs: Sequence[Run], controls: Controls, track: Track) -> RunValues:
    """Compute every statistic of every metric in every run.

    The formulas take higher scores to be better. Where lower is better, they get scores with the sign turned, and a
    mean of scores gets its sign back.
    """
    place = {name: index for index, name in enumerate(track.task_names)}
    orders = np.array([[place[name] for name in run.task_order] for run in runs])
    unknown = np.full(orders.shape, np.nan)
    matrices, floors, reals = {}, {}, {}
    for metric in track.metrics:
        matrices[metric] = np.array([run.scores[metric] for run in runs], dtype=float)
        floor, real = controls.last_task_floor.get(metric), controls.real_against_real.get(metric)
        floors[metric] = unknown if floor is None else np.array(floor)[orders[:, -1:], orders]
        # Real images hardly score above the untouched model in a secondary metric: a share of that way says nothing.
        reals[metric] = unknown if real is None or METRICS[metric].secondary else np.array(real)[orders]
    signs = np.array([METRICS[metric].sign for metric in track.metrics])[:, None, None]
    R, real = (np.stack(list(values.values())) for values in (matrices, reals))
    chosen = [one for one in STATISTICS.values() if one.of == "scores"]
    values = [
        one.each(R * signs[..., None], real * signs) * (signs[..., 0] if one.unit == "score" else 1.0) for one in chosen
    ]
    names = [one.name for one in chosen]
    statistics = {
        metric: dict(zip(names, own, strict=True))
        for metric, own in zip(track.metrics, np.stack(values, axis=1), strict=True)
    }
    if track.leak_prompt_templates and all(run.leak for run in runs):
        for metric in track.headline_metrics:
            pairs = np.array([(run.leak or {})[metric] for run in runs])
            statistics[metric]["leak"] = STATISTICS["leak"].compute(METRICS[metric].sign * pairs)
    if track.drift and all(run.drift for run in runs):
        for metric in track.drift.metrics:
            cosines = np.array([(run.drift or {})[metric] for run in runs])
            statistics.setdefault(metric, {})["drift"] = STATISTICS["drift"].compute(cosines)
    return RunValues(track, matrices, reals, floors, statistics)


def summarize(runs: Sequence[Run], controls: Controls, track: Track) -> dict[str, MetricSummary]:
    """The summary that a result file holds: metric -> statistic -> mean and deviation over the runs."""
    return run_values(runs, controls, track).file_summary


def statistics_of(
    runs: Sequence[Run], controls: Controls, metric: str, track: Track, names: Iterable[str] = STATISTICS
) -> dict[str, NDArray[np.float64]]:
    """Statistic -> its value in each run, (runs,); nan where it is undefined."""
    found = run_values(runs, controls, track).statistics[metric]
    return {name: found[name] for name in names}


def spread(values: Sequence[float] | NDArray[np.float64]) -> Spread | None:
    """Mean and standard deviation (n - 1); None if there is no value, or one is nan or beyond all measure."""
    return _spreads(np.asarray(values, dtype=float)[None])[0] if len(values) else None


def _spreads(values: NDArray[np.float64]) -> list[Spread | None]:
    """`spread` of each row of (rows, runs)."""
    count = values.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        means = values.mean(axis=1).tolist()
        stds = values.std(axis=1, ddof=1).tolist() if count > 1 else [None] * len(means)
    return [
        Spread(mean=mean, std=std, n=count) if math.isfinite(mean) and (std is None or math.isfinite(std)) else None
        for mean, std in zip(means, stds, strict=True)
    ]
