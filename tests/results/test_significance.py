"""How sure a ranking is, against scipy and against what a coin would say."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clbench.results.significance import (
    MOST_LISTED,
    bootstrap_intervals,
    holm,
    joint_p,
    rank,
    sign_flip_p,
    sign_flip_test,
    smallest_p,
)

RUNS = [(order, seed) for order in ("0", "5", "10", "42") for seed in (0, 5)]


def table(**means: list[float]) -> dict[str, dict]:
    return {name: dict(zip(RUNS, values, strict=True)) for name, values in means.items()}


def draws(seed: int, level: float = 0.0, scale: float = 1.0) -> list[float]:
    return (level + scale * np.random.default_rng(seed).normal(size=len(RUNS))).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_p_is_scipys_exact_permutation_test_of_paired_samples(seed):
    row = np.random.default_rng(seed).normal(0.4, 1.0, size=8)
    expected = stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=1000)  # all 256
    assert sign_flip_p(row[None]) == pytest.approx([expected.pvalue])


def test_intervals_are_those_of_scipys_percentile_bootstrap():
    rows = np.random.default_rng(0).normal(0.4, 1.0, size=(3, 8))
    for row, (low, high) in zip(rows, bootstrap_intervals(rows), strict=True):
        expected = stats.bootstrap((row,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)


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
    assert ranking.correction == "joint"
    assert (holm(np.array([pair.p for pair in ranking.pairs])) > 0.05).all()


def test_the_correction_is_holms_where_it_can_decide():
    four = rank(table(**{name: draws(place) for place, name in enumerate("abcd")}), RUNS)
    assert four.correction == "Holm"
    p = np.array([pair.p for pair in four.pairs])
    assert [pair.p_corrected for pair in four.pairs] == pytest.approx(holm(p))


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


def test_the_interval_over_orders_is_wider_where_runs_of_one_order_are_alike():
    by_order = [1.0, 1.0, -1.0, -1.0, 0.5, 0.5, 2.0, 2.0]
    [pair] = rank(table(a=by_order, b=[0.0] * 8), RUNS).pairs
    assert pair.order_interval[1] - pair.order_interval[0] > pair.interval[1] - pair.interval[0]


def test_of_many_methods_neighbours_are_listed_with_the_p_of_their_own_test():
    scores = table(**{f"m{place:02}": draws(place, level=0.3 * place) for place in range(20)})
    ranking = rank(scores, RUNS)
    assert ranking.correction == "joint"
    assert len(ranking.pairs) == MOST_LISTED * (MOST_LISTED - 1) / 2 + 20 - MOST_LISTED
    for pair in ranking.pairs:
        row = np.array([scores[pair.better][run] - scores[pair.worse][run] for run in sorted(RUNS)])
        assert pair.p == sign_flip_p(row[None])[0]
        assert pair.p_corrected >= pair.p
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


def test_a_drawn_p_is_never_zero_and_none_is_below_the_smallest_one_that_is_told():
    for runs in (1, 8, 17, 18, 20, 60):
        row = np.ones((1, runs))
        told = smallest_p(runs)
        assert sign_flip_p(row)[0] >= told > 0
        assert joint_p(row)[0] >= told
    assert smallest_p(8) == sign_flip_p(np.ones((1, 8)))[0] == 2 / 2**8
    assert smallest_p(17) == sign_flip_p(np.ones((1, 17)))[0] == 2 / 2**17
    assert smallest_p(60) == sign_flip_p(np.ones((1, 60)))[0] == 1 / 100_001, "only the observed signs count"


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
    assert ranking.correction == "Holm", "of 15 pairs, Holm's correction can tell some apart"
    [pair] = [pair for pair in ranking.pairs if (pair.better, pair.worse) == ("best", "a")]
    assert pair.separable
    assert pair.p == pytest.approx(1e-5, rel=1), "the same difference in every run"
    assert "100,000 random" in ranking.test


@pytest.mark.parametrize(("runs", "exact"), [(1, True), (8, True), (17, True), (18, False), (200, False)])
def test_what_p_is_called_follows_from_the_number_of_runs(runs, exact):
    assert sign_flip_test(runs).startswith("exact") == exact
    assert ("random" in sign_flip_test(runs)) != exact
