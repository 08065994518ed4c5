"""What the pages show of results: statistics with their intervals, and mean score matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.aggregate import rank_results
from clbench.leaderboard.rank import Ranking, bootstrap_intervals
from clbench.result import Result, Spread, statistics_of
from clbench.suite import Track

STRICT = frozenset({"model", "adapter"})
"""The regimes that hand on no more than merged weights or one adapter."""


@dataclass(frozen=True)
class Figure:
    """A statistic over the runs of one method."""

    spread: Spread
    interval: tuple[float, float] | None
    """95 % percentile bootstrap interval of the mean, resampling runs; None for a single run."""


@dataclass(frozen=True)
class Measured:
    """One result and what its runs come to."""

    result: Result
    values: Mapping[str, Mapping[str, NDArray]]
    """Metric -> statistic -> (runs,), nan where a run leaves it undefined."""
    figures: Mapping[str, Mapping[str, Figure | None]]
    """Metric -> statistic -> its figure; None where it is undefined in any run."""
    means: Mapping[str, NDArray]
    """Metric -> the mean score matrix, (T + 1, T); nan where a run did not measure the cell."""

    @property
    def name(self) -> str:
        return self.result.method.name

    @property
    def regimes(self) -> list[str]:
        return sorted({run.regime for run in self.result.runs})

    @property
    def strict(self) -> bool:
        return STRICT.issuperset(self.regimes)


def measure(result: Result, track: Track) -> Measured:
    """A result's figures; their means and deviations are those of its (recomputed) summary."""
    matrices = {metric: [run.matrix(metric) for run in result.runs] for metric in track.metrics}
    values = {}
    for metric in track.metrics:
        found = statistics_of(result.runs, result.controls, metric, track, result.summary[metric])
        values[metric] = {name: np.array(own) for name, own in found.items()}
    flat = {(metric, name): own for metric, by_name in values.items() for name, own in by_name.items()}
    whole = [key for key, own in flat.items() if len(own) > 1 and np.isfinite(own).all()]
    bounds = bootstrap_intervals(np.stack([flat[key] for key in whole])).tolist() if whole else []
    intervals = {key: (low, high) for key, (low, high) in zip(whole, bounds, strict=True)}
    figures = {
        metric: {
            name: Figure(found, intervals.get((metric, name))) if found else None
            for name, found in result.summary[metric].items()
        }
        for metric in track.metrics
    }
    return Measured(result, values, figures, {metric: np.mean(own, axis=0) for metric, own in matrices.items()})


def rankings(track: Track, results: Sequence[Result]) -> dict[str, Ranking]:
    """Metric -> its ranking. The first is the board's; the others say how sure differences in that metric are."""
    return {metric: rank_results(track, results, metric) for metric in track.metrics}
