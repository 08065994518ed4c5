"""How sure a ranking is: methods are compared run by run, since all share task orders, seeds, prompts and noise.

    ranking = rank({"naive": {("0", 0): 0.31, ...}, "magmax": {...}}, runs=[("0", 0), ("0", 5), ...])
    ranking.standings[0].rank   # "1", or "1–2" where the first two cannot be told apart

Two methods are separable if the exact sign-flip permutation test of their paired differences, Holm-corrected over all
pairs, has p <= 0.05. A method's rank runs from one more than the methods that are separably better to as many as are
not separably worse. The bootstrap intervals are reported beside that and decide nothing; those that resample whole task
orders are wider, because the runs of one order are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
RESAMPLES = 10_000
BOOTSTRAP_SEED = 20_241_004
MOST_RUNS = 16
"""2^16 sign flips are enumerated at most."""

RunKey = tuple[str, int]
"""(order, seed)"""


@dataclass(frozen=True)
class Pair:
    """Two methods on the same runs."""

    better: str
    """The method with the higher mean."""
    worse: str
    difference: float
    """Mean over runs of the paired difference; not negative."""
    interval: tuple[float, float]
    """95 % percentile bootstrap interval of the difference, resampling runs."""
    order_interval: tuple[float, float]
    """The same, resampling task orders with all their seeds."""
    p: float
    """Two-sided exact sign-flip permutation p."""
    p_holm: float
    """The same, Holm-corrected over all pairs of the ranking."""

    @property
    def separable(self) -> bool:
        return self.p_holm <= ALPHA


@dataclass(frozen=True)
class Standing:
    """A method's place."""

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
    """Standings from the best mean down, and what they rest on."""

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    unranked: tuple[str, ...]
    """Methods that lack a run: never imputed."""
    runs: int
    bootstrap_seed: int = BOOTSTRAP_SEED


def rank(scores: Mapping[str, Mapping[RunKey, float]], runs: Collection[RunKey]) -> Ranking:
    """Rank methods by their mean score, higher first.

    Args:
        scores: method -> (order, seed) -> score.
        runs: the runs a method must have to be ranked.

    Raises:
        ValueError: there are no runs, or more than 16, which is too many to enumerate.
    """
    keys = sorted(runs)
    if not 0 < len(keys) <= MOST_RUNS:
        raise ValueError(f"a ranking needs 1 to {MOST_RUNS} runs, not {len(keys)}")
    complete = {name: np.array([own[key] for key in keys]) for name, own in scores.items() if set(keys) <= set(own)}
    names = sorted(complete, key=lambda name: (-complete[name].mean(), name))
    pairs = _pairs(names, complete, [order for order, _ in keys])
    better = {name: sum(pair.separable for pair in pairs if pair.worse == name) for name in names}
    worse = {name: sum(pair.separable for pair in pairs if pair.better == name) for name in names}
    standings = (
        Standing(name, float(complete[name].mean()), 1 + better[name], len(names) - worse[name]) for name in names
    )
    return Ranking(tuple(standings), pairs, tuple(sorted(set(scores) - set(names))), len(keys))


def _pairs(names: list[str], scores: Mapping[str, NDArray], orders: Sequence[str]) -> tuple[Pair, ...]:
    couples = list(combinations(names, 2))
    if not couples:
        return ()
    differences = np.stack([scores[better] - scores[worse] for better, worse in couples])
    groups = np.stack(
        [differences[:, [order == one for order in orders]].mean(axis=1) for one in dict.fromkeys(orders)]
    )
    p = sign_flip_p(differences)
    rows = zip(
        couples,
        differences.mean(axis=1).tolist(),
        bootstrap_intervals(differences).tolist(),
        bootstrap_intervals(groups.T).tolist(),
        p.tolist(),
        holm(p).tolist(),
        strict=True,
    )
    return tuple(
        Pair(better, worse, mean, (low, high), (order_low, order_high), p, corrected)
        for (better, worse), mean, (low, high), (order_low, order_high), p, corrected in rows
    )


def sign_flip_p(differences: NDArray) -> NDArray:
    """Two-sided exact p of each row [P, n] under "every sign is a coin's": the share of the 2^n ways to flip signs
    whose mean is at least as far from zero. [P]
    """
    count = differences.shape[1]
    signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    observed = np.abs(differences.sum(axis=1))
    slack = 1e-12 * np.abs(differences).sum(axis=1)  # the same sum in another order may differ in its last bits
    # Row by row, so that a thousand methods' half a million pairs do not ask for all flips at once.
    return np.array(
        [np.mean(np.abs(signs @ row) >= limit) for row, limit in zip(differences, observed - slack, strict=True)]
    )


def bootstrap_intervals(differences: NDArray, level: float = 1 - ALPHA) -> NDArray:
    """Percentile interval of the mean of each row [P, n], every row resampled alike: [P, 2]."""
    count = differences.shape[1]
    weights = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, [1 / count] * count, RESAMPLES) / count
    tails = [50 * (1 - level), 50 * (1 + level)]
    return np.array([np.percentile(weights @ row, tails) for row in differences])


def holm(p: NDArray) -> NDArray:
    """Holm's step-down correction of p values [P]."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
