"""Merging methods against their equations in numpy, on three trained adapters."""

from typing import Any

import numpy as np
import pytest
import torch
from following import FRESH, RANK, SCALE, SHAPES, TRAINED, context, dense, follow, in_training, same

from clbench.lora import Adapter
from clbench.method import Context
from clbench.plugins import get_method
from clbench.state import State
from clbench.utils.seeding import generator

DELTAS = [{layer: value.double().numpy() for layer, value in dense(adapter).items()} for adapter in TRAINED]
INDEPENDENT = ["dare", "iso_c", "opcm", "running_average", "task_arithmetic", "ties"]


def close(found, expected, atol: float = 1e-5) -> bool:
    return found.keys() == expected.keys() and all(
        np.allclose(found[layer].numpy(), expected[layer], atol=atol) for layer in expected
    )


def total(deltas) -> dict[str, np.ndarray]:
    return {layer: np.sum([delta[layer] for delta in deltas], axis=0) for layer in SHAPES}


def repeated(name: str, delta: dict[str, torch.Tensor], times: int, **settings):
    """The weights after so many tasks that each changed the base by `delta`."""
    method, state = get_method(name, settings), State()
    for position in range(times):
        state = method.end_task(context(position), state, factored(delta))
    return method.weights(state)


def factored(delta: dict[str, torch.Tensor]) -> Adapter:
    """An adapter, of whatever rank, whose product is `delta`."""
    A = {layer: torch.eye(value.shape[1]) for layer, value in delta.items()}
    return Adapter(A, {layer: value / SCALE for layer, value in delta.items()}, SCALE)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_each_task_is_trained_from_the_base_model_and_a_fresh_adapter(name):
    starts, frozen, _, _ = follow(name)
    assert frozen == [{}, {}, {}]
    assert all(map(same, starts, FRESH))


def test_task_arithmetic_adds_a_share_of_each_change():
    expected = {layer: 0.3 * value for layer, value in total(DELTAS).items()}
    assert close(follow("task_arithmetic")[3], expected)
    assert close(follow("task_arithmetic", strength=1)[3], total(DELTAS))


def test_running_average_is_the_mean_after_every_task():
    for count, state in enumerate(follow("running_average")[2], start=1):
        assert close(state.merged, {layer: np.mean([d[layer] for d in DELTAS[:count]], axis=0) for layer in SHAPES})


def test_dare_keeps_or_drops_each_entry_and_its_expectation_is_task_arithmetics():
    method, delta = get_method("dare"), dense(TRAINED[0])

    def draw(seed: int):
        return method.end_task(context(seed=seed), State(), TRAINED[0]).merged

    for layer, value in draw(0).items():
        dropped = value == 0
        torch.testing.assert_close(value, torch.where(dropped, 0, 0.3 / 0.5 * delta[layer]))
        assert dropped.any()
        assert not dropped.all()
    means = {layer: torch.stack([draw(seed)[layer] for seed in range(2000)]).mean(dim=0) for layer in SHAPES}
    for layer, mean in means.items():
        error = (mean - 0.3 * delta[layer]).abs() / (0.3 * delta[layer].abs())
        assert error.max() < 5 / 2000**0.5  # the relative deviation of one draw is 1
    assert same(follow("dare", drop=0)[3], follow("task_arithmetic")[3])


# --- TIES ---


def ties(deltas, density: float) -> dict[str, np.ndarray]:
    """Yadav et al., Algorithm 1, on flat vectors, one entry at a time."""
    vectors = [np.concatenate([delta[layer].ravel() for layer in SHAPES]) for delta in deltas]
    size = len(vectors[0])
    for vector in vectors:
        least = np.sort(np.abs(vector))[size - int(density * size) - 1]
        vector[np.abs(vector) < least] = 0
    merged = np.zeros(size)
    for i in range(size):
        values = [vector[i] for vector in vectors]
        agreeing = [value for value in values if value * sum(values) > 0]
        merged[i] = np.mean(agreeing) if agreeing else 0
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    return {layer: part.reshape(SHAPES[layer]) for layer, part in zip(SHAPES, np.split(merged, ends), strict=True)}


@pytest.mark.parametrize("density", [0.2, 0.5])
def test_ties_is_exact_after_every_task(density):
    method = get_method("ties", {"density": density})
    for count, state in enumerate(follow("ties", density=density)[2], start=1):
        assert close(method.weights(state), ties(DELTAS[:count], density))


def test_ties_of_equal_vectors_is_the_vector_trimmed():
    delta = dense(TRAINED[0])
    assert same(repeated("ties", delta, 3, density=1), delta)
    assert close(repeated("ties", delta, 3), ties(DELTAS[:1], 0.2))


def test_ties_entries_whose_sum_is_zero_take_the_majoritys_sign():
    def merged(*values: list[float]) -> list[float]:
        method, state = get_method("ties", {"density": 1}), State()
        for position, value in enumerate(values):
            state = method.end_task(context(position), state, factored({"a": torch.tensor([value])}))
        return method.weights(state)["a"][0].tolist()

    assert merged([2.0, 1.0, 1.0], [-2.0, 1.0, 3.0]) == [2.0, 1.0, 2.0]
    assert merged([2.0, -1.0, -1.0], [-2.0, -1.0, -3.0]) == [-2.0, -1.0, -2.0]


# --- singular values ---


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator("orthonormal", seed))).Q


def known(values: list[float], shape: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix with these singular values, its left and its right singular vectors."""
    U, V = orthonormal(shape[0], len(values), seed), orthonormal(shape[1], len(values), seed + 1)
    return U @ torch.diag(torch.tensor(values)) @ V.T, U, V


def test_iso_c_flattens_a_known_spectrum_and_leaves_the_null_space_alone():
    matrix, U, V = known([5.0, 3.0, 1.0], (7, 8), 0)
    merged = repeated("iso_c", {"a": matrix}, 2)["a"]
    torch.testing.assert_close(merged, 6.0 * U @ V.T, atol=1e-4, rtol=1e-4)  # the sum's singular values are 10, 6, 2


def test_iso_c_on_a_sum_of_full_rank_is_the_published_rule():
    expected = {}
    for layer, value in total(DELTAS).items():
        U, S, Vh = np.linalg.svd(value, full_matrices=False)
        expected[layer] = S.mean() * U @ Vh
    weights = follow("iso_c")[3]
    assert close(weights, expected, atol=1e-4)
    assert close(follow("iso_c", strength=0.5)[3], {layer: 0.5 * value for layer, value in expected.items()}, 1e-4)


def test_iso_c_of_no_change_is_no_change():
    assert not repeated("iso_c", {"a": torch.zeros(4, 3)}, 1)["a"].any()


def opcm(deltas, alpha: float) -> dict[str, np.ndarray]:
    """Tang et al.'s rule in double precision, one pair of singular vectors at a time."""

    def size(delta) -> float:
        return np.sqrt(sum((value**2).sum() for value in delta.values()))

    merged, factor, norms = deltas[0], 1.0, [size(deltas[0])]
    for delta in deltas[1:]:
        raw = {}
        for layer, new in delta.items():
            U, s, Vh = np.linalg.svd(merged[layer], full_matrices=False)
            rank = int((s > 1e-5 * s[0]).sum())
            leading = int((np.cumsum(s[:rank]) / s[:rank].sum() <= alpha).sum())
            cleaned = new.copy()
            for i in range(rank):
                for j in range(rank):
                    if i == j or (i < leading and j < leading):
                        cleaned -= (U[:, i] @ new @ Vh[j]) * np.outer(U[:, i], Vh[j])
            raw[layer] = factor * merged[layer] + cleaned
        norms.append(size(delta))
        factor = size(raw) / np.mean(norms)
        merged = {layer: value / factor for layer, value in raw.items()}
    return merged


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_opcm_is_the_published_rule(alpha):
    for count, state in enumerate(follow("opcm", alpha=alpha)[2], start=1):
        assert close(state.merged, opcm(DELTAS[:count], alpha), atol=1e-4)


def test_opcm_on_a_known_svd_removes_the_diagonal_and_the_leading_block():
    method = get_method("opcm", {"alpha": 0.7})
    matrix, U, V = known([6.0, 3.0, 1.0], (7, 8), 2)
    inside = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    first = method.end_task(context(0), State(), factored({"a": matrix}))
    assert same(first.merged, {"a": matrix})
    second = method.end_task(context(1), first, factored({"a": U @ inside @ V.T}))
    # 6 / 10 <= 0.7 < 9 / 10: one leading direction, which the diagonal covers
    expected = matrix + U @ (inside - inside.diag().diag()) @ V.T
    size = (matrix.norm() + inside.norm()) / 2
    torch.testing.assert_close(second.merged["a"], expected / expected.norm() * size, atol=1e-4, rtol=1e-4)


# --- MagMax and SLAO ---


def test_magmax_final_selects_among_all_task_vectors_of_a_sequential_training():
    starts, frozen, states, weights = follow("magmax_final")
    assert all(map(same, starts, FRESH))
    assert frozen[0] == {}
    assert close(frozen[2], total(DELTAS[:2]))
    expected = {}
    for layer in SHAPES:
        vectors = np.cumsum([delta[layer] for delta in DELTAS], axis=0)
        chosen = np.abs(vectors).argmax(axis=0)
        expected[layer] = 0.5 * np.take_along_axis(vectors, chosen[None], axis=0)[0]
    assert close(weights, expected)
    assert len({state.nbytes for state in states}) == 1


def test_slao_starts_orthonormal_from_the_last_training_and_averages_b():
    starts, frozen, states, weights = follow("slao")
    assert same(starts[0], FRESH[0])
    assert frozen == [{}, {}, {}]
    for position in (1, 2):
        for layer, A in starts[position].A.items():
            basis = []
            for row in TRAINED[position - 1].A[layer].double().numpy():  # Gram-Schmidt
                row = row - sum((row @ unit) * unit for unit in basis)
                basis.append(row / np.linalg.norm(row))
            np.testing.assert_allclose(A.numpy(), np.stack(basis), atol=1e-5)
            assert torch.equal(starts[position].B[layer], TRAINED[position - 1].B[layer])
    for layer in SHAPES:
        B1, B2, B3 = (adapter.B[layer] for adapter in TRAINED)
        second = B1 + (B2 - B1) / 2**0.5
        third = second + (B3 - second) / 3**0.5
        torch.testing.assert_close(states[1].adapter.B[layer], second)
        torch.testing.assert_close(states[2].adapter.B[layer], third)
        torch.testing.assert_close(weights[layer], SCALE * third @ TRAINED[2].A[layer])
    assert states[2].adapter.rank == RANK


# --- averages with the previous model ---


def test_coma_goes_part_of_the_way_from_the_previous_model_to_the_trained_one():
    starts, frozen, states, _ = follow("coma", share=0.3)
    assert all(map(same, starts, FRESH))
    model = DELTAS[0]
    for delta, state, before in zip(DELTAS[1:], states[1:], frozen[1:], strict=True):
        assert close(before, model)
        trained = {layer: model[layer] + delta[layer] for layer in SHAPES}
        model = {layer: 0.7 * model[layer] + 0.3 * trained[layer] for layer in SHAPES}
        assert close(state.merged, model)
    assert same(follow("coma", share=1)[3], dense(*TRAINED))


def slope(number: int) -> dict[str, torch.Tensor]:
    """The loss's gradient in a batch; some values never matter."""
    draws = generator("slope", number)
    drawn = {name: torch.randn(value.shape, generator=draws) for name, value in TRAINED[0].tensors().items()}
    for value in drawn.values():
        value[0] = 0
    return drawn


def sloping(position: int, state: State, adapter: Adapter) -> Context:
    """The context after a training; the loss of batch number i is linear, with the gradient `slope(i)`."""
    ctx = in_training(state, adapter, position)
    ctx.batches = lambda count: iter(range(position * count, (position + 1) * count))  # type: ignore[assignment]

    def loss(number: Any) -> torch.Tensor:
        return torch.stack([(slope(number)[name] * theta).sum() for name, theta in ctx.adapter.tensors().items()]).sum()

    ctx.denoising_loss = loss
    return ctx


def test_cofima_weighs_each_value_by_the_two_tasks_fisher_information():
    method, state, count, share = get_method("cofima", {"batches": 2, "share": 0.3}), State(), 2, 0.3
    model: dict[str, np.ndarray] = {}
    for position, adapter in enumerate(TRAINED):
        before = state.adapter
        ctx = sloping(position, state, adapter)
        start = method.begin_task(ctx, state)
        assert start is not None
        assert same(start, before or FRESH[position])
        state = method.end_task(ctx, state, adapter)
        assert state.adapter is not None
        for name, theta in adapter.tensors().items():
            now, F = theta.numpy(), fisher(position, name, count)
            if before is not None:
                old, new = (1 - share) * fisher(position - 1, name, count), share * F
                averaged = np.divide(old * model[name] + new * now, old + new, where=old + new > 0, out=0 * now)
                now = np.where(old + new > 0, averaged, (1 - share) * model[name] + share * now)
            model[name] = now
            np.testing.assert_allclose(state.adapter.tensors()[name].numpy(), now, atol=1e-4)
            np.testing.assert_allclose(state.extra[name].numpy(), F, rtol=1e-5)


def fisher(position: int, name: str, count: int) -> np.ndarray:
    return np.mean([slope(position * count + i)[name].numpy() ** 2 for i in range(count)], axis=0)
