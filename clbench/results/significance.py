"""Rankings and their significance. Methods share orders, seeds, prompts and noise, and so are compared order by order.

    ranking = rank({"naive": {("0", 0): 0.31, ...}, "magmax": {...}}, runs=[("0", 0), ("0", 5), ...], margin=0.05)
    ranking.standings[0].rank   # "1", or "1–2" where the first two cannot be told apart

The order is the unit: runs of one order are alike, so that a statistic is averaged over the seeds of an order first,
and what is counted is orders. A pair of methods has one of three verdicts:

- *better*: the two differ, at a p of at most 0.05 that is corrected over all pairs of the board, so that a wrong
  verdict anywhere on it is that rare;
- *equivalent*: two one-sided t tests, at 0.05 each, say that they differ by less than a margin;
- *undecided*: neither.

From eight orders on, p is that of a sign-flip permutation test of all pairs at once (`joint_p`). With up to 17 orders
it is exact: every way to flip the signs is tried. With more, it is estimated from 100,000 random flips, always the same
ones; the observed signs are counted among them, so that p is never 0 and the test stays valid (Phipson and Smyth 2010).
With fewer than eight orders there are too few flips, and p is that of a paired t test over orders with Holm's
correction.

A method's rank runs from one more than the methods that are separably better to as many as are not separably worse.
Intervals are t intervals over orders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

ALPHA = 0.05
FEWEST_FLIPPED = 8
"""From so many orders on the sign-flip test has the power: its smallest p is 2/2^8."""
MOST_EXACT = 17
"""Up to so many orders p is exact; the 2^17 sign flips come in pairs of equal absolute sum, so 2^16 are tried."""
DRAWN_FLIPS = 100_000
"""Number of random sign flips with more orders."""
SIGN_SEED = 20_241_005
"""Seed of the random sign flips."""
LARGEST = 2**23
"""Number of sums (flips x pairs) that are held in memory at once, 64 MiB."""
MOST_LISTED = 12
"""All pairs of so many best methods are listed, and of the others each with its neighbour."""

RunKey = tuple[str, int]
"""(order, seed)"""


Verdict = Literal["better", "equivalent", "undecided"]


@dataclass(frozen=True)
class Difference:
    """The first of two methods minus the second, on the same orders."""

    difference: float
    """Mean over orders of the paired difference, in the metric's unit."""
    interval: tuple[float, float] | None
    """95 % t interval of the difference over orders; None for a single order, of which nothing can be said."""
    p: float | None
    """Two-sided p (`paired_p`), uncorrected; None for a single order."""
    p_corrected: float | None
    """The same, corrected over all differences that were tested together."""
    chance: float | None
    """The probability that a new order's difference has the sign of the mean one (`chance_on_a_new_order`)."""
    equivalent: bool
    """Whether the two differ by less than the margin, by two one-sided t tests."""

    @property
    def separable(self) -> bool:
        return self.p_corrected is not None and self.p_corrected <= ALPHA

    @property
    def verdict(self) -> Verdict:
        """Of the one that is ahead."""
        return "better" if self.separable else "equivalent" if self.equivalent else "undecided"


@dataclass(frozen=True)
class Pair(Difference):
    """The difference of two methods of a ranking, the better one first."""

    better: str
    """The method with the better mean."""
    worse: str


@dataclass(frozen=True)
class Standing:
    """A method's place in a ranking."""

    method: str
    mean: float
    best: int
    """One more than the number of separably better methods."""
    worst: int
    """The number of methods that are not separably worse, itself among them."""

    @property
    def rank(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}–{self.worst}"


@dataclass(frozen=True)
class Ranking:
    """Methods from the best mean to the worst, and the tests behind their ranks."""

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    """All pairs of the best methods, and each other method with the one before it (`MOST_LISTED`)."""
    unranked: tuple[str, ...]
    """Methods that lack one of the runs; missing scores are never imputed."""
    runs: int
    orders: int
    margin: float
    """Methods that differ by less are equivalent."""
    all_pairs: int
    """The number of all pairs, listed or not."""
    above: frozenset[str] | None
    """Methods that are separably better than the reference; None where no reference is among them."""

    @property
    def test(self) -> str:
        """The name of the test that gives the p values."""
        return name_of_test(self.orders)


def rank(
    scores: Mapping[str, Mapping[RunKey, float]],
    runs: Collection[RunKey],
    margin: float = 0.0,
    higher_is_better: bool = True,
    reference: str | None = None,
) -> Ranking:
    """Rank methods by their mean score, the best first.

    Args:
        scores: method -> (order, seed) -> score.
        runs: the runs a method must have to be ranked.
        margin: methods that differ by less are equivalent; in the scores' unit.
        higher_is_better: whether a higher score is a better one.
        reference: a method that is told which ones are separably better.

    Raises:
        ValueError: there are no runs.
    """
    keys = sorted(runs)
    if not keys:
        raise ValueError("a ranking needs at least one run")
    complete = {name: np.array([own[key] for key in keys]) for name, own in scores.items() if set(keys) <= set(own)}
    averages = {name: over_orders(own, keys) for name, own in complete.items()}
    sign = -1 if higher_is_better else 1
    names = sorted(averages, key=lambda name: (sign * averages[name].mean(), name))
    values = np.array([averages[name] for name in names]).reshape(len(names), -1)
    first, second = np.triu_indices(len(names), k=1)  # every pair, the better one first
    differences = values[first] - values[second]
    corrected = corrected_p(differences)
    apart = corrected <= ALPHA
    better = np.bincount(second[apart], minlength=len(names)).tolist()
    worse = np.bincount(first[apart], minlength=len(names)).tolist()
    standings = tuple(
        Standing(name, float(values[place].mean()), 1 + better[place], len(names) - worse[place])
        for place, name in enumerate(names)
    )
    # Of a thousand methods half a million pairs could be listed, which nobody would read.
    listed = (second < MOST_LISTED) | (second == first + 1)
    found = differences_of(differences[listed], margin, corrected[listed])
    columns = (column.tolist() for column in (first[listed], second[listed]))
    pairs = tuple(Pair(**vars(own), better=names[a], worse=names[b]) for own, a, b in zip(found, *columns, strict=True))
    unranked = tuple(sorted(set(scores) - set(names)))
    above = None
    if reference in names:
        above = frozenset(names[place] for place in first[apart & (second == names.index(reference))])
    return Ranking(standings, pairs, unranked, len(keys), values.shape[1], margin, len(differences), above)


def over_orders(values: NDArray, keys: Sequence[RunKey]) -> NDArray:
    """Means over the seeds of each order: (..., runs) -> (..., orders); orders as they first appear in `keys`."""
    orders = [order for order, _ in keys]
    if len(set(orders)) == len(orders):
        return values
    groups = [[place for place, own in enumerate(orders) if own == order] for order in dict.fromkeys(orders)]
    return np.stack([values[..., group].mean(axis=-1) for group in groups], axis=-1)


def differences_of(rows: NDArray, margin: float | NDArray, corrected: NDArray) -> list[Difference]:
    """The difference of each row [P, n] of paired differences, one an order.

    Args:
        margin: of equivalence, one for all or [P].
        corrected: p of each row, corrected over all that are tested together, [P].
    """
    means = rows.mean(axis=1).tolist()
    if rows.shape[1] < 2:
        return [Difference(mean, None, None, None, None, equivalent=False) for mean in means]
    low, high = t_intervals(rows, 1 - 2 * ALPHA).T
    columns = (
        t_intervals(rows).tolist(),
        paired_p(rows).tolist(),
        corrected.tolist(),
        chance_on_a_new_order(rows).tolist(),
        ((-margin < low) & (high < margin)).tolist(),
    )
    return [Difference(mean, (ends[0], ends[1]), *own) for mean, ends, *own in zip(means, *columns, strict=True)]


# --- Over orders, by t ---


def t_intervals(rows: NDArray, level: float = 1 - ALPHA) -> NDArray:
    """The t interval of the mean of each row [P, n], n > 1: [P, 2]."""
    n = rows.shape[1]
    half = stdtrit(n - 1, (1 + level) / 2) * rows.std(axis=1, ddof=1) / n**0.5
    return rows.mean(axis=1)[:, None] + half[:, None] * np.array([-1.0, 1.0])


def t_p(rows: NDArray) -> NDArray:
    """Two-sided p of each row [P, n] by Student's t test of a mean of zero, n > 1: [P]."""
    n = rows.shape[1]
    return 2 * stdtr(n - 1, -np.abs(_ratio(rows.mean(axis=1), rows.std(axis=1, ddof=1) / n**0.5)))


def chance_on_a_new_order(rows: NDArray) -> NDArray:
    """The probability that the next value of each row [P, n], n > 1, has the sign of their mean: [P].

    The next value lies around the mean by a t distribution with n - 1 degrees of freedom and scale s sqrt(1 + 1/n).
    """
    n = rows.shape[1]
    return stdtr(n - 1, np.abs(_ratio(rows.mean(axis=1), rows.std(axis=1, ddof=1) * (1 + 1 / n) ** 0.5)))


def _ratio(means: NDArray, scales: NDArray) -> NDArray:
    """means / scales; infinite where all values are the same, and 0 where they all are 0."""
    return np.divide(means, scales, out=np.where(means == 0, 0.0, np.copysign(np.inf, means)), where=scales > 0)


# --- The tests ---


def paired_p(rows: NDArray) -> NDArray:
    """Two-sided p of each row [P, n] of paired differences, uncorrected: by sign flips or by t, as `corrected_p`."""
    return sign_flip_p(rows) if rows.shape[1] >= FEWEST_FLIPPED else t_p(rows)


def corrected_p(rows: NDArray) -> NDArray:
    """Two-sided p of each row [P, n] of paired differences, corrected over all: [P]; 1 for a single order."""
    if rows.shape[1] < 2:
        return np.ones(len(rows))
    return joint_p(rows) if rows.shape[1] >= FEWEST_FLIPPED else holm(t_p(rows))


def name_of_test(orders: int, what: str = "pairs") -> str:
    """What `corrected_p` does with so many orders; `what` it tests."""
    if orders < 2:
        return "no test of a single order"
    if orders < FEWEST_FLIPPED:
        return f"paired t test over {orders} orders with Holm's correction over all {what}"
    kind = "exact" if orders <= MOST_EXACT else f"{DRAWN_FLIPS:,} random flips, seed {SIGN_SEED}"
    return f"sign-flip test over {orders} orders of all {what} at once (step-down max-T; {kind})"


def sign_flip_p(differences: NDArray) -> NDArray:
    """Two-sided p of each row [P, n] under the hypothesis that every sign is equally likely: [P].

    p is the share of sign flips whose mean is at least as far from zero as the observed one. It is exact, over all 2^n
    flips, for n <= `MOST_EXACT`; beyond that it is (1 + count) / (1 + `DRAWN_FLIPS`) over random flips.
    """
    signs = _signs(differences.shape[1])
    observed = np.abs(differences.sum(axis=1))
    slack = 1e-12 * np.abs(differences).sum(axis=1)  # the same sum in another order may differ in its last bits
    p = np.empty(len(differences))
    for part in _parts(np.arange(len(differences)), len(signs)):
        p[part] = (_flipped_sums(signs, differences[part]) >= (observed - slack)[part]).mean(axis=0)
    return p


def joint_p(differences: NDArray) -> NDArray:
    """Two-sided p of each row [P, n], corrected over all rows: [P].

    Step-down max-T (Westfall and Young 1993): a run's sign is flipped in all rows together, and a row's statistic,
    |sum| / norm, is compared with the largest among the rows that are no more extreme. It holds where the rows are
    jointly symmetric about zero for the pairs that do not differ. The flips are those of `sign_flip_p`: all of them for
    n <= `MOST_EXACT`, random ones beyond.
    """
    signs = _signs(differences.shape[1])
    if not len(differences):
        return np.empty(0)
    norms = np.linalg.norm(differences, axis=1, keepdims=True)
    scaled = np.divide(differences, norms, out=np.zeros_like(differences), where=norms > 0)
    observed = np.abs(scaled.sum(axis=1))
    rising = np.argsort(observed, kind="stable")
    reached = observed - 1e-9
    largest = np.zeros(len(signs))
    p = np.empty(len(rising))
    for part in _parts(rising, len(signs)):
        sums = _flipped_sums(signs, scaled[part])
        before, largest = largest, np.maximum(largest, sums.max(axis=1))
        # Running maxima are slow, and few flips need them: most reach all rows of the part before it, or none in it.
        all_rows = before >= reached[part[-1]]
        some_rows = ~all_rows & (largest >= reached[part[0]])
        running = sums[some_rows]
        running[:, 0] = np.maximum(running[:, 0], before[some_rows])
        np.maximum.accumulate(running, axis=1, out=running)
        p[part] = (all_rows.sum() + (running >= reached[part]).sum(axis=0)) / len(signs)
    p[rising] = np.maximum.accumulate(p[rising][::-1])[::-1]
    return p


def _signs(count: int) -> NDArray:
    """Ways to flip the signs of `count` runs, [F, count]; the first row flips none.

    For count <= `MOST_EXACT` all that leave the last sign as it is, F = 2^(count - 1): flipped in all places, an
    absolute sum stays the same. Beyond that, `DRAWN_FLIPS` random ones follow the first.
    """
    if count <= MOST_EXACT:
        return 1.0 - 2.0 * ((np.arange(2 ** (count - 1))[:, None] >> np.arange(count)) & 1)
    signs = np.ones((1 + DRAWN_FLIPS, count))
    signs[1:] -= 2.0 * np.random.default_rng(SIGN_SEED).integers(0, 2, (DRAWN_FLIPS, count))
    return signs


def _flipped_sums(signs: NDArray, rows: NDArray) -> NDArray:
    """The absolute sum of each row [P, n] under each flip of `_signs(n)`: [F, P].

    Where these are all flips, each is one of the first half of the places and one of the others, which have few.
    """
    count = rows.shape[1]
    if count > MOST_EXACT:
        sums = signs @ rows.T
    else:
        half = count // 2
        first = signs[: 2**half, :half] @ rows[:, :half].T
        others = signs[:: 2**half, half:] @ rows[:, half:].T
        sums = (others[:, None] + first).reshape(len(signs), len(rows))
    return np.abs(sums, out=sums)


def _parts(rows: NDArray, flips: int) -> list[NDArray]:
    """`rows` in parts, each small enough for its sums under every flip to be held at once."""
    size = min(1024, max(1, LARGEST // flips))
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def holm(p: NDArray) -> NDArray:
    """Holm's step-down correction of p values [P]."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
