"""What a score matrix says: average score, forgetting, shares learned and kept, plasticity, transfer. Numpy only.

R is the score matrix of one run and one metric, shape (T + 1, T): row i = the model after i tasks (row 0 = the base
model), column j = the j-th task of the run's order, nan where not measured. With 0-based columns, task j is learned in
row j + 1. Below, S_j^i is the paper's score of task j after i tasks, both counted from 1 (arXiv 2410.04891, Appendix
A.3). Higher scores are taken to be better.

Each function takes one matrix, or a stack of them, (..., T + 1, T), and returns one value a matrix. A nan that a
formula needs makes the value nan. All raise a ValueError for another shape.

A new statistic is one more function under `@statistic`, which says how it is named, explained and shown everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Stack = NDArray[np.float64]
"""Any number of score matrices, (..., T + 1, T)."""
TaskValues = NDArray[np.float64]
"""One value a task for each matrix of a stack, in its run's order, (..., T)."""
Values: TypeAlias = Any
"""One value a matrix: a float for one matrix, an array (...) for a stack."""
Formula = TypeVar("Formula", bound=Callable[..., Values])


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One statistic of a score matrix and the controls of its run: its formula, and how it is shown everywhere."""

    name: str
    """Its key in result files and in data, such as `average_score`."""
    description: str
    """What it is: one sentence that stands alone, without its capital and its period."""
    label: str = ""
    """What headings call it after the metric, such as "score"; default its name's words."""
    title: str = ""
    """What lists call it; default its name's words."""
    term: str = ""
    """What a board's legend calls it; default the label."""
    legend: str = ""
    """What a board's legend says of it, in words that may lean on the sentences before; default the description."""
    compute: Callable[..., Values]
    """The formula, of R and what it needs of `floor` and `real`, (..., T) each: those of `memory` and `learned`. All
    have their signs turned where lower scores are better."""
    unit: Literal["score", "loss", "change", "share"]
    """score: a mean of scores, in the metric's unit and range. loss: a drop in scores, never negative. change: a
    difference of scores, of either sign. share: a part of a whole, shown in percent."""
    shown: Literal["headline", "main", "diagnostic", "detail", "control"] = "detail"
    """headline: on boards, with its interval, in `compare` and at the end of a run; the best are marked. main: the same
    without the interval. diagnostic: on boards and in `compare`, unmarked. detail: in `show`, on a method's page and in
    data, which have all. control: as detail, and at the end of a run; it is the base model's, so that no method's
    record in another registry has it."""
    higher_is_better: bool = True
    """Whether a higher value is a better one; turned for a score of a metric of which lower is better."""
    optional: bool = False
    """Whether it needs cells that a run need not measure: a summary leaves it out where it is nan."""
    in_results: bool = True
    """Whether result files hold it. One that is added later should not be, so that earlier files stay valid: it is
    computed from the runs wherever it is shown."""

    def __post_init__(self) -> None:
        words = self.name.replace("_", " ")
        term = (self.label or words).capitalize()
        for field, default in {"label": words, "title": words, "term": term, "legend": self.description}.items():
            object.__setattr__(self, field, getattr(self, field) or default)

    def each(self, R: Stack, floor: TaskValues, real: TaskValues) -> Values:
        """The statistic of every matrix of a stack: (..., T + 1, T), (..., T) and (..., T) -> (...)."""
        needs = signature(self.compute).parameters
        return self.compute(R, **{name: own for name, own in (("floor", floor), ("real", real)) if name in needs})

    def __call__(self, R: ArrayLike, floor: ArrayLike, real: ArrayLike) -> float:
        """The statistic of one matrix, (T + 1, T), with (T,) values of the floor and of real images.

        Raises:
            ValueError: R is not of shape (T + 1, T), or floor or real not of shape (T,).
        """
        matrix = np.asarray(R, dtype=float)
        if matrix.ndim != 2:
            raise ValueError(_wrong_shape(matrix))
        return float(self.each(matrix, np.asarray(floor, dtype=float), np.asarray(real, dtype=float)))

    @property
    def marked(self) -> bool:
        """Whether boards mark the best."""
        return self.shown in ("headline", "main")

    def prefers_high(self, metric_prefers_high: bool) -> bool:
        """Whether a higher value is a better one, for a metric of which higher or lower is better."""
        return self.higher_is_better == (metric_prefers_high or self.unit != "score")

    def arrow(self, metric_prefers_high: bool) -> str:
        """Which direction is better, where boards mark it: "↑", "↓" or ""."""
        return ("↑" if self.prefers_high(metric_prefers_high) else "↓") if self.marked else ""

    def bounds(self, low: float, high: float) -> tuple[float, float]:
        """The lowest and the highest possible value for a metric with scores from `low` to `high`."""
        known = {"score": (low, high), "loss": (0.0, high - low), "change": (low - high, high - low)}
        return known.get(self.unit, (-math.inf, math.inf))


STATISTICS: dict[str, Statistic] = {}
"""Name -> statistic, in the order in which they are shown."""


def statistic(**fields: Any) -> Callable[[Formula], Formula]:
    """Register a function as the statistic of its name; `fields` are those of `Statistic`."""

    def register(formula: Formula) -> Formula:
        STATISTICS[formula.__name__] = Statistic(name=formula.__name__, compute=formula, **fields)
        return formula

    return register


# --- The statistics ---


@statistic(label="score", description="mean over all tasks after the last one", unit="score", shown="headline")
def average_score(R: ArrayLike) -> Values:
    """1/T sum_j S_j^T: the mean of the last row (paper, A.3)."""
    return _matrices(R)[..., -1, :].mean(axis=-1)


@statistic(
    label="forgetting",
    description="mean drop of a past task from its best score since it was learned",
    unit="loss",
    shown="headline",
    higher_is_better=False,
)
def average_forgetting(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j<T} max_{j<=k<=T} (S_j^k - S_j^T): what past tasks lost since they were best known.

    The paper (A.3) writes max over 1 <= k <= T, but its code samples a task only from when it is learned, k >= j, and
    so does this benchmark. Zero for a single task.
    """
    return _mean(_drops(_matrices(R)), of_none=0.0)


@statistic(
    title="forgetting over all tasks",
    description="the drops of past tasks from their best scores, summed and divided by the number of all tasks",
    unit="loss",
    higher_is_better=False,
)
def average_forgetting_ref(R: ArrayLike) -> Values:
    """The same sum divided by T, as in the authors' released code: average_forgetting * (T-1)/T."""
    R = _matrices(R)
    return _drops(R).sum(axis=-1) / R.shape[-1]


@statistic(
    description="share of the way from the untouched model to real images that is reached right after learning a task",
    unit="share",
    shown="main",
)
def learned(R: ArrayLike, real: ArrayLike) -> Values:
    """sum_j (S_j^j - B_j) / sum_j (real_j - B_j): how much of the way from the base model to real images is learned.

    B_j is the base model's score of task j (row 0 of R). 1 (a share, not percent) means that a task scores like real
    images right after it was learned, 0 that it scores like the base model, and a negative value that learning did
    harm. A ratio of sums, because a single task may have little room above the base model. This benchmark's own
    definition.

    Args:
        R: (T + 1, T).
        real: (T,), in the run's order: the score of each task's real images against its references.

    Returns:
        The share; nan if the real images do not score above the base model (denominator <= 0).
    """
    R = _matrices(R)
    real = _task_values(R, real, "real against real")
    return _share(_right_after(R) - R[..., 0, :], real - R[..., 0, :])


@statistic(
    description="share of the way from the untouched model to real images that past tasks keep after the last task",
    legend="the same share for past tasks, after the last task; 0 % is the untouched model, below 0 % is harm",
    unit="share",
    shown="main",
)
def kept(R: ArrayLike, real: ArrayLike) -> Values:
    """sum_{j<T} (S_j^T - B_j) / sum_{j<T} (real_j - B_j): the same share for past tasks, after the last task.

    0 means that past tasks score like the base model again (as they do where nothing was ever learned), a negative
    value that they score worse. This benchmark's own definition.

    Args:
        R: the score matrix, (T + 1, T).
        real: (T,), as for `learned`. The last entry is ignored.

    Returns:
        The share; nan if the past tasks' real images do not score above the base model, and for a single task.
    """
    R = _matrices(R)
    real = _task_values(R, real, "real against real")
    return _share((R[..., -1, :] - R[..., 0, :])[..., :-1], (real - R[..., 0, :])[..., :-1])


@statistic(description="mean score of the tasks seen so far, after every task", unit="score")
def average_incremental_score(R: ArrayLike) -> Values:
    """1/T sum_i (1/i sum_{j<=i} S_j^i): the mean over tasks learned of the mean score of the tasks seen so far.

    The paper's Table 4 uses this older definition.
    """
    R = _matrices(R)
    return np.stack([R[..., i, :i].mean(axis=-1) for i in range(1, R.shape[-2])], axis=-1).mean(axis=-1)


@statistic(description="mean score of a task right after it was learned", unit="score", shown="diagnostic")
def plasticity(R: ArrayLike) -> Values:
    """1/T sum_j S_j^j: the mean score of a task right after it was learned."""
    return _right_after(_matrices(R)).mean(axis=-1)


@statistic(
    label="transfer",
    description="mean change of a past task's score since it was learned",
    term="Transfer (backward)",
    legend="mean change of a past task's score since then",
    unit="change",
    shown="diagnostic",
)
def backward_transfer(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j<T} (S_j^T - S_j^j): how past tasks changed since they were learned; negative = forgotten.

    Lopez-Paz & Ranzato 2017 (GEM). Zero for a single task.
    """
    R = _matrices(R)
    return _mean((R[..., -1, :] - _right_after(R))[..., :-1], of_none=0.0)


@statistic(description="mean gain over the base model before a task is learned", unit="change", optional=True)
def forward_transfer(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j>1} (S_j^{j-1} - S_j^0): what earlier tasks gave a task before it was learned, over the base.

    Lopez-Paz & Ranzato 2017 (GEM). nan where those cells of the upper triangle are not measured, and for a single task.
    """
    R = _matrices(R)
    return _mean((np.diagonal(R, axis1=-2, axis2=-1) - R[..., 0, :])[..., 1:], of_none=np.nan)


@statistic(
    description="what past tasks keep above the last-task floor, as a share of what was learned above it", unit="share"
)
def memory(R: ArrayLike, floor: ArrayLike) -> Values:
    """sum_{j<T} (S_j^T - f_j) / sum_{j<T} (S_j^j - f_j): the share of what was learned that past tasks keep.

    Both count only what lies above the last-task floor f, so a model that remembers nothing but its newest task has 0
    and one that forgets nothing has 1 (a share, not percent). A ratio of sums, because single tasks may be learned
    barely above their floor. This benchmark's own definition.

    Args:
        R: the score matrix, (T + 1, T).
        floor: (T,), in the run's order: the score of each task's references against real images in the look of the
            run's last task. The last entry is ignored.

    Returns:
        The share; nan if past tasks were not learned above the floor (denominator <= 0), and for a single task.
    """
    R = _matrices(R)
    floor = _task_values(R, floor, "the floor")
    return _share((R[..., -1, :] - floor)[..., :-1], (_right_after(R) - floor)[..., :-1])


@statistic(description="mean score of the untouched model", title="base model's score", unit="score", shown="control")
def base(R: ArrayLike) -> Values:
    """1/T sum_j S_j^0: the untouched model's mean score."""
    return _matrices(R)[..., 0, :].mean(axis=-1)


RANKED_BY = "average_score"
"""The statistic by which boards rank methods, in the track's first metric. The only one shown of a secondary metric."""


def shown(*levels: str) -> list[Statistic]:
    """The statistics that are shown at any of these levels (`Statistic.shown`); default those of boards."""
    return [one for one in STATISTICS.values() if one.shown in (levels or ("headline", "main", "diagnostic"))]


def scores_since_learned(R: ArrayLike) -> TaskValues:
    """1/(T-k) sum_{j<=T-k} S_j^{j+k}, k = 0 ... T-1, (..., T): the mean score of a task k tasks after it was learned.

    The mean is over the tasks after which k more were learned: all for k = 0, which is the plasticity, and the first
    task alone for k = T - 1.
    """
    R = _matrices(R)
    lags = [np.diagonal(R[..., 1:, :], -k, axis1=-2, axis2=-1) for k in range(R.shape[-1])]
    return np.stack([own.mean(axis=-1) for own in lags], axis=-1)


# --- Parts of the formulas ---


def _matrices(R: ArrayLike) -> Stack:
    stack = np.asarray(R, dtype=float)
    if stack.ndim < 2 or stack.shape[-1] == 0 or stack.shape[-2] != stack.shape[-1] + 1:
        raise ValueError(_wrong_shape(stack))
    return stack


def _wrong_shape(R: Stack) -> str:
    return f"a score matrix has shape (T + 1, T) with T >= 1, not {R.shape}"


def _task_values(R: Stack, values: ArrayLike, name: str) -> TaskValues:
    found = np.asarray(values, dtype=float)
    if found.shape != R.shape[:-2] + R.shape[-1:]:
        raise ValueError(f"{name} needs one value a task, shape {R.shape[-1:]}, but has shape {found.shape}")
    return found


def _right_after(R: Stack) -> TaskValues:
    """(..., T): each task's score right after it was learned."""
    return np.diagonal(R[..., 1:, :], axis1=-2, axis2=-1)


def _share(reached: TaskValues, reachable: TaskValues) -> Values:
    """Sum over the last axis by sum over the last axis; nan where the second is not above 0."""
    part, whole = reached.sum(axis=-1), reachable.sum(axis=-1)
    with np.errstate(over="ignore"):  # a denominator may be next to nothing
        return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)[()]


def _drops(R: Stack) -> NDArray[np.float64]:
    """(..., T - 1): for each past task, its best score since it was learned minus its last one."""
    best_since = np.maximum.accumulate(R[..., ::-1, :], axis=-2)[..., ::-1, :]
    return (_right_after(best_since) - R[..., -1, :])[..., :-1]


def _mean(values: NDArray[np.float64], of_none: float) -> Values:
    """Mean over the last axis, (..., n) -> (...)."""
    return values.mean(axis=-1) if values.shape[-1] else np.full(values.shape[:-1], of_none)[()]
