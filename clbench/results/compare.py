"""Two results run by run: what differs, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.results.analysis import Analysis
from clbench.results.significance import Difference, RunKey, differences_of
from clbench.scores import shown
from clbench.suite import Track


@dataclass(frozen=True)
class Compared:
    """One statistic of one metric in two results, on the runs that both have."""

    first: float
    """Mean over the runs."""
    second: float
    difference: float
    """The mean paired difference."""
    sure: Difference | None
    """How sure it is; None for a single run, of which nothing can be said."""

    def as_json(self) -> dict[str, Any]:
        interval, p = (self.sure.interval, self.sure.p) if self.sure else (None, None)
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "interval": interval,
            "p": p,
        }


@dataclass(frozen=True)
class Comparison:
    """Two results on the runs that both have."""

    names: tuple[str, str]
    track: Track
    runs: tuple[RunKey, ...]
    statistics: dict[str, dict[str, Compared | None]]
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
                metric: {name: value.as_json() if value else None for name, value in own.items()}
                for metric, own in self.statistics.items()
            },
        }


def compare_results(first: Analysis, second: Analysis) -> Comparison:
    """Compare two results of one track of one suite, in the statistics that boards show.

    Raises:
        ClbenchError: they are of different suites or tracks, or share no run.
    """
    if (first.result.suite.sha256, first.track.name) != (second.result.suite.sha256, second.track.name):
        raise ClbenchError("the results are of different suites or tracks, so that their scores cannot be compared")
    shared = sorted(set(first.run_keys) & set(second.run_keys))
    if not shared:
        raise ClbenchError("the results share no run: no order and seed is in both")
    sides = [(own, [own.run_keys.index(key) for key in shared]) for own in (first, second)]
    names, statistics, matrices = [one.name for one in shown()], {}, {}
    for metric in first.track.metrics:
        values = {name: np.stack([own.statistics[metric][name][runs] for own, runs in sides]) for name in names}
        known = [name for name in names if np.isfinite(values[name]).all()]
        paired = [values[name][0] - values[name][1] for name in known]
        found = differences_of(np.array(paired).reshape(-1, len(shared)))
        statistics[metric] = dict.fromkeys(names) | {
            name: Compared(
                first=float(values[name][0].mean()),
                second=float(values[name][1].mean()),
                difference=own.difference,
                sure=own if len(shared) > 1 else None,
            )
            for name, own in zip(known, found, strict=True)
        }
        one, two = (own.matrices[metric][runs] for own, runs in sides)
        matrices[metric] = (one - two).mean(axis=0)
    return Comparison((first.variant, second.variant), first.track, tuple(shared), statistics, matrices)
