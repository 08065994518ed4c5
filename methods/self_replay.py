from pydantic import Field

from clbench import Method
from clbench.method import Example, Settings
from clbench.replay import interleave, pack_text, unpack_text


class SelfReplay(Method):
    """Go on training one adapter, on batches of which half are drawn by the previous model for earlier tasks.

    A generative model can rehearse without keeping data: it draws what it knows of the earlier tasks before it learns
    the next.

    loss = mean over a batch of half new examples and half images drawn by W_{t-1} for the training prompts of tasks 1
    ... t-1, `images` for each.

    Passed on: the adapter, and the earlier tasks' training prompts (grows by a line of text a task).
    Settings: `images` 5 for each earlier prompt is ours, as many as a task has of its own in these suites; they are
    drawn once, before training. CLoG draws 256 in every step, with fixed classes instead of prompts.
    """

    name = "self_replay"
    family = "replay"
    paper = "Continual Learning with Deep Generative Replay"
    arxiv = "1705.08690"
    year = "2017"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "One model draws and learns; the paper trains a generator for a classifier. A batch keeps its size, where "
        "CLoG adds the drawn images to it, and images are drawn once a task, not in every step."
    )

    class Config(Settings):
        images: int = Field(5, ge=1, le=1000, description="Images that are drawn for each earlier prompt.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def data(self, ctx, examples):
        prompts = _remembered(ctx.state)
        if not prompts:
            return examples
        drawn = ctx.sample(prompts, self.config.images, self.weights(ctx.state))
        repeated = [prompt for prompt in prompts for _ in range(self.config.images)]
        return interleave(examples, [Example(*pair) for pair in zip(drawn, repeated, strict=True)])

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter).with_extra(prompts=pack_text([*_remembered(state), ctx.prompt]))


def _remembered(state):
    return unpack_text(state.extra["prompts"]) if state.extra else []
