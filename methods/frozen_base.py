from clbench import Method


class FrozenBase(Method):
    """Learn nothing: the model stays the base model. What others learn and keep is measured against this row.

    W_t = W_0.

    Passed on: nothing.
    Settings: none.
    """

    name = "frozen_base"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    code = "https://github.com/luk-st/continual-lora"
    departures = "None: it is the paper's model before the first task, as a row of its own."

    def begin_task(self, ctx, state):
        return None

    def end_task(self, ctx, state, adapter):
        return state
