from clbench import Method
from clbench.lora import Adapter, max_magnitude


class MagMaxFactors(Method):
    """Keep, for every entry of A and of B, the one of larger magnitude: the kept one so far or the new task's.

    Eq. 2 as it is printed, on the factors; the paper's released code, and so its tables, select on the dense change,
    as `magmax` does.

    A_{1..t} = MAGMAX(A_{1..t-1}, A_t) and B_{1..t} = MAGMAX(B_{1..t-1}, B_t) per entry, ties to the newest; a task
    trains a fresh adapter on W_0 + scale B_{1..t-1} A_{1..t-1}.

    Passed on: the adapter.
    Settings: none.
    """

    name = "magmax_factors"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "None from the paper's equation; its released code selects on dense changes."

    def frozen(self, state):
        return self.weights(state)

    def end_task(self, ctx, state, adapter):
        if state.adapter is None:
            return state.with_adapter(adapter)
        A, B = max_magnitude(state.adapter.A, adapter.A), max_magnitude(state.adapter.B, adapter.B)
        return state.with_adapter(Adapter(A, B, adapter.scale))
