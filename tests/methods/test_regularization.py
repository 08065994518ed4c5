"""Penalties and importances against their equations, on adapters whose gradients are known."""

from typing import Any

import numpy as np
import pytest
import torch
from following import FRESH, SCALE, SHAPES, TRAINED, Layer, dense, follow, in_training, penalty, same

from clbench.lora import Adapter
from clbench.method import Context, Method
from clbench.plugins import get_method
from clbench.state import State
from clbench.utils.seeding import generator

AFTER_ONE, ANCHOR = State(adapter=TRAINED[0]), TRAINED[0].tensors()
NAMES = list(ANCHOR)
COUNT = 3


def noise(seed: int) -> dict[str, torch.Tensor]:
    draws = generator("noise", seed)
    return {name: torch.randn(value.shape, generator=draws) for name, value in ANCHOR.items()}


def squares(adapter: Adapter, importance) -> float:
    """sum_i importance_i (theta_i - theta*_i)^2, with theta* the first task's."""
    theta = adapter.tensors()
    return sum((np.asarray(importance[name]) * (theta[name] - ANCHOR[name]).numpy() ** 2).sum() for name in NAMES)


def charged(name: str, state: State, adapter: Adapter = TRAINED[1], **settings) -> float:
    return penalty(name, in_training(state, adapter), **settings)


def ones() -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(value) for name, value in noise(0).items()}


@pytest.mark.parametrize("name", ["l2_anchor", "ewc", "mas", "c_lora"])
def test_nothing_is_penalised_in_the_first_task(name):
    assert penalty(name, in_training(State(), TRAINED[0], position=0)) == 0


def test_l2_anchor_is_the_squared_distance_from_what_was_handed_on():
    assert charged("l2_anchor", AFTER_ONE) == pytest.approx(1e-3 * squares(TRAINED[1], ones()), rel=1e-5)
    assert charged("l2_anchor", AFTER_ONE, TRAINED[0]) == 0
    starts, frozen, states, weights = follow("l2_anchor")
    assert all(map(same, starts, [FRESH[0], *TRAINED[:2]]))
    assert frozen == [{}, {}, {}]
    assert same(states[2].adapter, TRAINED[2])
    assert same(weights, dense(TRAINED[2]))


def test_ewc_with_equal_importances_is_l2():
    state = AFTER_ONE.with_extra(**ones())
    assert charged("ewc", state, strength=0.7) == pytest.approx(charged("l2_anchor", AFTER_ONE, strength=0.7), rel=1e-6)


def test_ewc_weighs_each_value_by_its_information():
    fisher = {name: value.square() for name, value in noise(1).items()}
    state = AFTER_ONE.with_extra(**fisher)
    assert charged("ewc", state) == pytest.approx(5e4 * squares(TRAINED[1], fisher), rel=1e-5)


def with_gradients(ctx: Context) -> Context:
    """Batch number i's loss is linear in the values, with the gradient `noise(i)`."""
    ctx.batches = lambda count: iter(range(count))  # type: ignore[assignment]

    def loss(number: Any) -> Any:
        return sum((noise(number)[name] * theta).sum() for name, theta in ctx.adapter.tensors().items())

    ctx.denoising_loss = loss
    return ctx


def test_ewcs_information_is_the_mean_squared_gradient_added_to_the_decayed_past():
    method = get_method("ewc", {"batches": COUNT, "decay": 0.5})
    first = method.end_task(with_gradients(in_training(State(), TRAINED[0], 0)), State(), TRAINED[0])
    second = method.end_task(with_gradients(in_training(first, TRAINED[1])), first, TRAINED[1])
    for name in NAMES:
        mean = np.mean([noise(i)[name].numpy() ** 2 for i in range(COUNT)], axis=0)
        np.testing.assert_allclose(first.extra[name].numpy(), mean, rtol=1e-5)
        np.testing.assert_allclose(second.extra[name].numpy(), 1.5 * mean, rtol=1e-5)
    assert same(second.adapter, TRAINED[1])


def started(method: Method, state: State) -> Adapter:
    start = method.begin_task(in_training(state, TRAINED[0]), state)
    assert start is not None
    return start


def test_sis_importance_is_the_loss_that_each_value_saved_over_its_squared_way():
    method, rate = get_method("si", {"strength": 2.0}), 0.1
    omega = {name: value.abs() for name, value in noise(9).items()}
    state = AFTER_ONE.with_extra(**omega)
    ctx = in_training(state, started(method, state))
    saved = {name: np.zeros(value.shape) for name, value in noise(0).items()}
    for step in range(COUNT):
        live: dict[str, Any] = ctx.adapter.tensors()
        for name, theta in live.items():
            theta.grad = noise(step)[name].clone()
        before = {name: theta.detach().numpy().copy() for name, theta in live.items()}
        method.on_gradients(ctx)
        for name, theta in live.items():
            pull = 2 * 2.0 * omega[name] * (theta.detach() - TRAINED[0].tensors()[name])
            torch.testing.assert_close(theta.grad, noise(step)[name] + pull)
            theta.data -= rate * theta.grad
            saved[name] -= noise(step)[name].numpy() * (theta.detach().numpy() - before[name])
    end = ctx.adapter.detach()
    after = method.end_task(ctx, state, end)
    for name in NAMES:
        way = (end.tensors()[name] - TRAINED[0].tensors()[name]).numpy() ** 2
        expected = omega[name].numpy() + saved[name] / (way + 0.01)
        np.testing.assert_allclose(after.extra[name].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert same(after.adapter, end)


def test_sis_first_task_is_not_held_and_its_importance_begins_at_zero():
    method = get_method("si")
    ctx = in_training(State(), started(method, State()), 0)
    method.on_gradients(ctx)  # no gradient, so that nothing is saved
    live: list[Any] = [*ctx.adapter.tensors().values()]
    assert not any(theta.grad.any() for theta in live)
    assert not any(value.any() for value in method.end_task(ctx, State(), TRAINED[0]).extra.values())


def test_mas_importance_is_the_mean_sensitivity_of_each_layers_squared_output():
    method = get_method("mas", {"batches": 2})
    ctx = in_training(State(), TRAINED[0], 0)
    layers = {name: Layer(ctx.adapter, name) for name in SHAPES}
    ctx.modules = layers
    inputs = [
        {name: torch.randn(4, 3, shape[1], generator=generator("x", name, i)) for name, shape in SHAPES.items()}
        for i in range(2)
    ]
    ctx.batches = lambda count: iter(inputs[:count])  # type: ignore[assignment]

    def run(batch) -> torch.Tensor:
        for name, layer in layers.items():
            layer(batch[name])
        return torch.tensor(0.0)

    ctx.denoising_loss = run
    state = method.end_task(ctx, State(), TRAINED[0])
    for name, layer in layers.items():
        expected = {factor: torch.zeros_like(getattr(ctx.adapter, factor)[name]) for factor in "AB"}
        for batch in inputs:
            for sample in batch[name]:
                values = [ctx.adapter.A[name], ctx.adapter.B[name]]
                gradients = torch.autograd.grad(layer(sample).square().sum(), values)
                for factor, gradient in zip("AB", gradients, strict=True):
                    expected[factor] += gradient.abs() / 8
        for factor in "AB":
            torch.testing.assert_close(state.extra[f"adapter.{factor}/{name}"], expected[factor], rtol=1e-4, atol=1e-4)
        assert not layer._forward_hooks
    omega = state.extra
    assert charged("mas", AFTER_ONE.with_extra(**omega)) == pytest.approx(2.5 * squares(TRAINED[1], omega), rel=1e-5)


def test_c_lora_penalises_changing_what_was_changed_without_loras_scale():
    _, _, states, weights = follow("c_lora")
    assert same(weights, dense(*TRAINED))
    expected = 0.0
    for layer in SHAPES:
        past = sum(adapter.B[layer].numpy() @ adapter.A[layer].numpy() for adapter in TRAINED[:2])
        expected += ((past * (TRAINED[2].B[layer].numpy() @ TRAINED[2].A[layer].numpy())) ** 2).sum()
    assert charged("c_lora", states[1], TRAINED[2], strength=3) == pytest.approx(3 * expected, rel=1e-5)
    assert TRAINED[0].scale == SCALE != 1


def test_c_lora_leaves_untouched_weights_free():
    A = {layer: torch.zeros_like(value) for layer, value in TRAINED[1].A.items()}
    for layer in A:
        A[layer][:, 1:] = TRAINED[1].A[layer][:, 1:]
    past = State().with_merged({layer: torch.zeros(shape) for layer, shape in SHAPES.items()})
    for value in past.merged.values():
        value[:, 0] = 1.0
    assert charged("c_lora", past, Adapter(A, TRAINED[1].B, SCALE)) == 0
    assert charged("c_lora", past) > 0
