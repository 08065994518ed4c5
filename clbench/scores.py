"""What a run's scores say: shares learned and kept, average scores, forgetting, transfer, leak, drift. Numpy only.

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
from functools import cached_property
from inspect import signature
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Stack = NDArray[np.float64]
"""Any number of score matrices, (..., T + 1, T)."""
TaskValues = NDArray[np.float64]
"""One value a task for each matrix of a stack, in its run's order, (..., T)."""
Summands: TypeAlias = tuple[TaskValues, TaskValues]
"""What is summed over tasks, and what that sum is divided by: (..., T) each, or (..., T - 1) where only past tasks
count."""
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
    """The formula: of R, and of `real` where it takes that, (..., T); or of what `of` says. All have their signs turned
    where lower scores are better."""
    of: Literal["scores", "leak", "drift"] = "scores"
    """What it is computed of: the score matrix, or what a run measures for that statistic alone."""
    summands: Callable[[Stack, TaskValues], Summands] | None = None
    """For a statistic that is a sum over tasks divided by another one: (R, real) -> the summands of both."""
    unit: Literal["score", "loss", "change", "share"]
    """score: a mean of scores, in the metric's unit and range. loss: a drop in scores, never negative. change: a
    difference of scores, of either sign. share: a part of a whole, shown in percent."""
    shown: Literal["headline", "diagnostic", "detail", "control"] = "detail"
    """headline: on boards, with its interval, in `compare` and at the end of a run; the best are marked. diagnostic: on
    boards and in `compare`, unmarked. detail: in `show`, on a method's page and in data, which have all. control: as
    detail, and at the end of a run; it is the base model's, so that no method's record in another registry has it."""
    higher_is_better: bool = True
    """Whether a higher value is a better one; turned for a score of a metric of which lower is better."""
    optional: bool = False
    """Whether it needs cells that a run need not measure: a summary leaves it out where it is nan."""
    in_results: bool = True
    """Whether result files hold it. One that is added later should not be, so that files of this schema version stay
    valid: it is computed from the runs wherever it is shown."""

    def __post_init__(self) -> None:
        words = self.name.replace("_", " ")
        term = (self.label or words).capitalize()
        for field, default in {"label": words, "title": words, "term": term, "legend": self.description}.items():
            object.__setattr__(self, field, getattr(self, field) or default)

    def each(self, R: Stack, real: TaskValues) -> Values:
        """The statistic of every matrix of a stack: (..., T + 1, T) and (..., T) -> (...)."""
        return self.compute(R, real) if self._takes_real else self.compute(R)

    @cached_property
    def _takes_real(self) -> bool:
        return "real" in signature(self.compute).parameters

    @property
    def marked(self) -> bool:
        """Whether boards mark the best."""
        return self.shown == "headline"

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


def _kept_of(R: Stack, real: TaskValues) -> Summands:
    return (R[..., -1, :] - R[..., 0, :])[..., :-1], (real - R[..., 0, :])[..., :-1]


def _learned_of(R: Stack, real: TaskValues) -> Summands:
    return _right_after(R) - R[..., 0, :], real - R[..., 0, :]


def _last_of(R: Stack, real: TaskValues) -> Summands:
    return R[..., -1, :], np.ones_like(R[..., -1, :])


def _drops_of(R: Stack, real: TaskValues) -> Summands:
    drops = _drops(R)
    return drops, np.ones_like(drops)


def _share(summands: Callable[[Stack, TaskValues], Summands], R: ArrayLike, real: ArrayLike) -> Values:
    """A sum over tasks by another one; nan where the second is not above 0."""
    R = _matrices(R)
    reached, reachable = summands(R, _task_values(R, real, "real against real"))
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


# --- The statistics ---


@statistic(
    description="share of the way from the untouched model to real images that past tasks keep after the last task",
    legend="share of the way from the untouched model to real images that past tasks keep; below 0 % is harm",
    unit="share",
    shown="headline",
    summands=_kept_of,
)
def kept(R: ArrayLike, real: ArrayLike) -> Values:
    """sum_{j<T} (S_j^T - B_j) / sum_{j<T} (real_j - B_j): what past tasks keep of the way from base to real images.

    B_j is the base model's score of task j (row 0 of R). 1 (a share, not percent) means that past tasks score like real
    images, 0 that they score like the base model (as they do where nothing was ever learned), and a negative value that
    they score worse. A ratio of sums, because a single task may have little room above the base model. This benchmark's
    own definition.

    Args:
        R: the score matrix, (T + 1, T).
        real: (T,), in the run's order: the score of each task's real images against its references. The last entry is
            ignored.

    Returns:
        The share; nan if the past tasks' real images do not score above the base model, and for a single task.
    """
    return _share(_kept_of, R, real)


@statistic(
    description="share of the way from the untouched model to real images that is reached right after learning a task",
    legend="the same share of every task right after it was learned",
    unit="share",
    shown="headline",
    summands=_learned_of,
)
def learned(R: ArrayLike, real: ArrayLike) -> Values:
    """sum_j (S_j^j - B_j) / sum_j (real_j - B_j): how much of the way from the base model to real images is learned.

    As `kept`, but for every task right after it was learned.

    Args:
        R: (T + 1, T).
        real: (T,), as for `kept`.

    Returns:
        The share; nan if the real images do not score above the base model (denominator <= 0).
    """
    return _share(_learned_of, R, real)


@statistic(
    label="score",
    description="mean over all tasks after the last one",
    unit="score",
    shown="headline",
    summands=_last_of,
)
def average_score(R: ArrayLike) -> Values:
    """1/T sum_j S_j^T: the mean of the last row (paper, A.3)."""
    return _matrices(R)[..., -1, :].mean(axis=-1)


@statistic(
    label="incremental",
    title="average incremental score",
    description="mean score of the tasks seen so far, after every task",
    unit="score",
    shown="headline",
)
def average_incremental_score(R: ArrayLike) -> Values:
    """1/T sum_i (1/i sum_{j<=i} S_j^i): the mean over tasks learned of the mean score of the tasks seen so far.

    A co-primary figure, chosen beforehand: it averages over all rows, and so is several times steadier than the last
    row alone. The paper's Table 4 uses this older definition of the average score.
    """
    R = _matrices(R)
    return np.stack([R[..., i, :i].mean(axis=-1) for i in range(1, R.shape[-2])], axis=-1).mean(axis=-1)


@statistic(
    label="forgetting",
    description="mean drop of a past task from its best score since it was learned",
    unit="loss",
    shown="headline",
    higher_is_better=False,
    summands=_drops_of,
)
def average_forgetting(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j<T} max_{j<=k<=T} (S_j^k - S_j^T): what past tasks lost since they were best known.

    The paper (A.3) writes max over 1 <= k <= T, but its code samples a task only from when it is learned, k >= j, and
    so does this benchmark. Zero for a single task.
    """
    return _mean(_drops(_matrices(R)), of_none=0.0)


@statistic(
    label="forward",
    description="mean gain over the untouched model of a task that is about to be learned",
    unit="change",
    shown="diagnostic",
    optional=True,
    term="Forward transfer",
)
def forward_transfer(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j>1} (S_j^{j-1} - S_j^0): what earlier tasks gave a task before it was learned, over the base.

    Lopez-Paz & Ranzato 2017 (GEM). nan where those cells of the upper triangle are not measured, and for a single task.
    """
    R = _matrices(R)
    return _mean((np.diagonal(R, axis1=-2, axis2=-1) - R[..., 0, :])[..., 1:], of_none=np.nan)


@statistic(
    description="how much of a task's look appears, after the last task, where it is not asked for: the gain in score",
    unit="change",
    of="leak",
    shown="diagnostic",
    higher_is_better=False,
    optional=True,
)
def leak(pair: ArrayLike) -> Values:
    """1/T sum_j (L_j^T - L_j^0): how far the looks of the tasks appear in images that do not ask for them.

    L_j^i is the score for task j of images drawn after i tasks from prompts near the task's that do not name its look:
    its bare class, or another style. 0 is the untouched model. This benchmark's own definition.

    Args:
        pair: (..., 2, T): L^0, then L^T.
    """
    own = np.asarray(pair, dtype=float)
    return (own[..., 1, :] - own[..., 0, :]).mean(axis=-1)


@statistic(
    description="how far images of unrelated prompts moved from the untouched model's own: 1 - mean cosine",
    unit="loss",
    of="drift",
    shown="diagnostic",
    higher_is_better=False,
    optional=True,
)
def drift(cosines: ArrayLike) -> Values:
    """1 - the mean cosine of images after the last task with the untouched model's own images from the same noise.

    0 is the untouched model. This benchmark's own definition.

    Args:
        cosines: (..., P), one for each unrelated prompt.
    """
    return 1.0 - np.asarray(cosines, dtype=float).mean(axis=-1)


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


@statistic(description="mean score of a task right after it was learned", unit="score")
def plasticity(R: ArrayLike) -> Values:
    """1/T sum_j S_j^j: the mean score of a task right after it was learned."""
    return _right_after(_matrices(R)).mean(axis=-1)


@statistic(
    description="mean change of a past task's score since it was learned",
    unit="change",
)
def backward_transfer(R: ArrayLike) -> Values:
    """1/(T-1) sum_{j<T} (S_j^T - S_j^j): how past tasks changed since they were learned; negative = forgotten.

    Lopez-Paz & Ranzato 2017 (GEM). Zero for a single task.
    """
    R = _matrices(R)
    return _mean((R[..., -1, :] - _right_after(R))[..., :-1], of_none=0.0)


@statistic(description="mean score of the untouched model", title="base model's score", unit="score", shown="control")
def base(R: ArrayLike) -> Values:
    """1/T sum_j S_j^0: the untouched model's mean score."""
    return _matrices(R)[..., 0, :].mean(axis=-1)


RANKED_BY = "kept"
"""The statistic by which boards rank methods, in the track's first metric."""
INSTEAD = "average_score"
"""The one where `RANKED_BY` is undefined: for secondary metrics, for a single task, and where real images score no
better than the untouched model."""


def shown(*levels: str) -> list[Statistic]:
    """The statistics that are shown at any of these levels (`Statistic.shown`); default those of boards."""
    return [one for one in STATISTICS.values() if one.shown in (levels or ("headline", "diagnostic"))]


def scores_since_learned(R: ArrayLike) -> TaskValues:
    """1/(T-k) sum_{j<=T-k} S_j^{j+k}, k = 0 ... T-1, (..., T): the mean score of a task k tasks after it was learned.

    The mean is over the tasks after which k more were learned: all for k = 0, which is the plasticity, and the first
    task alone for k = T - 1.
    """
    R = _matrices(R)
    lags = [np.diagonal(R[..., 1:, :], -k, axis1=-2, axis2=-1) for k in range(R.shape[-1])]
    return np.stack([own.mean(axis=-1) for own in lags], axis=-1)
