"""Distillation: the second target against its equation, and what is left of the method without it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from following import TRAINED, dense, follow, in_training, penalty, same

from clbench.plugins import get_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.state import State, digest
from clbench.utils.seeding import generator

LIVE, BEFORE = torch.randn(2, 3, 4, 5, 5, generator=generator("predictions"))


def test_lwf_merges_each_adapter():
    _, frozen, _, weights = follow("lwf")
    assert same(frozen[2], dense(*TRAINED[:2]))
    assert same(weights, dense(*TRAINED))


def test_lwf_asks_for_what_the_previous_model_predicts():
    asked = []

    def predict(batch: Any, prompts: Any = None, weights: Any = None) -> torch.Tensor:
        asked.append((prompts, weights))
        return BEFORE

    state = State().with_merged(dense(TRAINED[0]))
    live = LIVE.clone().requires_grad_()
    ctx = replace(in_training(state, TRAINED[1]), predict=predict, predicted=live)
    difference = LIVE.numpy() - BEFORE.numpy()
    assert penalty("lwf", ctx) == pytest.approx((difference**2).mean(), rel=1e-5)
    assert penalty("lwf", ctx, strength=3) == pytest.approx(3 * (difference**2).mean(), rel=1e-5)
    assert all(prompts is None and weights is state.merged for prompts, weights in asked)
    no_batch: Any = None
    torch.as_tensor(get_method("lwf").loss(ctx, no_batch)).backward()
    assert live.grad is not None
    np.testing.assert_allclose(live.grad.numpy(), 2 * difference / difference.size, rtol=1e-4, atol=1e-7)


def test_lwf_has_no_second_target_in_the_first_task():
    assert penalty("lwf", in_training(State(), TRAINED[0], position=0)) == 0


def test_lwf_of_strength_0_is_merge_init_to_the_last_bit_and_of_strength_1_is_not(runtime):
    def after_two(name: str, **settings: Any) -> str:
        return digest(TaskSequence(runtime, get_method(name, settings), "forward", 0).state(1).tensors())

    assert after_two("lwf", strength=0) == after_two("merge_init") != after_two("lwf")
