"""The figures of one score matrix, against independent statements of their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clbench import scores

NAN = float("nan")
COSINES = st.floats(-1, 1, allow_subnormal=False)

# Three tasks. Task 1 is best after task 2 (0.7), task 2 right after learning (0.6).
EXAMPLE = np.array(
    [
        [0.1, 0.2, 0.3],
        [0.5, NAN, NAN],
        [0.7, 0.6, NAN],
        [0.4, 0.5, 0.9],
    ]
)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Fully measured score matrices of 1 to 6 tasks."""
    tasks = draw(st.integers(1, 6))
    return draw(arrays(float, (tasks + 1, tasks), elements=COSINES))


def paper(R: np.ndarray):
    """S(j, i) = the paper's S_j^i: task j (from 1) after i tasks."""
    return (lambda j, i: R[i][j - 1]), R.shape[1]


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-12)


@given(matrices())
def test_scores_since_learned_are_the_means_over_the_tasks_that_were_learned_k_tasks_ago(R):
    S, T = paper(R)
    means = [sum(S(j, j + k) for j in range(1, T - k + 1)) / (T - k) for k in range(T)]
    assert scores.scores_since_learned(R) == pytest.approx(means, abs=1e-12)
    assert scores.scores_since_learned(np.stack([R, -R]))[1] == pytest.approx(np.negative(means), abs=1e-12)


@given(matrices())
def test_average_score_is_the_papers_mean_over_tasks_after_the_last(R):
    S, T = paper(R)
    assert scores.average_score(R) == close(sum(S(j, T) for j in range(1, T + 1)) / T)


@given(matrices())
def test_forgetting_is_the_paper_formula_over_k_from_j_divided_by_one_less_than_the_tasks(R):
    S, T = paper(R)
    total = 0.0
    for j in range(1, T):
        best = S(j, j)
        for k in range(j, T + 1):
            best = max(best, S(j, k))
        total += best - S(j, T)
    assert scores.average_forgetting(R) == close(total / (T - 1) if T > 1 else 0.0)


@given(matrices())
def test_reference_forgetting_is_the_released_code_which_averages_over_all_tasks(R):
    S, T = paper(R)
    drops = [max(S(j, k) for k in range(j, T + 1)) - S(j, T) for j in range(1, T + 1)]
    assert drops[-1] == 0
    assert scores.average_forgetting_ref(R) == close(sum(drops) / T)
    assert scores.average_forgetting_ref(R) == close(scores.average_forgetting(R) * (T - 1) / T)


@given(matrices())
def test_incremental_score_averages_the_seen_tasks_after_each_task(R):
    S, T = paper(R)
    expected = sum(sum(S(j, i) for j in range(1, i + 1)) / i for i in range(1, T + 1)) / T
    assert scores.average_incremental_score(R) == close(expected)


@given(matrices())
def test_plasticity_and_backward_transfer_compare_with_the_score_right_after_learning(R):
    S, T = paper(R)
    assert scores.plasticity(R) == close(sum(S(j, j) for j in range(1, T + 1)) / T)
    expected = sum(S(j, T) - S(j, j) for j in range(1, T)) / (T - 1) if T > 1 else 0.0
    assert scores.backward_transfer(R) == close(expected)


@given(matrices().filter(lambda R: R.shape[1] > 1))
def test_forward_transfer_is_the_gain_over_the_base_before_a_task_is_learned(R):
    S, T = paper(R)
    assert scores.forward_transfer(R) == close(sum(S(j, j - 1) - S(j, 0) for j in range(2, T + 1)) / (T - 1))


@st.composite
def measured(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A score matrix of at least so many tasks, and real images that score above its base model on every task."""
    R = draw(matrices().filter(lambda R: R.shape[1] >= least))
    room = draw(arrays(float, R.shape[1], elements=st.floats(0.01, 1)))
    return R, R[0] + room


@given(measured())
def test_learned_is_the_share_of_the_way_from_the_base_model_to_real_images_right_after_learning(case):
    R, real = case
    S, T = paper(R)
    way = sum(real[j - 1] - S(j, 0) for j in range(1, T + 1))
    assert scores.learned(R, real) == pytest.approx(sum(S(j, j) - S(j, 0) for j in range(1, T + 1)) / way)


@given(measured(least=2))
def test_kept_is_the_same_share_over_past_tasks_after_the_last_one(case):
    R, real = case
    S, T = paper(R)
    way = sum(real[j - 1] - S(j, 0) for j in range(1, T))
    assert scores.kept(R, real) == pytest.approx(sum(S(j, T) - S(j, 0) for j in range(1, T)) / way)


@given(measured(least=2))
def test_a_method_that_does_nothing_learns_and_keeps_nothing(case):
    R, real = case
    untouched = np.broadcast_to(R[0], R.shape)
    assert scores.learned(untouched, real) == scores.kept(untouched, real) == 0


@given(measured(least=2), st.floats(0, 1))
def test_all_is_learned_and_kept_where_tasks_score_like_real_images_and_half_at_half_way(case, part):
    R, real = case
    way = np.tile(R[0] + part * (real - R[0]), (len(R), 1))
    way[0] = R[0]
    assert scores.learned(way, real) == pytest.approx(part, abs=1e-9)
    assert scores.kept(way, real) == pytest.approx(part, abs=1e-9)


@given(measured(least=2), st.floats(0.01, 1))
def test_a_method_that_harms_has_negative_shares(case, harm):
    R, real = case
    worse = R[0] - harm * (np.arange(len(R)) > 0)[:, None]
    assert scores.learned(worse, real) < 0
    assert scores.kept(worse, real) < 0


@given(measured(least=2), st.randoms(use_true_random=False))
def test_it_does_not_matter_to_the_shares_which_task_came_when(case, random):
    """With its scores moved along, any task may change places for learned, and any past task for kept."""
    R, real = case
    T = R.shape[1]
    order = random.sample(range(T), T)
    moved = R[:, order].copy()
    moved[np.arange(1, T + 1), np.arange(T)] = [R[j + 1, j] for j in order]
    assert scores.learned(moved, real[order]) == pytest.approx(scores.learned(R, real), abs=1e-9)
    past = [*random.sample(range(T - 1), T - 1), T - 1]
    assert scores.kept(R[:, past], real[past]) == pytest.approx(scores.kept(R, real), abs=1e-9)


@given(measured(least=2), st.floats(0.1, 2), st.floats(-0.5, 0.5))
def test_the_shares_do_not_depend_on_the_unit_or_the_zero_of_the_scores(case, unit, zero):
    R, real = case
    for share in (scores.learned, scores.kept):
        assert share(unit * R + zero, unit * real + zero) == pytest.approx(share(R, real), rel=1e-6, abs=1e-6)


@given(matrices())
def test_forgetting_is_never_negative_and_at_least_what_backward_transfer_lost(R):
    assert scores.average_forgetting(R) >= 0
    assert scores.average_forgetting(R) >= -scores.backward_transfer(R) - 1e-12


def test_hand_computed_example():
    assert scores.average_score(EXAMPLE) == close(0.6)
    assert scores.average_forgetting(EXAMPLE) == close((0.3 + 0.1) / 2)
    assert scores.average_forgetting_ref(EXAMPLE) == close(0.4 / 3)
    assert scores.average_incremental_score(EXAMPLE) == close((0.5 + 0.65 + 0.6) / 3)
    assert scores.plasticity(EXAMPLE) == close((0.5 + 0.6 + 0.9) / 3)
    assert scores.backward_transfer(EXAMPLE) == close(-0.1)
    assert math.isnan(scores.forward_transfer(EXAMPLE))
    assert scores.learned(EXAMPLE, [0.9, 0.8, 0.7]) == close((0.4 + 0.4 + 0.6) / (0.8 + 0.6 + 0.4))
    assert scores.kept(EXAMPLE, [0.9, 0.8, NAN]) == close((0.3 + 0.3) / (0.8 + 0.6))


@pytest.mark.parametrize("real", [(0.1, 0.2, 0.3), (0.0, 0.1, 0.2), (NAN, 0.9, 0.9)])
def test_the_shares_are_undefined_where_real_images_do_not_score_above_the_base_model(real):
    assert math.isnan(scores.learned(EXAMPLE, real))
    assert math.isnan(scores.kept(EXAMPLE, real))


def test_scores_before_a_task_is_learned_never_count_as_forgetting():
    measured = EXAMPLE.copy()
    measured[1, 1:] = 1.0
    assert scores.average_forgetting(measured) == scores.average_forgetting(EXAMPLE)


def test_a_single_task_is_not_forgotten():
    R = np.array([[0.1], [0.5]])
    assert scores.average_forgetting(R) == scores.average_forgetting_ref(R) == scores.backward_transfer(R) == 0
    assert math.isnan(scores.kept(R, [0.9]))
    assert scores.learned(R, [0.9]) == close(0.5)
    assert math.isnan(scores.forward_transfer(R))


def test_a_missing_score_makes_the_figure_missing_rather_than_wrong():
    R = EXAMPLE.copy()
    R[2, 0] = NAN
    assert math.isnan(scores.average_forgetting(R))
    assert math.isnan(scores.average_incremental_score(R))
    assert scores.average_score(R) == close(0.6)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (metrics, runs, T + 1, T), some of them with cells that were not measured, and scores of real images."""
    metrics, runs, tasks = draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 11))
    cell = st.one_of(COSINES, st.just(NAN)) if draw(st.booleans()) else COSINES
    return (
        draw(arrays(float, (metrics, runs, tasks + 1, tasks), elements=cell, fill=COSINES)),
        draw(arrays(float, (metrics, runs, tasks), elements=COSINES)),
    )


OF_SCORES = [one for one in scores.STATISTICS.values() if one.of == "scores"]


@given(stacks())
def test_a_stack_of_matrices_has_the_figures_of_each(stack):
    matrices, reals = stack
    for statistic in OF_SCORES:
        found = statistic.each(matrices, reals)
        assert found.shape == matrices.shape[:2]
        for place in np.ndindex(found.shape):
            one = statistic.each(matrices[place], reals[place])
            assert found[place] == pytest.approx(one, rel=1e-9, abs=1e-12, nan_ok=True), statistic.name


@given(measured(least=2))
def test_the_parts_that_tasks_have_in_a_statistic_add_up_to_it(case):
    R, real = case
    for statistic in OF_SCORES:
        if statistic.summands:
            reached, reachable = statistic.summands(R, real)
            assert statistic.each(R, real) == pytest.approx(reached.sum() / reachable.sum(), rel=1e-9, abs=1e-12)


def test_leak_is_the_mean_gain_over_the_base_model_where_a_look_is_not_asked_for():
    assert scores.leak([[0.1, 0.2], [0.4, 0.1]]) == close((0.3 - 0.1) / 2)
    assert scores.leak([[0.1, 0.2], [0.1, 0.2]]) == 0


def test_drift_is_one_minus_the_mean_cosine_with_the_base_models_own_images():
    assert scores.drift([1.0, 0.5, 0.0]) == close(0.5)
    assert scores.drift([1.0, 1.0]) == 0


@pytest.mark.parametrize("shape", [(3, 3), (4,), (1, 0), (2, 3), (3, 2, 1)])
def test_a_matrix_of_the_wrong_shape_is_refused_with_its_shape(shape):
    for statistic in OF_SCORES:
        if statistic.name in ("learned", "kept") or len(shape) < 3:
            with pytest.raises(ValueError, match="shape"):
                statistic.each(np.zeros(shape), np.zeros(3))


@pytest.mark.parametrize("figure", [scores.learned, scores.kept])
def test_a_control_of_the_wrong_length_is_refused_by_its_name(figure):
    with pytest.raises(ValueError, match=r"real against real needs one value a task, shape \(3,\)"):
        figure(EXAMPLE, [0.1, 0.2])
