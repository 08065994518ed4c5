from clbench import Method
from clbench.lora import max_magnitude


class MagMax(Method):
    """Keep, for every weight, the change of larger magnitude: the kept one so far or the new task's.

    delta_t = MAGMAX(delta_{t-1}, scale B_t A_t) per entry of the dense change, ties to the newest; a task trains a
    fresh adapter on W_0 + delta_{t-1}.

    Passed on: the merged model.
    Settings: none.
    """

    name = "magmax"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = (
        "Eq. 2 selects on A and B, as `magmax_factors` does; the released code, and so the paper's tables, on the "
        "dense change. MagMax (arXiv 2407.06322) selects once at the end, as `magmax_final` does."
    )

    def end_task(self, ctx, state, adapter):
        return state.with_merged(max_magnitude(state.merged, adapter.delta()))
