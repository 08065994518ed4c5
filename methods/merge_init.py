from clbench import Method


class MergeInit(Method):
    """Merge each task's adapter into the weights, and start the next from a fresh one.

    W_t = W_{t-1} + scale B_t A_t, with A_t drawn anew and B_t = 0 at the start of every task.

    Passed on: the merged model.
    Settings: none.
    """

    name = "merge_init"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = (
        "None from the paper; its released code draws the same A in every task, as `merge_init_fixed_seed` does."
    )

    def end_task(self, ctx, state, adapter):
        return state.with_merged(state.merged + adapter.delta())
