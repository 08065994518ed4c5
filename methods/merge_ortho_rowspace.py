from dataclasses import replace

from clbench import Method


class MergeOrthoRowspace(Method):
    """Merge as `merge_init` does, and start each A outside the input directions that the merged change reads most.

    The paper's start makes each column of A orthogonal to one past column, which says nothing about the layer's
    inputs; orthogonal rows do: at its start a new adapter reads nothing that the merged change reads.

    A_t = G_t (I - V V^T) at the start, with G_t a fresh random start and V [in, r] the top r right singular vectors
    of the merged change D_{t-1}; B_t = 0; D_t = D_{t-1} + scale B_t A_t, and the model is W_0 + D_t.

    Passed on: the merged model.
    Settings: none. One SVD per layer and task: a second for all of mini-v2; on SDXL up to 1280 x 2048, some ten
    minutes.
    """

    name = "merge_ortho_rowspace"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "The paper's orthogonal start is on columns (`merge_ortho`); this variant is not in the paper."

    def begin_task(self, ctx, state):
        fresh = ctx.fresh_adapter()
        return replace(fresh, A={k: _outside(A, state.merged.get(k)) for k, A in fresh.A.items()})


def _outside(A, merged):
    """A [r, in] without its part along the top r right singular vectors of `merged` [out, in]."""
    import torch

    if merged is None:
        return A
    s, Vh = torch.linalg.svd(merged, full_matrices=False)[1:]
    V = Vh[: len(A)][s[: len(A)] > s[0] * max(merged.shape) * torch.finfo(s.dtype).eps]
    return A - A @ V.T @ V
