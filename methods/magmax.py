from clbench import Method
from clbench.lora import max_magnitude


class MagMax(Method):
    """Keep, for every weight, the change of larger magnitude: the kept one so far or the new task's.

    delta_t = MAGMAX(delta_{t-1}, B_t A_t) per entry of the dense change, ties to the newest; a task trains a fresh
    adapter on W_0 + delta_{t-1}. Source: MagMax (Marczak et al. 2024), as in arXiv 2410.04891's released code.
    """

    name = "magmax"

    def end_task(self, ctx, state, adapter):
        return state.with_merged(max_magnitude(state.merged, adapter.delta()))
