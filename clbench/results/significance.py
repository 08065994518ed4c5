"""Rankings and their significance. Methods share orders, seeds, prompts and noise, and so are compared run by run.

    ranking = rank({"naive": {("0", 0): 0.31, ...}, "magmax": {...}}, runs=[("0", 0), ("0", 5), ...])
    ranking.standings[0].rank   # "1", or "1–2" where the first two cannot be told apart

Two methods are separable if the sign-flip permutation test of their paired differences, corrected over all pairs, has
p <= 0.05, so that a wrong verdict anywhere on the board is that rare. With up to 17 runs p is exact: every way to flip
the signs is tried. With more runs, p is estimated from 100,000 random flips, always the same ones; the observed signs
are counted among them, so that p is never 0 and the test stays valid (Phipson and Smyth 2010).

The correction is Holm's for as long as it can decide: with eight runs no p is below 2/256, and from the fifth method
on, with ten pairs, it could tell nobody apart. Then it is the test of all pairs at once (`joint_p`: signs flipped
together; Westfall and Young 1993). Which one is used depends on the numbers of methods and runs alone.

A method's rank runs from one more than the methods that are separably better to as many as are not separably worse.
The bootstrap intervals are reported beside that and decide nothing; those that resample whole task orders are wider,
because the runs of one order are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
RESAMPLES = 10_000
BOOTSTRAP_SEED = 20_241_004
MOST_EXACT = 17
"""Up to so many runs p is exact; the 2^17 sign flips come in pairs of equal absolute sum, so 2^16 are tried."""
DRAWN_FLIPS = 100_000
"""Number of random sign flips with more runs."""
SIGN_SEED = 20_241_005
"""Seed of the random sign flips."""
LARGEST = 2**23
"""Number of sums (flips x pairs) that are held in memory at once, 64 MiB."""
MOST_LISTED = 12
"""All pairs of so many best methods are listed, and of the others each with its neighbour."""

RunKey = tuple[str, int]
"""(order, seed)"""


@dataclass(frozen=True)
class Difference:
    """The first of two methods minus the second, on the same runs."""

    difference: float
    """Mean over runs of the paired difference, in the metric's unit."""
    interval: tuple[float, float]
    """95 % percentile bootstrap interval of the difference, resampling runs."""
    p: float
    """Two-sided sign-flip permutation p (`sign_flip_p`), uncorrected."""

    @property
    def separable(self) -> bool:
        return self.p <= ALPHA


@dataclass(frozen=True)
class Pair(Difference):
    """The difference of two methods of a ranking, the better one first."""

    better: str
    """The method with the better mean."""
    worse: str
    order_interval: tuple[float, float]
    """As `interval`, resampling task orders with all their seeds."""
    p_corrected: float
    """As `p`, corrected over all pairs of the ranking (`Ranking.correction`)."""

    @property
    def separable(self) -> bool:
        return self.p_corrected <= ALPHA


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
    correction: Literal["Holm", "joint"]
    """The method that corrects p over all pairs."""
    bootstrap_seed: int = BOOTSTRAP_SEED

    @property
    def test(self) -> str:
        """The name of the test that gives the p values."""
        return sign_flip_test(self.runs)


def rank(
    scores: Mapping[str, Mapping[RunKey, float]], runs: Collection[RunKey], higher_is_better: bool = True
) -> Ranking:
    """Rank methods by their mean score, the best first.

    Args:
        scores: method -> (order, seed) -> score.
        runs: the runs a method must have to be ranked.
        higher_is_better: whether a higher score is a better one.

    Raises:
        ValueError: there are no runs.
    """
    keys = sorted(runs)
    if not keys:
        raise ValueError("a ranking needs at least one run")
    complete = {name: np.array([own[key] for key in keys]) for name, own in scores.items() if set(keys) <= set(own)}
    sign = -1 if higher_is_better else 1
    names = sorted(complete, key=lambda name: (sign * complete[name].mean(), name))
    values = np.array([complete[name] for name in names]).reshape(len(names), len(keys))
    first, second = np.triu_indices(len(names), k=1)  # every pair, the better one first
    differences = values[first] - values[second]
    # Of a thousand methods half a million pairs could be listed, which nobody would read.
    listed = (second < MOST_LISTED) | (second == first + 1)
    if len(differences) * smallest_p(len(keys)) <= ALPHA:
        correction = "Holm"
        p = sign_flip_p(differences)
        corrected = holm(p)
        p = p[listed]
    else:
        correction = "joint"
        p = sign_flip_p(differences[listed])
        corrected = joint_p(differences)
    apart = corrected <= ALPHA
    better = np.bincount(second[apart], minlength=len(names)).tolist()
    worse = np.bincount(first[apart], minlength=len(names)).tolist()
    standings = tuple(
        Standing(name, float(values[place].mean()), 1 + better[place], len(names) - worse[place])
        for place, name in enumerate(names)
    )
    shown = differences[listed]
    found = differences_of(shown, p)
    columns = (column.tolist() for column in (first[listed], second[listed], corrected[listed]))
    pairs = tuple(
        Pair(**vars(own), better=names[a], worse=names[b], order_interval=interval, p_corrected=p_corrected)
        for own, interval, a, b, p_corrected in zip(found, _order_intervals(found, shown, keys), *columns, strict=True)
    )
    return Ranking(standings, pairs, tuple(sorted(set(scores) - set(names))), len(keys), correction)


def _order_intervals(found: list[Difference], rows: NDArray, keys: list[RunKey]) -> list[tuple[float, float]]:
    """`Pair.order_interval` of each row [P, n] of paired differences."""
    orders = [order for order, _ in keys]
    if len(set(orders)) == len(orders):  # one seed an order: whole orders are runs
        return [one.interval for one in found]
    groups = np.stack([rows[:, [o == one for o in orders]].mean(axis=1) for one in dict.fromkeys(orders)], axis=1)
    return [(low, high) for low, high in bootstrap_intervals(groups).tolist()]


def differences_of(rows: NDArray, p: NDArray | None = None) -> list[Difference]:
    """The difference of each row [P, n] of paired differences; `p` is their `sign_flip_p`, if it is known already."""
    columns = rows.mean(axis=1), bootstrap_intervals(rows), sign_flip_p(rows) if p is None else p
    return [
        Difference(mean, (low, high), own)
        for mean, (low, high), own in zip(*(column.tolist() for column in columns), strict=True)
    ]


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
        p[part] = (np.abs(signs @ differences[part].T) >= (observed - slack)[part]).mean(axis=0)
    return p


def smallest_p(runs: int) -> float:
    """The smallest p that `sign_flip_p` can give with so many runs."""
    return 2.0 ** (1 - runs) if runs <= MOST_EXACT else 1 / (1 + DRAWN_FLIPS)


def sign_flip_test(runs: int) -> str:
    """The name of the test that `sign_flip_p` makes with so many runs."""
    if runs <= MOST_EXACT:
        return "exact sign-flip permutation test"
    return f"sign-flip permutation test with {DRAWN_FLIPS:,} random flips (seed {SIGN_SEED})"


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
    largest = np.zeros(len(signs))
    p = np.empty(len(rising))
    for part in _parts(rising, len(signs)):
        running = np.abs(signs @ scaled[part].T)
        running[:, 0] = np.maximum(running[:, 0], largest)
        np.maximum.accumulate(running, axis=1, out=running)
        p[part] = (running >= observed[part] - 1e-9).mean(axis=0)
        largest = running[:, -1]
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


def _parts(rows: NDArray, flips: int) -> list[NDArray]:
    """`rows` in parts, each small enough for its sums under every flip to be held at once."""
    size = min(1024, max(1, LARGEST // flips))
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def bootstrap_intervals(differences: NDArray) -> NDArray:
    """95 % percentile interval of the mean of each row [P, n], every row resampled alike: [P, 2]."""
    resamples, level = _resamples(differences.shape[1]), 1 - ALPHA
    ends = [50 * (1 - level), 50 * (1 + level)]
    # Not a BLAS product, which has other last bits on other processors.
    found = [np.percentile((resamples * row).sum(axis=1), ends) for row in differences]
    return np.array(found).reshape(-1, 2)


@cache
def _resamples(count: int) -> NDArray:
    """The weight of each of `count` runs in each resample, [RESAMPLES, count]."""
    return np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, [1 / count] * count, RESAMPLES) / count


def holm(p: NDArray) -> NDArray:
    """Holm's step-down correction of p values [P]."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
