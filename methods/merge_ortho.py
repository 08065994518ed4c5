from dataclasses import replace

from clbench import Method
from clbench.lora import orthogonal_columns


class MergeOrtho(Method):
    """Start each A with unit columns orthogonal to the columns of the factors' sum, then add the factors.

    A_t^(i) = last right singular vector of (A_1 + ... + A_{t-1})^(i) and B_t = 0 at the start of task t (Eq. 1); the
    model is W_0 + scale (B_1 + ... + B_t)(A_1 + ... + A_t), as published: cross terms that nothing trained included.

    Passed on: the adapter (the factors' sums).
    Settings: none.
    """

    name = "merge_ortho"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = "None: `merge_ortho_products`, `merge_ortho_scaled` and `merge_ortho_rowspace` each change one thing."

    def begin_task(self, ctx, state):
        fresh = ctx.fresh_adapter()
        if state.adapter is None:
            return fresh
        return replace(fresh, A={layer: orthogonal_columns(A) for layer, A in state.adapter.A.items()})

    def frozen(self, state):
        return self.weights(state)

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter if state.adapter is None else state.adapter + adapter)
