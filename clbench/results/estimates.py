"""What tables and pages show of results: statistics with their intervals, and mean score matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from clbench.results.schema import Result, Spread
from clbench.results.significance import Ranking, bootstrap_intervals, rank
from clbench.results.summary import matrices_of, statistics_of
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
    means: Mapping[str, NDArray]
    """Metric -> the mean score matrix, (T + 1, T); nan where a run did not measure the cell."""

    def figure(self, metric: str, statistic: str) -> Figure | None:
        """A statistic of the (recomputed) summary; None where it is undefined in any run."""
        found = self.result.summary[metric].get(statistic)
        if found is None:
            return None
        values = self.values[metric][statistic]
        if len(values) == 1:
            return Figure(found, None)
        low, high = bootstrap_intervals(values[None])[0].tolist()
        return Figure(found, (low, high))

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
    """What a result's runs come to; its summary must have been recomputed from them."""
    values = {
        metric: statistics_of(result.runs, result.controls, metric, track, result.summary[metric])
        for metric in track.metrics
    }
    means = {metric: matrices_of(result.runs, metric).mean(axis=0) for metric in track.metrics}
    return Measured(result, values, means)


def rank_results(track: Track, results: Sequence[Result], metric: str | None = None) -> Ranking:
    """By the average score, on the runs that all share; the board's ranking is in the track's first metric."""
    metric = metric or track.metrics[0]

    def of_runs(result: Result) -> dict[tuple[str, int], float]:
        found = statistics_of(result.runs, result.controls, metric, track, ["average_score"])["average_score"]
        return {(run.order, run.seed): score for run, score in zip(result.runs, found.tolist(), strict=True)}

    scores = {result.method.name: of_runs(result) for result in results}
    return rank(scores, set.intersection(*(set(own) for own in scores.values())))


def rankings(track: Track, results: Sequence[Result]) -> dict[str, Ranking]:
    """Metric -> its ranking. The first is the board's; the others say how sure differences in that metric are."""
    return {metric: rank_results(track, results, metric) for metric in track.metrics}
