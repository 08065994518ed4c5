"""How sure a ranking is, against scipy and against what a coin would say."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clbench.results.significance import (
    MOST_LISTED,
    chance_on_a_new_order,
    corrected_p,
    differences_of,
    holm,
    joint_p,
    name_of_test,
    over_orders,
    rank,
    sign_flip_p,
    t_intervals,
    t_p,
)

RUNS = [(str(order), 0) for order in range(8)]
FEW = [(order, seed) for order in ("0", "5", "10", "42") for seed in (0, 5)]
"""Four orders, each with two seeds, as the paper has them."""


def table(**means: list[float]) -> dict[str, dict]:
    return {name: dict(zip(RUNS, values, strict=True)) for name, values in means.items()}


def draws(seed: int, level: float = 0.0, scale: float = 1.0) -> list[float]:
    return (level + scale * np.random.default_rng(seed).normal(size=len(RUNS))).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_p_is_scipys_exact_permutation_test_of_paired_samples(seed):
    row = np.random.default_rng(seed).normal(0.4, 1.0, size=8)
    expected = stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=1000)  # all 256
    assert sign_flip_p(row[None]) == pytest.approx([expected.pvalue])


@pytest.mark.parametrize("n", [2, 4, 10, 20])
def test_intervals_and_p_values_by_t_are_scipys(n):
    rows = np.random.default_rng(n).normal(0.4, 1.0, size=(3, n))
    for row, (low, high), p in zip(rows, t_intervals(rows), t_p(rows), strict=True):
        expected: Any = stats.ttest_1samp(row, 0.0)
        interval = expected.confidence_interval(0.95)
        assert (low, high) == pytest.approx((interval.low, interval.high))
        assert p == pytest.approx(expected.pvalue)


def test_the_chance_on_a_new_order_is_how_often_the_next_value_has_the_sign_of_the_mean():
    """Checked where the model holds, with all true means equally likely: what is said is how often it happens."""
    source = np.random.default_rng(5)
    draws = source.uniform(-4, 4, size=(60_000, 1)) + source.normal(size=(60_000, 9))
    known, new = draws[:, :8], draws[:, 8]
    said = chance_on_a_new_order(known)
    happened = np.sign(new) == np.sign(known.mean(axis=1))
    for low, high in ((0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.99)):
        among = (low <= said) & (said < high)
        assert happened[among].mean() == pytest.approx(said[among].mean(), abs=0.02)
    assert chance_on_a_new_order(np.array([[0.1, 0.1], [0.0, 0.0]])).tolist() == [1.0, 0.5]


def test_equivalence_is_two_one_sided_t_tests():
    rows = np.random.default_rng(1).normal(0.01, 0.04, size=(200, 10))
    rows[0] += 0.2
    found = differences_of(rows, 0.05, corrected_p(rows))
    for row, own in zip(rows, found, strict=True):
        sides: Any = [
            stats.ttest_1samp(row, -0.05, alternative="greater"),
            stats.ttest_1samp(row, 0.05, alternative="less"),
        ]
        assert own.equivalent == (max(side.pvalue for side in sides) < 0.05)
        assert own.verdict == ("better" if own.separable else "equivalent" if own.equivalent else "undecided")
    assert {own.verdict for own in found} == {"better", "equivalent", "undecided"}


def test_of_a_single_order_nothing_is_said():
    [own] = differences_of(np.array([[0.3]]), 0.05, corrected_p(np.array([[0.3]])))
    assert (own.difference, own.interval, own.p, own.p_corrected, own.chance) == (0.3, None, None, None, None)
    assert own.verdict == "undecided"


def test_seeds_of_an_order_are_averaged_first():
    values = np.array([1.0, 2.0, 10.0, 20.0, 5.0])
    keys = [("a", 0), ("b", 0), ("a", 5), ("b", 5), ("c", 0)]
    assert over_orders(values, keys).tolist() == [5.5, 11.0, 5.0]


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_equals_its_definition(values):
    p = np.array(values)
    ordered = list(enumerate(sorted(values)))
    expected = [min(1.0, max((len(p) - place) * q for place, q in ordered if q <= own)) for own in values]
    assert holm(p) == pytest.approx(expected)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 6))
def test_the_joint_p_equals_its_definition(seed, rows, runs):
    """Row by row: the share of sign flips in which any row that is no more extreme comes as far; then never falling."""
    differences = np.random.default_rng(seed).normal(0.3, 1, size=(rows, runs))
    differences[0] *= seed % 2
    norms = [np.linalg.norm(row) or 1.0 for row in differences]
    observed = [abs(row.sum()) / norm for row, norm in zip(differences, norms, strict=True)]
    alone = []
    for own in observed:
        rivals = [number for number, other in enumerate(observed) if other <= own]
        reached = [
            max(abs(np.dot(signs, differences[rival])) / norms[rival] for rival in rivals) >= own - 1e-9
            for signs in itertools.product((1, -1), repeat=runs)
        ]
        alone.append(np.mean(reached))
    expected = [max(p for p, other in zip(alone, observed, strict=True) if other >= own) for own in observed]
    assert joint_p(differences) == pytest.approx(expected)


def test_of_a_single_pair_the_joint_p_is_its_own():
    for seed in range(5):
        row = np.random.default_rng(seed).normal(0.4, 1.0, size=(1, 8))
        assert joint_p(row) == pytest.approx(sign_flip_p(row))


@pytest.mark.parametrize("noise", ["normal", "exponential", "uniform"])
def test_among_six_equal_methods_a_wrong_verdict_is_rare(noise):
    source = np.random.default_rng(11)
    wrong = 0
    for _ in range(1000):
        scores = getattr(source, noise)(size=(6, 8))
        pairs = np.array([one - two for one, two in itertools.combinations(scores, 2)])
        wrong += bool((joint_p(pairs) <= 0.05).any())
    assert wrong <= 60  # 50 expected at most, two standard deviations of the draw


def test_a_fifth_method_does_not_make_all_methods_inseparable():
    base = np.array(draws(0))
    ranking = rank(table(**{name: (base + 0.1 * place).tolist() for place, name in enumerate("abcde")}), RUNS)
    assert [one.rank for one in ranking.standings] == ["1", "2", "3", "4", "5"]
    assert (holm(np.array([pair.p for pair in ranking.pairs])) > 0.05).all()


def test_with_fewer_than_eight_orders_it_is_a_paired_t_test_with_holms_correction():
    scores = {name: dict(zip(FEW, draws(place, level=place), strict=True)) for place, name in enumerate("abcd")}
    ranking = rank(scores, FEW)
    rows = [[scores[pair.better][run] - scores[pair.worse][run] for run in sorted(FEW)] for pair in ranking.pairs]
    by_order = over_orders(np.array(rows), sorted(FEW))
    expected: Any = stats.ttest_1samp(by_order, 0.0, axis=1)
    assert [pair.p for pair in ranking.pairs] == pytest.approx(expected.pvalue)
    p = np.array([pair.p for pair in ranking.pairs])
    assert [pair.p_corrected for pair in ranking.pairs] == pytest.approx(holm(p))
    assert (ranking.runs, ranking.orders) == (8, 4)
    assert ranking.test == "paired t test over 4 orders with Holm's correction over all pairs"


@pytest.mark.parametrize("seed", range(4))
def test_two_equal_methods_are_told_apart_in_at_most_five_of_a_hundred_cases(seed):
    """Each difference of equal methods may as well have the other sign: all these cases are counted."""
    one, two = np.array(draws(2 * seed)), np.array(draws(2 * seed + 1))
    wrong = 0
    for signs in itertools.product((1, -1), repeat=len(RUNS)):
        swapped = np.where(np.array(signs) > 0, (one, two), (two, one))
        wrong += rank(table(one=swapped[0].tolist(), two=swapped[1].tolist()), RUNS).pairs[0].separable
    assert 0 < wrong <= 0.05 * 2 ** len(RUNS)


def test_methods_that_differ_in_every_run_have_ranks_of_their_own():
    base = np.array(draws(0))
    ranking = rank(table(a=base.tolist(), b=(base + 0.1).tolist(), c=(base + 0.2).tolist()), RUNS)
    assert [(one.method, one.rank) for one in ranking.standings] == [("c", "1"), ("b", "2"), ("a", "3")]
    assert all(pair.separable for pair in ranking.pairs)
    assert ranking.pairs[0].p == 2 / 2**8


def test_methods_that_cannot_be_told_apart_share_a_rank():
    base = np.array(draws(0))
    noise = 0.01 * np.array([1, -1, 1, -1, 1, -1, 1, -1.5])
    ranking = rank(table(low=base.tolist(), a=(base + 1).tolist(), b=(base + 1 + noise).tolist()), RUNS)
    assert [(one.method, one.rank) for one in ranking.standings] == [("a", "1–2"), ("b", "1–2"), ("low", "3")]


def test_a_method_without_all_runs_is_unranked_and_changes_nothing():
    whole = table(a=draws(1), b=draws(2, level=3.0))
    part = {**whole, "c": dict.fromkeys(RUNS[:-1], 9.0)}
    ranking = rank(part, RUNS)
    assert ranking.unranked == ("c",)
    assert ranking.standings == rank(whole, RUNS).standings


def test_who_is_above_the_reference_is_told():
    base = np.array(draws(0))
    ranking = rank(table(low=base.tolist(), a=(base + 1).tolist(), b=draws(3, scale=0.1)), RUNS, reference="low")
    assert "a" in (ranking.above or ())
    assert "low" not in (ranking.above or ())
    assert rank(table(a=base.tolist()), RUNS, reference="low").above is None


def test_of_many_methods_neighbours_are_listed_with_the_p_of_their_own_test():
    scores = table(**{f"m{place:02}": draws(place, level=0.3 * place) for place in range(20)})
    ranking = rank(scores, RUNS)
    assert ranking.all_pairs == 190
    assert len(ranking.pairs) == MOST_LISTED * (MOST_LISTED - 1) / 2 + 20 - MOST_LISTED
    for pair in ranking.pairs:
        row = np.array([scores[pair.better][run] - scores[pair.worse][run] for run in sorted(RUNS)])
        assert pair.p == sign_flip_p(row[None])[0]
        assert (pair.p_corrected or 0) >= (pair.p or 0)
        assert pair.difference == pytest.approx(row.mean())


def test_a_ranking_without_runs_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        rank({}, [])


# --- More runs than can be enumerated ---


def enumerated_p(row: np.ndarray) -> float:
    """The share of all 2^n sign flips that reach the observed sum, each half's flips enumerated and added up."""
    halves = [np.array(list(itertools.product((1, -1), repeat=len(half)))) @ half for half in np.array_split(row, 2)]
    return float(np.mean(np.abs(np.add.outer(*halves)) >= abs(row.sum()) - 1e-9))


def many_runs(count: int, level: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 1.0, size=count)


@pytest.mark.parametrize("level", [0.0, 0.4, 0.8])
def test_with_17_runs_p_is_still_exact(level):
    row = many_runs(17, level, seed=3)
    assert sign_flip_p(row[None]) == pytest.approx([enumerated_p(row)], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_with_20_runs_the_drawn_p_is_the_exact_one_within_the_error_of_the_draw(seed):
    row = many_runs(20, 0.1 * seed, seed)
    exact = enumerated_p(row)
    error = np.sqrt(exact * (1 - exact) / 100_000)
    assert sign_flip_p(row[None])[0] == pytest.approx(exact, abs=4 * error + 1e-5)


def test_a_drawn_p_is_the_same_every_time_and_whatever_is_asked_beside_it():
    rows = np.stack([many_runs(20, 0.2, seed) for seed in range(200)])
    together = sign_flip_p(rows)
    assert (sign_flip_p(rows) == together).all()
    assert [float(sign_flip_p(row[None])[0]) for row in rows[::40]] == together[::40].tolist()
    assert (joint_p(rows[:30]) == joint_p(rows[:30])).all()


def test_a_drawn_p_is_never_zero():
    for runs in (1, 8, 17, 18, 20, 60):
        row = np.ones((1, runs))
        assert sign_flip_p(row)[0] > 0
        assert joint_p(row)[0] > 0
    assert sign_flip_p(np.ones((1, 8)))[0] == 2 / 2**8
    assert sign_flip_p(np.ones((1, 17)))[0] == 2 / 2**17
    assert sign_flip_p(np.ones((1, 60)))[0] == 1 / 100_001, "only the observed signs count"


def test_of_a_single_pair_the_drawn_joint_p_is_its_own():
    row = many_runs(20, 0.4, seed=1)[None]
    assert joint_p(row) == pytest.approx(sign_flip_p(row))


def test_the_drawn_joint_p_is_about_the_exact_one():
    """One run more than is exact, and that run without a difference: its sign does not matter."""
    rows = np.stack([many_runs(17, 0.2 * number, number) for number in range(4)])
    longer = np.hstack([rows, np.zeros((4, 1))])
    assert joint_p(longer) == pytest.approx(joint_p(rows), abs=0.008)


def test_a_ranking_uses_all_of_20_runs_and_says_that_its_p_is_drawn():
    runs = [(str(number), 0) for number in range(20)]
    noise = {name: many_runs(20, 0.0, seed) for seed, name in enumerate("abcde")}
    methods = {name: dict(zip(runs, own, strict=True)) for name, own in noise.items()}
    methods["best"] = dict(zip(runs, noise["a"] + 1, strict=True))
    ranking = rank(methods, runs)
    assert ranking.runs == 20
    assert ranking.standings[0].method == "best"
    assert ranking.standings[0].mean == pytest.approx((noise["a"] + 1).mean())
    assert ranking == rank(methods, runs)
    [pair] = [pair for pair in ranking.pairs if (pair.better, pair.worse) == ("best", "a")]
    assert pair.separable
    assert pair.p == pytest.approx(1e-5, rel=1), "the same difference in every run"
    assert "100,000 random" in ranking.test


@pytest.mark.parametrize(("orders", "exact"), [(8, True), (17, True), (18, False), (200, False)])
def test_what_the_test_is_called_follows_from_the_number_of_orders(orders, exact):
    assert name_of_test(orders).endswith("exact)") == exact
    assert ("random" in name_of_test(orders)) != exact
    assert "t test" in name_of_test(7)
    assert "no test" in name_of_test(1)


# --- By simulation: what a board may say is wrong as rarely as it says ---

SEEDS = 2


def boards(orders: int, icc: float, methods: int, count: int, seed: int) -> np.ndarray:
    """Scores of equal methods, (count, methods, orders * SEEDS); runs of one order correlate by `icc`."""
    source = np.random.default_rng(seed)
    shared = source.normal(size=(count, methods, orders, 1)) * np.sqrt(icc)
    own = source.normal(size=(count, methods, orders, SEEDS)) * np.sqrt(1 - icc)
    return (shared + own).reshape(count, methods, orders * SEEDS)


def keys_of(orders: int) -> list[tuple[str, int]]:
    return [(str(order), seed) for order in range(orders) for seed in range(SEEDS)]


def pairs_of(scores: np.ndarray, orders: int) -> np.ndarray:
    """Paired differences over orders of one board, (pairs, orders)."""
    first, second = np.triu_indices(len(scores), k=1)
    return over_orders(scores[first] - scores[second], keys_of(orders))


@pytest.mark.parametrize("icc", [0.0, pytest.param(0.5, marks=pytest.mark.long), 0.75])
@pytest.mark.parametrize(("orders", "count"), [(4, 1500), (10, 1500), (20, 60)])
def test_a_wrong_verdict_anywhere_on_a_board_is_rare_however_alike_runs_of_an_order_are(orders, icc, count):
    wrong = sum(
        bool((corrected_p(pairs_of(scores, orders)) <= 0.05).any())
        for scores in boards(orders, icc, 4, count, seed=orders)
    )
    if count >= 1000:
        assert wrong / count <= 0.06
    else:  # few, as each draws 100,000 flips: no more than a rate of 5 % gives in 999 of 1,000 cases
        assert wrong <= stats.binom.ppf(0.999, count, 0.05)


@pytest.mark.parametrize("icc", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("orders", [4, 10, 20])
def test_intervals_cover_what_they_say(orders, icc):
    scores = boards(orders, icc, 2, 8000, seed=100 + orders)
    rows = over_orders(scores[:, 0] - scores[:, 1], keys_of(orders))
    low, high = t_intervals(rows).T
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


@pytest.mark.parametrize(("orders", "count"), [(4, 400), (10, 400), (20, 15)])
def test_a_fifth_hopeless_method_changes_no_verdict_among_the_first_four(orders, count):
    changed = 0
    levels = np.array([0.0, 0.4, 0.8, 1.6])[:, None]
    for scores in boards(orders, 0.5, 5, count, seed=200 + orders):
        scores[:4] += levels
        scores[4] = -50.0 + 0.1 * scores[4]
        five = corrected_p(pairs_of(scores, orders)) <= 0.05
        first, second = np.triu_indices(5, k=1)
        four = corrected_p(pairs_of(scores[:4], orders)) <= 0.05
        changed += bool((five[(first < 4) & (second < 4)] != four).any())
    assert changed <= 0.01 * count
