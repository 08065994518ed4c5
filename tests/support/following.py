"""Hooks called as the engine calls them, on three adapters that training could have made, and what to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from clbench.lora import Adapter
from clbench.method import Context
from clbench.plugins import get_method
from clbench.state import State
from clbench.utils.seeding import generator

SHAPES = {"attn1.to_q": (6, 5), "attn2.to_k": (7, 8)}
RANK, SCALE = 3, 0.5


def context(position: int = 0, seed: int = 0, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Context:
    def never(*_):
        raise AssertionError("not needed here")

    return Context(
        position=position,
        task="boot",
        prompt="a boot",
        rank=RANK,
        scale=SCALE,
        shapes=shapes,
        generator=generator(seed, "method", position),
        state=State(),
        modules={},
        sample=never,
        base_weight=never,
        training=never,  # type: ignore[arg-type]
    )


def trained(seed: int) -> Adapter:
    """What training could have made."""
    draws = generator("trained", seed)
    return Adapter(
        {name: torch.randn(RANK, inputs, generator=draws) for name, (_, inputs) in SHAPES.items()},
        {name: torch.randn(outputs, RANK, generator=draws) for name, (outputs, _) in SHAPES.items()},
        SCALE,
    )


TRAINED = [trained(0), trained(1), trained(2)]
FRESH = [context(position).fresh_adapter() for position in range(3)]


def follow(name: str, **settings):
    """Three tasks: how each adapter starts, what is frozen meanwhile, the states after each, and the last weights."""
    method, state = get_method(name, settings), State()
    starts, frozen, states = [], [], []
    for position, adapter in enumerate(TRAINED):
        ctx = replace(context(position), state=state)
        starts.append(method.begin_task(ctx, state))
        frozen.append(method.frozen(state))
        state = method.end_task(ctx, state, adapter)
        states.append(state)
    return starts, frozen, states, method.weights(state)


def same(a, b) -> bool:
    """Equal tensors under equal names, to the last bits of fp32."""
    a, b = (State(adapter=x).tensors() if isinstance(x, Adapter) else dict(x) for x in (a, b))
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def dense(*adapters: Adapter) -> dict[str, torch.Tensor]:
    """The sum of the products: scale * (B_1 A_1 + B_2 A_2 + ...)."""
    return {name: sum((SCALE * a.B[name] @ a.A[name] for a in adapters), torch.zeros(SHAPES[name])) for name in SHAPES}


def summed(*adapters: Adapter) -> Adapter:
    """The sums of the factors."""
    return Adapter(
        {name: sum((a.A[name] for a in adapters[1:]), adapters[0].A[name]) for name in SHAPES},
        {name: sum((a.B[name] for a in adapters[1:]), adapters[0].B[name]) for name in SHAPES},
        SCALE,
    )


def live(adapter: Adapter) -> Adapter:
    """The adapter as training sees it: parameters, with gradients of 0."""
    copy = adapter.detach()
    for value in copy.tensors().values():
        value.requires_grad_().grad = torch.zeros_like(value)
    return copy


def in_training(state: State, adapter: Adapter, position: int = 1) -> Context:
    """The context in the middle of a task that began with `state`, with a live adapter of these values."""
    return replace(context(position), state=state, adapter=live(adapter))


def penalty(name: str, ctx: Context, **settings: Any) -> float:
    """What a method that looks at no batch adds to the loss."""
    no_batch: Any = None
    return float(torch.as_tensor(get_method(name, settings).loss(ctx, no_batch)).detach())


class Layer(nn.Module):
    """A linear layer with a live adapter, as PEFT computes it."""

    def __init__(self, adapter: Adapter, layer: str) -> None:
        super().__init__()
        self.adapter, self.layer = adapter, layer
        self.weight = torch.randn(SHAPES[layer], generator=generator("weight", layer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        A, B = self.adapter.A[self.layer], self.adapter.B[self.layer]
        return x @ self.weight.T + self.adapter.scale * (x @ A.T) @ B.T


def with_layers(ctx: Context, batches: list[dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> Context:
    """The context with a model of single layers, whose loss is linear in what they return.

    Args:
        batches: what `ctx.batches` gives; layer -> its inputs [N, tokens, in] and the loss's gradient with respect to
            its outputs [N, tokens, out].
    """
    layers = {name: Layer(ctx.adapter, name) for name in SHAPES}
    ctx.modules = layers

    def loss(batch: Any) -> torch.Tensor:
        terms = [(layers[name](x) * gradient).sum() for name, (x, gradient) in batch.items()]
        return torch.stack(terms).sum()

    ctx.batches = lambda count: iter(batches[:count])  # type: ignore[assignment]
    ctx.denoising_loss = loss
    ctx.base_weight = lambda layer: layers[layer].weight.clone()
    return ctx
