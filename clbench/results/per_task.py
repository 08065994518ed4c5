"""What a result says of each task, and how far its means would move with other tasks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clbench.results.analysis import Analysis
from clbench.results.significance import over_orders
from clbench.scores import STATISTICS, Statistic


def per_task(method: Analysis, metric: str) -> dict[str, NDArray[np.float64]]:
    """Statistic -> its part for each task, (T,), tasks in the definition's order; nan where it has none.

    Beside the statistics that are sums over tasks there are `base` and `real`, the scores of the untouched model and of
    real images, and `leak` where it is measured. A part is over the runs in which the task counts.
    """
    places = method.places
    found = {
        "base": _by_task(method.matrices[metric][:, 0], places).mean(axis=0),
        "real": _by_task(method.reals[metric], places).mean(axis=0),
    }
    for name, one in STATISTICS.items():
        if one.summands:
            reached, reachable = _sums(method, metric, one)
            found[name] = np.divide(reached, reachable, out=np.full_like(reached, np.nan), where=reachable > 0)
    if all(run.leak and metric in run.leak for run in method.result.runs):
        pairs = np.array([(run.leak or {})[metric] for run in method.result.runs])
        found["leak"] = _by_task(pairs[:, 1] - pairs[:, 0], places).mean(axis=0)
    return found


def error_over_tasks(method: Analysis, metric: str, statistic: str) -> float | None:
    """The standard error of a statistic over tasks, as if they were drawn from many; None where there is none.

    For a ratio of sums it is that of a ratio estimator (Cochran 1977, eq. 6.9, without the finite population's
    correction): with N_j / D_j the parts of task j, and K = sum N / sum D, it is
    sqrt(T / (T - 1) sum_j (N_j - K D_j)^2) / sum_j D_j.
    """
    one = STATISTICS[statistic]
    if not one.summands or metric not in method.matrices:
        return None
    reached, reachable = _sums(method, metric, one)
    count, whole = len(reached), float(reachable.sum())
    if count < 2 or not whole > 0:
        return None
    residuals = reached - reached.sum() / whole * reachable
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / whole
    return error if math.isfinite(error) else None


def error_over_orders(method: Analysis, metric: str, statistic: str) -> float | None:
    """The standard error of a statistic's mean over orders; None for a single order, and where it is undefined."""
    values = over_orders(method.statistics[metric][statistic], method.run_keys)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _by_task(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """(runs, T) in the runs' orders -> (runs, T) in the definition's."""
    return np.take_along_axis(values, np.argsort(places, axis=1), axis=1)


def _sums(method: Analysis, metric: str, one: Statistic) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The summands of a statistic, each summed over the runs: (T,) and (T,), tasks in the definition's order."""
    assert one.summands is not None
    parts = one.summands(method.matrices[metric], method.reals[metric])
    places = method.places[:, : parts[0].shape[1]]
    sums = np.zeros((2, len(method.track.tasks)))
    for total, part in zip(sums, parts, strict=True):
        np.add.at(total, places, part)
    return sums[0], sums[1]
