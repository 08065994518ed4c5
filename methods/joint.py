from clbench import Method
from clbench.lora import Delta
from clbench.replay import pack_examples, unpack_examples


class Joint(Method):
    """Train one adapter on the base model, on the data of all tasks so far, with as many steps as all of them have.

    What one adapter can learn of all tasks at once, with nothing forgotten because nothing is in the past: a continual
    method has the same steps, but each task's data only once.

    loss = mean over a batch of all tasks' examples; after t tasks B A is trained anew from a fresh start in t times the
    suite's steps; the model is W_0 + scale B A.

    Passed on: the model, and all images with their prompts (grows with the tasks, 8 bits a channel).
    Settings: none. After T tasks it has taken (T + 1) / 2 times as many steps as other methods.
    """

    name = "joint"
    family = "bound"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "The paper has no such row; here a first task's training is repeated with more data and steps."

    def frozen(self, state):
        return Delta()

    def data(self, ctx, examples):
        self._all = [*unpack_examples(ctx.state), *examples]
        return self._all

    def steps(self, ctx):
        return ctx.training.steps * (ctx.position + 1)

    def end_task(self, ctx, state, adapter):
        return state.with_merged(adapter.delta()).with_extra(**pack_examples(self._all))
