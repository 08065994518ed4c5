"""What one score matrix says: average score, forgetting, plasticity, transfer, memory. Numpy only.

R is the score matrix of one run and one metric, shape (T + 1, T): row i = the model after i tasks (row 0 = the base
model), column j = the j-th task of the run's order, nan where not measured. With 0-based columns, task j is learned in
row j + 1. Scores are mean cosines, so every figure here is in cosine units unless it says otherwise.

Below, S_j^i is the paper's score of task j after i tasks, both counted from 1 (arXiv 2410.04891, Appendix A.3).
A nan that a formula needs makes the figure nan.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_score(R: ArrayLike) -> float:
    """1/T sum_j S_j^T: the mean of the last row (paper, A.3).

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(np.mean(_matrix(R)[-1]))


def average_forgetting(R: ArrayLike) -> float:
    """1/(T-1) sum_{j<T} max_{j<=k<=T} (S_j^k - S_j^T): what past tasks lost since they were best known.

    The paper (A.3) writes max over 1 <= k <= T; its code only samples k >= j, and so does this benchmark (PINS.md).
    Zero for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    drops = _drops(_matrix(R))
    return float(np.mean(drops)) if drops.size else 0.0


def average_forgetting_ref(R: ArrayLike) -> float:
    """The same sum divided by T, as in the authors' released code: average_forgetting * (T-1)/T.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    matrix = _matrix(R)
    return float(np.sum(_drops(matrix))) / matrix.shape[1]


def average_incremental_score(R: ArrayLike) -> float:
    """1/T sum_i (1/i sum_{j<=i} S_j^i): the mean over tasks learned of the mean score of the tasks seen so far.

    The older definition behind the paper's Table 4 (PINS.md).

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    matrix = _matrix(R)
    return float(np.mean([np.mean(matrix[i, :i]) for i in range(1, len(matrix))]))


def plasticity(R: ArrayLike) -> float:
    """1/T sum_j S_j^j: the mean score of a task right after it was learned.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    return float(np.mean(_learned(_matrix(R))))


def backward_transfer(R: ArrayLike) -> float:
    """1/(T-1) sum_{j<T} (S_j^T - S_j^j): how past tasks changed since they were learned; negative = forgotten.

    Lopez-Paz & Ranzato 2017 (GEM). Zero for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    matrix = _matrix(R)
    changes = (matrix[-1] - _learned(matrix))[:-1]
    return float(np.mean(changes)) if changes.size else 0.0


def forward_transfer(R: ArrayLike) -> float:
    """1/(T-1) sum_{j>1} (S_j^{j-1} - S_j^0): what earlier tasks gave a task before it was learned, over the base.

    Lopez-Paz & Ranzato 2017 (GEM). nan where those cells of the upper triangle are not measured, and for a single task.

    Raises:
        ValueError: R is not of shape (T + 1, T).
    """
    matrix = _matrix(R)
    gains = (np.diagonal(matrix) - matrix[0])[1:]
    return float(np.mean(gains)) if gains.size else float("nan")


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
    matrix = _matrix(R)
    lowest = np.asarray(floor, dtype=float)
    if lowest.shape != matrix.shape[1:]:
        raise ValueError(f"the floor needs one value a task, shape {matrix.shape[1:]}, but has shape {lowest.shape}")
    kept = float(np.sum((matrix[-1] - lowest)[:-1]))
    learned = float(np.sum((_learned(matrix) - lowest)[:-1]))
    return kept / learned if learned > 0 else float("nan")


STATISTICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "average_score": lambda R, floor: average_score(R),
    "average_forgetting": lambda R, floor: average_forgetting(R),
    "average_forgetting_ref": lambda R, floor: average_forgetting_ref(R),
    "average_incremental_score": lambda R, floor: average_incremental_score(R),
    "plasticity": lambda R, floor: plasticity(R),
    "backward_transfer": lambda R, floor: backward_transfer(R),
    "forward_transfer": lambda R, floor: forward_transfer(R),
    "memory": memory,
    "base": lambda R, floor: float(np.mean(_matrix(R)[0])),
}
"""Name -> what a result's summary reports of (R, floor). A new statistic is one more entry."""

IF_MEASURED = frozenset({"forward_transfer"})
"""Statistics of cells that a run need not measure: left out of a summary where they are nan."""


def _matrix(R: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(R, dtype=float)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.shape[0] != matrix.shape[1] + 1:
        raise ValueError(f"a score matrix has shape (T + 1, T) with T >= 1, not {matrix.shape}")
    return matrix


def _learned(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,): each task's score right after it was learned."""
    return np.diagonal(matrix[1:])


def _drops(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T - 1,): for each past task, its best score since it was learned minus its last one."""
    tasks = matrix.shape[1]
    return np.array([np.max(matrix[j + 1 :, j]) - matrix[-1, j] for j in range(tasks - 1)])
