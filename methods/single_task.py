from clbench import Method
from clbench.lora import Delta, product


class SingleTask(Method):
    """Train a fresh adapter for each task on the base model, and draw each task's images with its own adapter.

    What one adapter can learn of one task, with nothing before it and nothing after it: nothing is forgotten, which
    bounds what a continual method can keep.

    W_t = W_0 + scale B_t A_t for images of task t; each adapter is trained on W_0. Images that no task is asked for are
    the base model's.

    Passed on: all adapters (grows by an adapter a task). It is told, at sampling, which task is asked for.
    Settings: none.
    """

    name = "single_task"
    family = "bound"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "The paper has no such row; the protocol's training of a first task is repeated for every task."

    def end_task(self, ctx, state, adapter):
        own = {f"{ctx.task}/A/{layer}": A for layer, A in adapter.A.items()}
        own |= {f"{ctx.task}/B/{layer}": adapter.scale * B for layer, B in adapter.B.items()}
        return state.with_extra(**own)

    def weights(self, state):
        return Delta()

    def weights_for(self, state, task):
        down = f"{task}/A/"
        layers = [name.removeprefix(down) for name in state.extra if name.startswith(down)]
        return Delta({layer: product(state.extra[down + layer], state.extra[f"{task}/B/{layer}"]) for layer in layers})
