"""The variants that isolate what the paper and its released code disagree on."""

import numpy as np
import torch
from following import FRESH, RANK, SHAPES, TRAINED, dense, follow, same, summed

from clbench.lora import Adapter


def test_magmax_factors_selects_entry_by_entry_on_a_and_on_b():
    starts, frozen, states, weights = follow("magmax_factors")
    assert all(map(same, starts, FRESH))

    def largest(factor: str, layer: str) -> torch.Tensor:
        stacked = np.stack([getattr(adapter, factor)[layer].numpy() for adapter in TRAINED])
        chosen = np.abs(stacked).argmax(axis=0)
        return torch.from_numpy(np.take_along_axis(stacked, chosen[None], axis=0)[0])

    kept = Adapter(
        {layer: largest("A", layer) for layer in SHAPES},
        {layer: largest("B", layer) for layer in SHAPES},
        TRAINED[0].scale,
    )
    assert same(states[2].adapter, kept)
    assert not states[2].merged
    assert same(weights, dense(kept))
    assert frozen[0] == {}
    assert same(frozen[1], dense(TRAINED[0]))


def test_merge_init_fixed_seed_starts_every_task_from_the_first_tasks_a():
    starts, frozen, states, weights = follow("merge_init_fixed_seed")
    assert all(same(start, FRESH[0]) for start in starts)
    assert same(frozen[2], dense(*TRAINED[:2]))
    assert same(weights, dense(*TRAINED))
    assert all(state.extra["seed"] == states[0].extra["seed"] for state in states)


def test_merge_ortho_scaled_starts_in_merge_orthos_directions_with_a_random_starts_lengths():
    starts, frozen, states, weights = follow("merge_ortho_scaled")
    theirs = follow("merge_ortho")
    assert same(starts[0], FRESH[0])
    for position in (1, 2):
        for layer, A in starts[position].A.items():
            torch.testing.assert_close(A.norm(dim=0), FRESH[position].A[layer].norm(dim=0))
            torch.testing.assert_close(A / A.norm(dim=0), theirs[0][position].A[layer])
    assert same(states[2].adapter, summed(*TRAINED))
    assert all(map(same, frozen, theirs[1]))
    assert same(weights, theirs[3])


def test_merge_ortho_rowspace_starts_where_the_merged_change_reads_nothing():
    starts, frozen, states, weights = follow("merge_ortho_rowspace")
    assert same(starts[0], FRESH[0])
    for layer, A in starts[1].A.items():  # the merged change has rank r, so that all of it is avoided
        assert (frozen[1][layer] @ A.T).abs().max() < 1e-5
    for position in (1, 2):
        for layer, A in starts[position].A.items():
            V = np.linalg.svd(frozen[position][layer].numpy())[2][:RANK].T
            expected = FRESH[position].A[layer].numpy() @ (np.eye(len(V)) - V @ V.T)
            np.testing.assert_allclose(A.numpy(), expected, atol=1e-5)
    assert same(weights, dense(*TRAINED))
    assert not states[2].extra
