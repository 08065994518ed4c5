"""Methods that keep new tasks out of a subspace, against their equations in numpy, on known inputs and on a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from following import RANK, SCALE, SHAPES, TRAINED, dense, in_training, same, with_layers

from clbench.lora import Adapter
from clbench.method import Context
from clbench.plugins import get_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.state import State
from clbench.utils.seeding import generator

COUNT = 2
START = Adapter(TRAINED[0].A, {layer: torch.zeros_like(B) for layer, B in TRAINED[0].B.items()}, SCALE)


def batches(task: int) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Inputs, a few directions of which hold the most, and gradients of outputs."""
    draws, drawn = generator("subspaces", task), []
    turned = {name: torch.linalg.qr(torch.randn(n, n, generator=draws)).Q for name, (_, n) in SHAPES.items()}
    for _ in range(COUNT):
        batch = {}
        for name, (outputs, inputs) in SHAPES.items():
            x = torch.randn(4, 3, inputs, generator=draws) * 0.5 ** torch.arange(inputs) @ turned[name]
            batch[name] = x, torch.randn(4, 3, outputs, generator=draws)
        drawn.append(batch)
    return drawn


def columns(task: int, layer: str) -> np.ndarray:
    """All of a layer's inputs, [in, n]."""
    return np.concatenate([batch[layer][0].flatten(0, 1).double().numpy() for batch in batches(task)]).T


def remembered(F: np.ndarray, X: np.ndarray, share: float) -> np.ndarray:
    """Saha et al., Eq. 8 and 9, one direction at a time."""
    total = (np.linalg.svd(X)[1] ** 2).sum()
    U, S, _ = np.linalg.svd(X - F @ F.T @ X, full_matrices=False)
    held, count = (total - (S**2).sum()) / total, 0
    while held < share and count < len(S):
        held, count = held + S[count] ** 2 / total, count + 1
    return np.hstack([F, U[:, :count]])


def leading(matrix: np.ndarray, count: int) -> np.ndarray:
    """The projector [in, in] on the first left singular vectors of a matrix [in, n] whose singular values are not 0."""
    U, S, _ = np.linalg.svd(matrix, full_matrices=False)
    U = U[:, : min(count, int((S / S[0] > 1e-6).sum()))]
    return U @ U.T


def close(found: torch.Tensor, expected: np.ndarray) -> bool:
    return np.allclose(found.numpy(), expected, atol=1e-4)


def during(position: int, state: State, adapter: Adapter = START) -> Context:
    return with_layers(in_training(state, adapter, position), batches(position))


def states(name: str, **settings: Any) -> tuple[list[Adapter], list[State]]:
    """Three tasks: what `prepare` gives, and the states before and after each."""
    method, state, starts, found = get_method(name, {"batches": COUNT, **settings}), State(), [], [State()]
    for position, adapter in enumerate(TRAINED):
        starts.append(method.prepare(during(position, state), START))
        trained = adapter if name == "gpm" else replace(adapter, A=starts[-1].A)
        state = method.end_task(during(position, state, trained), state, trained)
        found.append(state)
    return starts, found


def empty(layer: str) -> np.ndarray:
    return np.zeros((SHAPES[layer][1], 0))


# --- GPM ---


@pytest.mark.parametrize(("threshold", "growth"), [(0.97, 0.003), (0.5, 0.2), (1.0, 0.0)])
def test_gpm_remembers_what_holds_most_of_each_tasks_inputs(threshold, growth):
    _, after = states("gpm", threshold=threshold, growth=growth)
    for layer in SHAPES:
        F = empty(layer)
        for position in range(3):
            F = remembered(F, columns(position, layer), min(1.0, threshold + growth * position))
            found = after[position + 1].extra[layer]
            assert found.shape == F.shape
            assert close(found @ found.T, F @ F.T)
    assert same(after[3].merged, dense(*TRAINED))


def test_gpm_keeps_a_its_gradient_and_its_steps_outside_the_memory():
    starts, after = states("gpm")
    method, ctx = get_method("gpm", {"batches": COUNT}), during(1, after[1])
    assert same(starts[0], START)
    method.prepare(ctx, START)
    before = {}
    for layer, A in ctx.adapter.A.items():
        A.grad = before[layer] = torch.randn(A.shape, generator=generator("gradient", layer))
    method.on_gradients(ctx)
    method.after_step(ctx)
    for layer, F in ((name, basis.numpy()) for name, basis in after[1].extra.items()):
        P = np.eye(len(F)) - F @ F.T
        A, grad = ctx.adapter.A[layer].detach(), ctx.adapter.A[layer].grad
        assert grad is not None
        np.testing.assert_allclose(starts[1].A[layer].numpy(), START.A[layer].numpy() @ P, atol=1e-5)
        np.testing.assert_allclose(grad.numpy(), before[layer].numpy() @ P, atol=1e-5)
        np.testing.assert_allclose(A.numpy(), START.A[layer].numpy() @ P, atol=1e-5)


def test_gpm_changes_nothing_for_inputs_that_it_remembers():
    method = get_method("gpm", {"batches": COUNT, "threshold": 1})
    state = State().with_extra(**{layer: torch.eye(n)[:, :2] for layer, (_, n) in SHAPES.items()})
    ctx = during(1, state, TRAINED[1])
    method.prepare(ctx, TRAINED[1])
    method.after_step(ctx)
    for change in ctx.adapter.detach().delta().values():
        assert not change[:, :2].any()
        assert change[:, 2:].all()


# --- InfLoRA ---


def test_inflora_reads_the_main_directions_of_the_inputs_outside_the_memory():
    starts, after = states("inflora", threshold=0.8, tasks=4)
    for layer in SHAPES:
        F = empty(layer)
        for position in range(3):
            X = columns(position, layer)
            R = X @ X.T / X.shape[1]
            A = starts[position].A[layer]
            assert close(3 * A.T @ A, leading(R - F @ F.T @ R, RANK))
            assert np.allclose(A.numpy() @ F, 0, atol=1e-5)
            F = remembered(F, R, 0.8 + 0.2 * position / 4)
            found = after[position + 1].extra[layer]
            assert close(found @ found.T, F @ F.T)
    assert not any(B.any() for start in starts for B in start.B.values())
    trained = [replace(adapter, A=start.A) for adapter, start in zip(TRAINED, starts, strict=True)]
    assert same(after[3].merged, dense(*trained))


def test_inflora_has_no_rows_where_everything_is_remembered():
    method = get_method("inflora", {"batches": COUNT})
    state = State().with_extra(**{layer: torch.eye(n) for layer, (_, n) in SHAPES.items()})
    assert not any(A.any() for A in method.prepare(during(1, state), START).A.values())


@pytest.mark.parametrize("name", ["inflora", "keep_lora"])
def test_b_alone_is_trained(name):
    ctx = during(1, State())
    get_method(name).on_gradients(ctx)
    assert all(A.grad is None for A in ctx.adapter.A.values())
    assert all(B.grad is not None for B in ctx.adapter.B.values())


# --- KeepLoRA ---


def test_keep_lora_reads_the_gradients_directions_outside_base_weights_and_memory():
    starts, after = states("keep_lora", weights=0.5, inputs=0.8)
    for layer in SHAPES:
        W = during(0, State()).base_weight(layer).double().numpy()
        F = remembered(empty(layer), W.T, 0.5)
        for position in range(3):
            terms = [(g.flatten(0, 1).T @ x.flatten(0, 1)).double() for x, g in (b[layer] for b in batches(position))]
            G = np.mean([term.numpy() for term in terms], axis=0)
            A = starts[position].A[layer]
            assert close(A.T @ A, leading((G - G @ F @ F.T).T, RANK))
            assert np.allclose(A.numpy() @ F, 0, atol=1e-5)
            F = remembered(F, columns(position, layer), 0.8)
            found = after[position + 1].extra[layer]
            assert close(found @ found.T, F @ F.T)
    assert not any(B.any() for start in starts for B in start.B.values())


# --- OPLoRA ---


def test_oplora_trains_as_if_the_product_were_projected_on_both_sides():
    method, rate, k = get_method("oplora", {"directions": 2}), 0.1, 2
    ctx = during(1, State(), TRAINED[1])
    start = method.prepare(ctx, TRAINED[1])
    for layer, A in ctx.adapter.A.items():
        A.data.copy_(start.A[layer])
    layer = "attn2.to_k"
    U, _, Vh = np.linalg.svd(ctx.base_weight(layer).numpy())
    left, right = np.eye(len(U)) - U[:, :k] @ U[:, :k].T, np.eye(len(Vh)) - Vh[:k].T @ Vh[:k]
    P_L, P_R = (torch.from_numpy(P).float() for P in (left, right))
    target = torch.randn(SHAPES[layer], generator=generator("target"))
    A, B = (factor[layer].clone().requires_grad_() for factor in (TRAINED[1].A, TRAINED[1].B))
    live: list[Any] = [ctx.adapter.A[layer], ctx.adapter.B[layer]]
    with torch.no_grad():
        live[1].copy_(P_L @ B)  # otherwise 0 at the start
    ours, theirs = (torch.optim.AdamW(factors, lr=rate, weight_decay=0.1) for factors in (live, [A, B]))
    for _ in range(5):
        for optimizer, product in ((ours, live[1] @ live[0]), (theirs, P_L @ B @ A @ P_R)):
            optimizer.zero_grad()
            for factor in (*ctx.adapter.A.values(), *ctx.adapter.B.values()):
                factor.grad = torch.zeros_like(factor) if factor.grad is None else factor.grad
            (product - target).square().sum().backward()
            if optimizer is ours:
                method.on_gradients(ctx)
            optimizer.step()
        method.after_step(ctx)
    torch.testing.assert_close(live[1] @ live[0], P_L @ B @ A @ P_R, atol=1e-4, rtol=1e-4)
    assert (A - TRAINED[1].A[layer]).norm() > 0.5


def test_oplora_leaves_the_base_weights_main_directions_as_they_are(runtime):
    state = TaskSequence(runtime, get_method("oplora", {"directions": 3}), "forward", 0).state(1)
    assert any(change.any() for change in state.merged.values())
    for layer, change in state.merged.items():
        U, S, Vh = torch.linalg.svd(runtime.backbone.base_weight(layer))
        changed = runtime.backbone.base_weight(layer) + change
        torch.testing.assert_close(changed @ Vh[:3].T, U[:, :3] * S[:3], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(U[:, :3].T @ changed, S[:3, None] * Vh[:3], atol=1e-4, rtol=1e-4)


# --- on a model ---


@pytest.mark.parametrize("name", ["gpm", "inflora", "keep_lora"])
def test_a_task_changes_the_model_outside_what_is_remembered_alone(runtime, name):
    sequence = TaskSequence(runtime, get_method(name, {"batches": 2}), "forward", 0)
    first, second = sequence.state(0), sequence.state(1)
    assert any(basis.shape[1] for basis in first.extra.values())
    assert any(basis.shape[1] < basis.shape[0] for basis in first.extra.values())
    change = second.merged - first.merged
    assert any(value.any() for value in change.values())
    for layer, basis in first.extra.items():
        assert (change[layer] @ basis).norm() <= 1e-5 * change[layer].norm() + 1e-8
