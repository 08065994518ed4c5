from clbench import Method


class Naive(Method):
    """Go on training the same adapter.

    {A_t, B_t} starts from {A_{t-1}, B_{t-1}}; the model is W_0 + scale B_t A_t.

    Passed on: the adapter.
    Settings: none.
    """

    name = "naive"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = "None."

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter)
