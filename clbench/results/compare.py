"""Two results run by run: what differs, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.results.schema import Result
from clbench.results.significance import ALPHA, bootstrap_intervals, sign_flip_p
from clbench.results.summary import statistics_of
from clbench.suite import Suite, Track

COMPARED = {
    "average_score": "score",
    "average_forgetting": "forgetting",
    "learned": "learned, %",
    "kept": "kept, %",
    "plasticity": "plasticity",
    "backward_transfer": "transfer",
}
"""Statistic -> what the table calls it. Shares are in percent in the table, and plain shares everywhere else."""


@dataclass(frozen=True)
class Difference:
    """One statistic of one metric on the shared runs."""

    first: float
    """Mean over the runs."""
    second: float
    difference: float
    """Mean of first - second."""
    interval: tuple[float, float]
    """95 % percentile bootstrap interval of the difference, resampling runs."""
    p: float
    """Two-sided sign-flip permutation p, uncorrected (`clbench.results.significance.sign_flip_p`)."""

    @property
    def separable(self) -> bool:
        return self.p <= ALPHA


@dataclass(frozen=True)
class Comparison:
    """Two methods on the runs that both have."""

    names: tuple[str, str]
    track: Track
    runs: tuple[tuple[str, int], ...]
    """(order, seed)"""
    statistics: dict[str, dict[str, Difference | None]]
    """Metric -> statistic -> its difference; None where it is undefined in any run."""
    matrices: dict[str, NDArray[np.float64]]
    """Metric -> mean over runs of first - second, (T + 1, T), nan where not measured."""

    def as_json(self) -> dict[str, Any]:
        return {
            "first": self.names[0],
            "second": self.names[1],
            "track": self.track.name,
            "runs": [list(run) for run in self.runs],
            "statistics": {
                metric: {name: vars(value) if value else None for name, value in own.items()}
                for metric, own in self.statistics.items()
            },
        }


def compare_results(first: Result, second: Result, suite: Suite) -> Comparison:
    """Compare two valid results of one track of `suite`.

    Raises:
        ClbenchError: they are of different suites or tracks, or share no run.
    """
    for result in (first, second):
        if (result.suite.sha256, result.track) != (suite.sha256, first.track):
            raise ClbenchError("the results are of different suites or tracks, so that their scores cannot be compared")
    track = suite.track(first.track)
    by_run = [{(run.order, run.seed): run for run in result.runs} for result in (first, second)]
    shared = sorted(by_run[0].keys() & by_run[1].keys())
    if not shared:
        raise ClbenchError("the results share no run: no order and seed is in both")
    pairs = [(by_run[0][key], by_run[1][key]) for key in shared]
    names = (first.method.name, second.method.name)
    statistics, matrices = {}, {}
    for metric in track.metrics:
        sides = [
            statistics_of([pair[side] for pair in pairs], result.controls, metric, track, COMPARED)
            for side, result in enumerate((first, second))
        ]
        statistics[metric] = {name: _difference(*(side[name] for side in sides)) for name in COMPARED}
        matrices[metric] = np.mean([one.matrix(metric) - two.matrix(metric) for one, two in pairs], axis=0)
    return Comparison(names, track, tuple(shared), statistics, matrices)


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference | None:
    if not np.isfinite([first, second]).all():
        return None
    paired = (first - second)[None]
    low, high = bootstrap_intervals(paired)[0].tolist()
    return Difference(
        float(first.mean()), float(second.mean()), float(paired.mean()), (low, high), float(sign_flip_p(paired)[0])
    )
