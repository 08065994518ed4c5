from clbench import Method
from clbench.lora import Delta


class RunningAverage(Method):
    """Train each task from the base model, and keep the mean of all tasks' changes.

    It is the simplest merge, and needs nothing but the number of tasks so far.

    D_t = ((t - 1) D_{t-1} + scale B_t A_t) / t, each adapter trained on W_0; the model is W_0 + D_t.

    Passed on: the merged model.
    Settings: none.
    """

    name = "running_average"
    family = "merging"
    paper = (
        "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing "
        "inference time"
    )
    arxiv = "2203.05482"
    year = "2022"
    code = "https://github.com/tanganke/fusion_bench"
    departures = "The paper averages models of one task; fusion_bench's continual form averages those of many, as here."

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        share = 1 / (ctx.position + 1)
        return state.with_merged((1 - share) * state.merged + share * adapter.delta())
