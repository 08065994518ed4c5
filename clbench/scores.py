"""What one score matrix says: average score, forgetting, shares learned and kept, plasticity, transfer. Numpy only.

R is the score matrix of one run and one metric, shape (T + 1, T): row i = the model after i tasks (row 0 = the base
model), column j = the j-th task of the run's order, nan where not measured. With 0-based columns, task j is learned in
row j + 1. Scores are mean cosines, so every figure here is in cosine units unless it is one of `SHARES`.

Below, S_j^i is the paper's score of task j after i tasks, both counted from 1 (arXiv 2410.04891, Appendix A.3).
A nan that a formula needs makes the figure nan. The functions take one matrix; `STATISTICS` also has each figure of a
whole stack of matrices at once, which is what summaries and boards are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Stack = NDArray[np.float64]
"""Any number of score matrices, (..., T + 1, T)."""
TaskValues = NDArray[np.float64]
"""One value a task for each matrix of a stack, in its run's order, (..., T)."""
Values = NDArray[np.float64]
"""One value a matrix, (...)."""


def average_score(R: ArrayLike) -> float:
    """1/T sum_j S_j^T: the mean of the last row (paper, A.3).

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_average_score(_matrix(R)))


def average_forgetting(R: ArrayLike) -> float:
    """1/(T-1) sum_{j<T} max_{j<=k<=T} (S_j^k - S_j^T): what past tasks lost since they were best known.

    The paper (A.3) writes max over 1 <= k <= T; its code only samples k >= j, and so does this benchmark (PINS.md).
    Zero for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_average_forgetting(_matrix(R)))


def average_forgetting_ref(R: ArrayLike) -> float:
    """The same sum divided by T, as in the authors' released code: average_forgetting * (T-1)/T.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_average_forgetting_ref(_matrix(R)))


def learned(R: ArrayLike, real: ArrayLike) -> float:
    """sum_j (S_j^j - B_j) / sum_j (real_j - B_j): how much of the way from the base model to real images is learned.

    B_j is the base model's score of task j (row 0 of R). 1 (a share, not percent) means that a task scores like real
    images right after it was learned, 0 that it scores like the base model, and a negative value that learning did
    harm. A ratio of sums, because a single task may have little room above the base model. This benchmark's own
    definition.

    Args:
        R: the score matrix, (T + 1, T).
        real: (T,), in the run's order: the score of each task's real images against its references.

    Returns:
        The share; nan if the real images do not score above the base model (denominator <= 0).

    Raises:
        ValueError: R is not of shape (T + 1, T), or real not of shape (T,).
    """
    return float(_learned(_matrix(R), np.asarray(real, dtype=float)))


def kept(R: ArrayLike, real: ArrayLike) -> float:
    """sum_{j<T} (S_j^T - B_j) / sum_{j<T} (real_j - B_j): the same share for past tasks, after the last task.

    0 means that past tasks score like the base model again (as they do where nothing was ever learned), a negative
    value that they score worse. This benchmark's own definition.

    Args:
        R: the score matrix, (T + 1, T).
        real: (T,), as for `learned`. The last entry is ignored.

    Returns:
        The share; nan if the past tasks' real images do not score above the base model, and for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T), or real not of shape (T,).
    """
    return float(_kept(_matrix(R), np.asarray(real, dtype=float)))


def average_incremental_score(R: ArrayLike) -> float:
    """1/T sum_i (1/i sum_{j<=i} S_j^i): the mean over tasks learned of the mean score of the tasks seen so far.

    The older definition behind the paper's Table 4 (PINS.md).

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_average_incremental_score(_matrix(R)))


def plasticity(R: ArrayLike) -> float:
    """1/T sum_j S_j^j: the mean score of a task right after it was learned.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_plasticity(_matrix(R)))


def backward_transfer(R: ArrayLike) -> float:
    """1/(T-1) sum_{j<T} (S_j^T - S_j^j): how past tasks changed since they were learned; negative = forgotten.

    Lopez-Paz & Ranzato 2017 (GEM). Zero for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_backward_transfer(_matrix(R)))


def forward_transfer(R: ArrayLike) -> float:
    """1/(T-1) sum_{j>1} (S_j^{j-1} - S_j^0): what earlier tasks gave a task before it was learned, over the base.

    Lopez-Paz & Ranzato 2017 (GEM). nan where those cells of the upper triangle are not measured, and for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(_forward_transfer(_matrix(R)))


def memory(R: ArrayLike, floor: ArrayLike) -> float:
    """sum_{j<T} (S_j^T - f_j) / sum_{j<T} (S_j^j - f_j): the share of what was learned that past tasks keep.

    Both count only what lies above the last-task floor f, so a model that remembers nothing but its newest task has 0
    and one that forgets nothing has 1 (a share, not percent). A ratio of means, because single tasks may be learned
    barely above their floor. This benchmark's own (DESIGN.md, "controls").

    Args:
        R: the score matrix, (T + 1, T).
        floor: (T,), in the run's order: the score of each task's references against real images in the look of the
            run's last task. The last entry is ignored.

    Returns:
        The share; nan if past tasks were not learned above the floor (denominator <= 0), and for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T), or floor not of shape (T,).
    """
    return float(_memory(_matrix(R), np.asarray(floor, dtype=float)))


# --- The same of every matrix of a stack ---


def _average_score(R: Stack) -> Values:
    return R[..., -1, :].mean(axis=-1)


def _average_forgetting(R: Stack) -> Values:
    return _mean(_drops(R), of_none=0.0)


def _average_forgetting_ref(R: Stack) -> Values:
    return _drops(R).sum(axis=-1) / R.shape[-1]


def _learned(R: Stack, real: TaskValues) -> Values:
    _check_tasks(R, real, "real against real")
    return _share(_right_after(R) - R[..., 0, :], real - R[..., 0, :])


def _kept(R: Stack, real: TaskValues) -> Values:
    _check_tasks(R, real, "real against real")
    return _share((R[..., -1, :] - R[..., 0, :])[..., :-1], (real - R[..., 0, :])[..., :-1])


def _average_incremental_score(R: Stack) -> Values:
    return np.stack([R[..., i, :i].mean(axis=-1) for i in range(1, R.shape[-2])], axis=-1).mean(axis=-1)


def _plasticity(R: Stack) -> Values:
    return _right_after(R).mean(axis=-1)


def _backward_transfer(R: Stack) -> Values:
    return _mean((R[..., -1, :] - _right_after(R))[..., :-1], of_none=0.0)


def _forward_transfer(R: Stack) -> Values:
    return _mean((np.diagonal(R, axis1=-2, axis2=-1) - R[..., 0, :])[..., 1:], of_none=np.nan)


def _memory(R: Stack, floor: TaskValues) -> Values:
    _check_tasks(R, floor, "the floor")
    return _share((R[..., -1, :] - floor)[..., :-1], (_right_after(R) - floor)[..., :-1])


def _base(R: Stack) -> Values:
    return R[..., 0, :].mean(axis=-1)


@dataclass(frozen=True)
class Statistic:
    """What a result's summary reports of a score matrix and the controls of its run."""

    each: Callable[[Stack, TaskValues, TaskValues], Values]
    """(R, floor, real) of shapes (..., T + 1, T), (..., T) and (..., T), unchecked -> (...)."""

    def __call__(self, R: ArrayLike, floor: ArrayLike, real: ArrayLike) -> float:
        """The statistic of one matrix.

        Args:
            R: the score matrix, (T + 1, T).
            floor: (T,), the last-task floor as for `memory`.
            real: (T,), real against real as for `learned`.

        Raises:
            ValueError: R is not of shape (T + 1, T), or floor or real not of shape (T,).
        """
        return float(self.each(_matrix(R), np.asarray(floor, dtype=float), np.asarray(real, dtype=float)))


STATISTICS: dict[str, Statistic] = {
    "average_score": Statistic(lambda R, floor, real: _average_score(R)),
    "average_forgetting": Statistic(lambda R, floor, real: _average_forgetting(R)),
    "average_forgetting_ref": Statistic(lambda R, floor, real: _average_forgetting_ref(R)),
    "learned": Statistic(lambda R, floor, real: _learned(R, real)),
    "kept": Statistic(lambda R, floor, real: _kept(R, real)),
    "average_incremental_score": Statistic(lambda R, floor, real: _average_incremental_score(R)),
    "plasticity": Statistic(lambda R, floor, real: _plasticity(R)),
    "backward_transfer": Statistic(lambda R, floor, real: _backward_transfer(R)),
    "forward_transfer": Statistic(lambda R, floor, real: _forward_transfer(R)),
    "memory": Statistic(lambda R, floor, real: _memory(R, floor)),
    "base": Statistic(lambda R, floor, real: _base(R)),
}
"""Name -> what a result's summary reports of (R, floor, real). A new statistic is one more entry."""

SHARES = frozenset({"learned", "kept", "memory"})
"""Statistics that are shares and not cosines: tables and pages show them in percent."""

IF_MEASURED = frozenset({"forward_transfer"})
"""Statistics of cells that a run need not measure: left out of a summary where they are nan."""


def _matrix(R: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(R, dtype=float)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.shape[0] != matrix.shape[1] + 1:
        raise ValueError(f"a score matrix has shape (T + 1, T) with T >= 1, not {matrix.shape}")
    return matrix


def _check_tasks(R: Stack, values: TaskValues, name: str) -> None:
    if values.shape != R.shape[:-2] + R.shape[-1:]:
        raise ValueError(f"{name} needs one value a task, shape {R.shape[-1:]}, but has shape {values.shape}")


def _right_after(R: Stack) -> TaskValues:
    """(..., T): each task's score right after it was learned."""
    return np.diagonal(R[..., 1:, :], axis1=-2, axis2=-1)


def _share(reached: TaskValues, reachable: TaskValues) -> Values:
    """Sum over the last axis by sum over the last axis; nan where the second is not above 0."""
    part, whole = reached.sum(axis=-1), reachable.sum(axis=-1)
    with np.errstate(over="ignore"):  # a denominator may be next to nothing
        return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _drops(R: Stack) -> NDArray[np.float64]:
    """(..., T - 1): for each past task, its best score since it was learned minus its last one."""
    best_since = np.maximum.accumulate(R[..., ::-1, :], axis=-2)[..., ::-1, :]
    return (_right_after(best_since) - R[..., -1, :])[..., :-1]


def _mean(values: NDArray[np.float64], of_none: float) -> Values:
    """Mean over the last axis, (..., n) -> (...)."""
    return values.mean(axis=-1) if values.shape[-1] else np.full(values.shape[:-1], of_none)
