"""Statistics of a result's score matrices over its runs, from the matrices and the controls alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clbench.metrics import METRICS
from clbench.results.schema import Controls, MetricSummary, Run, Spread
from clbench.scores import STATISTICS
from clbench.suite import Track


@dataclass(frozen=True, eq=False)
class RunValues:
    """What a result's runs come to, as arrays: everything else that is told of a result is made of these.

    nan stands for what was not measured or is undefined.
    """

    metrics: tuple[str, ...]
    """The first axis of each array."""
    matrices: NDArray[np.float64]
    """The score matrices, (metrics, runs, T + 1, T)."""
    floors: NDArray[np.float64]
    """Each task's floor, that of the run's last task, in the run's order: (metrics, runs, T)."""
    statistics: NDArray[np.float64]
    """(metrics, statistics, runs), the second axis in the order of `clbench.scores.STATISTICS`."""

    def of(self, metric: str, statistic: str) -> NDArray[np.float64]:
        """A statistic in each run, (runs,)."""
        return self.statistics[self.metrics.index(metric), list(STATISTICS).index(statistic)]

    def summary(self, metric: str) -> MetricSummary:
        """Every statistic over the runs; one of cells that nobody need measure only where they are measured."""
        values = self.statistics[self.metrics.index(metric)]
        pairs = zip(STATISTICS.values(), _spreads(values), strict=True)
        return {one.name: found for one, found in pairs if found or not one.optional}


def run_values(runs: Sequence[Run], controls: Controls, track: Track) -> RunValues:
    """Every statistic of every metric in every run, computed at once.

    A statistic is computed of scores of which higher is better: where lower is better, their signs are turned, and that
    of a mean of scores is turned back.
    """
    place = {name: index for index, name in enumerate(track.task_names)}
    orders = np.array([[place[name] for name in run.task_order] for run in runs])
    unknown = np.full(orders.shape, np.nan)
    matrices, floors, reals = [], [], []
    for metric in track.metrics:
        matrices.append(np.array([run.scores[metric] for run in runs], dtype=float))
        floor, real = controls.last_task_floor.get(metric), controls.real_against_real.get(metric)
        floors.append(unknown if floor is None else np.array(floor)[orders[:, -1:], orders])
        # Real images hardly score above the untouched model in a secondary metric: a share of that way says nothing.
        reals.append(unknown if real is None or METRICS[metric].secondary else np.array(real)[orders])
    stacks = np.stack(matrices), np.stack(floors), np.stack(reals)
    signs = np.array([1.0 if METRICS[metric].higher_is_better else -1.0 for metric in track.metrics])
    turned = [stack * signs.reshape(-1, *[1] * (stack.ndim - 1)) for stack in stacks]
    found = [one.each(*turned) * (signs[:, None] if one.unit == "score" else 1.0) for one in STATISTICS.values()]
    return RunValues(track.metrics, stacks[0], stacks[1], np.stack(found, axis=1))


def summarize(runs: Sequence[Run], controls: Controls, track: Track) -> dict[str, MetricSummary]:
    """Metric -> what a result file's summary has of it."""
    return for_file(run_values(runs, controls, track))


def for_file(values: RunValues) -> dict[str, MetricSummary]:
    """Metric -> the statistics that result files hold."""
    return {
        metric: {name: own for name, own in values.summary(metric).items() if STATISTICS[name].in_results}
        for metric in values.metrics
    }


def statistics_of(
    runs: Sequence[Run], controls: Controls, metric: str, track: Track, names: Iterable[str] = STATISTICS
) -> dict[str, NDArray[np.float64]]:
    """Statistic -> its value in each run, (runs,); nan where it is undefined."""
    values = run_values(runs, controls, track)
    return {name: values.of(metric, name) for name in names}


def spread(values: Sequence[float] | NDArray[np.float64]) -> Spread | None:
    """Mean and population standard deviation; None if there is no value, or one is nan or beyond all measure."""
    return _spreads(np.asarray(values, dtype=float)[None])[0] if len(values) else None


def _spreads(values: NDArray[np.float64]) -> list[Spread | None]:
    """`spread` of each row of (rows, runs)."""
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = zip(values.mean(axis=1).tolist(), values.std(axis=1).tolist(), strict=True)
    count = values.shape[1]
    return [
        Spread(mean=mean, std=std, n=count) if math.isfinite(mean) and math.isfinite(std) else None
        for mean, std in pairs
    ]
