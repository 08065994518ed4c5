from dataclasses import replace

from clbench import Method
from clbench.lora import orthogonal_columns


class MergeOrthoScaled(Method):
    """Start and merge as `merge_ortho` does, but with columns of A as long as a random start's.

    `merge_ortho` starts A with unit columns, which are sqrt(r) times longer than those of the other methods' random
    start (8 times at rank 64); this isolates the orthogonal direction from the larger size.

    A_t^(i) = |G_t^(i)| times the last right singular vector of (A_1 + ... + A_{t-1})^(i), with G_t a fresh random
    start, and B_t = 0; the model is W_0 + scale (B_1 + ... + B_t)(A_1 + ... + A_t), cross terms included.

    Passed on: the adapter (the factors' sums).
    Settings: none.
    """

    name = "merge_ortho_scaled"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "The paper's start has unit columns, which `merge_ortho` keeps."

    def begin_task(self, ctx, state):
        fresh = ctx.fresh_adapter()
        if state.adapter is None:
            return fresh
        past = state.adapter.A
        return replace(fresh, A={k: orthogonal_columns(past[k]) * A.norm(dim=0) for k, A in fresh.A.items()})

    def frozen(self, state):
        return self.weights(state)

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter if state.adapter is None else state.adapter + adapter)
