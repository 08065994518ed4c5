"""O-LoRA and orthogonal adaptation against their equations."""

import numpy as np
import pytest
import torch
from following import SCALE, SHAPES, TRAINED, context, dense, follow, in_training, penalty, same

from clbench.plugins import get_method
from clbench.state import State


def test_o_lora_penalises_the_overlap_of_rows_with_those_of_every_earlier_task():
    _, _, states, weights = follow("o_lora")
    assert same(weights, dense(*TRAINED))
    assert [states[i].extra[f"A/{layer}"].shape[0] for i in range(3) for layer in SHAPES] == [3, 3, 6, 6, 9, 9]
    ctx = in_training(states[1], TRAINED[2])
    expected = 0.0
    for layer in SHAPES:
        for earlier in TRAINED[:2]:
            expected += np.abs(earlier.A[layer].numpy() @ TRAINED[2].A[layer].numpy().T).sum()
    assert penalty("o_lora", ctx) == pytest.approx(0.5 * expected, rel=1e-5)
    assert penalty("o_lora", in_training(State(), TRAINED[0])) == 0


def test_o_lora_charges_nothing_for_orthogonal_rows():
    _, _, states, _ = follow("o_lora")
    ctx = in_training(states[0], TRAINED[1])
    for layer, A in ctx.adapter.A.items():
        past = states[0].extra[f"A/{layer}"]
        basis = torch.linalg.qr(past.T).Q
        A.data -= A.data @ basis @ basis.T
    assert penalty("o_lora", ctx) < 1e-4


def test_orthogonal_adaptation_gives_each_task_rows_of_one_orthogonal_basis():
    shapes, method, state, starts = {"a": (4, 9), "b": (5, 12)}, get_method("orthogonal_adaptation"), State(), []
    for position in range(4):
        ctx = context(position, shapes=shapes)
        starts.append(method.begin_task(ctx, state))
        assert method.frozen(state) == {}
        state = method.end_task(ctx, state, starts[-1])
    for layer, rows in (("a", 9), ("b", 12)):
        stacked = torch.cat([start.A[layer] for start in starts])[:rows]
        torch.testing.assert_close(stacked @ stacked.T, torch.eye(rows), atol=1e-5, rtol=0)
        assert not any(start.B[layer].any() for start in starts)
    assert torch.equal(starts[3].A["a"], starts[0].A["a"])  # its nine rows are used up


def test_orthogonal_adaptation_sums_a_share_of_each_change_and_trains_b_alone():
    _, _, states, weights = follow("orthogonal_adaptation")
    assert same(weights, {layer: 0.6 * value for layer, value in dense(*TRAINED).items()})
    assert all(state.extra.keys() == {"seed"} for state in states)
    ctx = in_training(states[0], TRAINED[1])
    get_method("orthogonal_adaptation").on_gradients(ctx)
    assert all(A.grad is None for A in ctx.adapter.A.values())
    assert all(B.grad is not None for B in ctx.adapter.B.values())
    assert ctx.adapter.scale == SCALE
