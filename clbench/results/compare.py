"""Two results order by order: what differs, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.results.analysis import Analysis, equivalence_margin
from clbench.results.significance import Difference, RunKey, corrected_p, differences_of, name_of_test, over_orders
from clbench.scores import shown
from clbench.suite import Track


@dataclass(frozen=True)
class Compared(Difference):
    """One statistic of one metric in two results, on the orders that both have; corrected over the whole comparison."""

    first: float
    """Mean over the orders."""
    second: float


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

    @property
    def orders(self) -> int:
        """The number of orders that both have."""
        return len({order for order, _ in self.runs})

    def as_json(self) -> dict[str, Any]:
        return {
            "first": self.names[0],
            "second": self.names[1],
            "track": self.track.name,
            "runs": [list(run) for run in self.runs],
            "test": name_of_test(self.orders, "rows"),
            "statistics": {
                metric: {name: vars(value) if value else None for name, value in own.items()}
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
    keys = [
        (metric, one.name)
        for metric in first.statistics
        for one in shown()
        if all(own.summary.get(metric, {}).get(one.name) or not one.optional for own in (first, second))
        and (metric in first.matrices or one.of == "drift")
    ]
    values = np.array([[own.statistics[metric][name][runs] for own, runs in sides] for metric, name in keys])
    values = over_orders(values, shared)  # (statistics, 2, orders)
    known = np.array([bool(np.isfinite(own).all()) for own in values])
    rows = values[known, 0] - values[known, 1]
    margins = np.array([equivalence_margin([first], metric, name) for metric, name in keys])[known]
    found = iter(differences_of(rows, margins, corrected_p(rows)))
    statistics: dict[str, dict[str, Compared | None]] = {metric: {} for metric, _ in keys}
    for (metric, name), is_known, (one, two) in zip(keys, known.tolist(), values.mean(axis=-1).tolist(), strict=True):
        statistics[metric][name] = Compared(**vars(next(found)), first=one, second=two) if is_known else None
    matrices = {}
    for metric in first.track.metrics:
        one, two = (own.matrices[metric][runs] for own, runs in sides)
        matrices[metric] = (one - two).mean(axis=0)
    return Comparison((first.variant, second.variant), first.track, tuple(shared), statistics, matrices)
