from clbench import Method


class MergeInit(Method):
    """Merge each task's adapter into the weights and start the next from a fresh one: W_t = W_{t-1} + B_t A_t."""

    name = "merge_init"

    def end_task(self, ctx, state, adapter):
        return state.with_merged(state.merged + adapter.delta())
