from dataclasses import replace

from clbench import Method
from clbench.lora import orthogonal_columns


class MergeOrthoProducts(Method):
    """Start each A as `merge_ortho` does, but add the products B A, so that nothing untrained enters the model.

    A_t^(i) = last right singular vector of (A_1 + ... + A_{t-1})^(i) and B_t = 0 at the start of task t; the model is
    W_0 + scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and the adapter (the sum of A, which the next start needs).
    Settings: none.
    """

    name = "merge_ortho_products"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = "The paper and its released code add the factors, which `merge_ortho` keeps."

    def begin_task(self, ctx, state):
        fresh = ctx.fresh_adapter()
        if state.adapter is None:
            return fresh
        return replace(fresh, A={layer: orthogonal_columns(A) for layer, A in state.adapter.A.items()})

    def frozen(self, state):
        return state.merged

    def weights(self, state):
        return state.merged

    def end_task(self, ctx, state, adapter):
        summed = adapter if state.adapter is None else state.adapter + adapter
        return state.with_merged(state.merged + adapter.delta()).with_adapter(summed)
