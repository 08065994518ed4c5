"""What the pages show of results: statistics with their intervals, mean score matrices, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.aggregate import rank_results
from clbench.leaderboard.rank import Ranking, bootstrap_intervals, rank
from clbench.result import Result, Spread, floor_row, past_floor, spread
from clbench.scores import STATISTICS
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
        floors = [floor_row(result.controls, metric, run, track) for run in result.runs]
        pairs = list(zip(matrices[metric], floors, strict=True))
        values[metric] = {
            name: np.array([statistic(*pair) for pair in pairs])
            for name, statistic in STATISTICS.items()
            if name in result.summary[metric]
        }
    flat = {(metric, name): own for metric, by_name in values.items() for name, own in by_name.items()}
    whole = [key for key, own in flat.items() if len(own) > 1 and np.isfinite(own).all()]
    # All rows at once: the bootstrap draws its resamples anew at every call.
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
    found = {track.metrics[0]: rank_results(track, results)}
    for metric in track.metrics[1:]:
        scores = {
            result.method.name: {
                (run.order, run.seed): STATISTICS["average_score"](run.matrix(metric), ()) for run in result.runs
            }
            for result in results
        }
        found[metric] = rank(scores, set.intersection(*(set(own) for own in scores.values())))
    return found


def control_scores(track: Track, results: Sequence[Result]) -> dict[str, dict[str, Spread | None]]:
    """Control -> metric -> its score over all results: what frames the methods."""

    def base(metric: str) -> list[float]:
        return [float(run.matrix(metric)[0].mean()) for result in results for run in result.runs]

    def floor(metric: str) -> list[float]:
        return [value for result in results for value in past_floor(result, metric, track)]

    def real(metric: str) -> list[float]:
        rows = (result.controls.real_against_real.get(metric, (np.nan,)) for result in results)
        return [float(np.mean(row)) for row in rows]

    made = {"base model": base, "last-task floor": floor, "real against real": real}
    return {name: {metric: spread(score(metric)) for metric in track.metrics} for name, score in made.items()}
