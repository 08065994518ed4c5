from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class L2Anchor(Method):
    """Go on training one adapter, and pull each of its values back to where the previous task left it.

    Every value counts the same, so this is what importance-weighted penalties (EWC, SI, MAS) have to beat.

    loss + strength * sum_i (theta_i - theta*_i)^2 over the values theta of all A and B, with theta* those handed on;
    no penalty in the first task.

    Passed on: the adapter.
    Settings: `strength` 1e-3, as in T2I-ConBench's scripts (diffusion, summed over all weights). CLoG has 500, with
    each tensor's mean instead of its sum. L2-SP anchors at the pretrained weights, continual learning at the previous
    task's.
    """

    name = "l2_anchor"
    family = "regularization"
    paper = "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    arxiv = "1802.01483"
    year = "2018"
    code = "https://github.com/K1nght/T2I-ConBench"
    departures = "The penalty is on the factors A and B, not on a whole network; the strength is another model's."

    class Config(Settings):
        strength: Annotated[float, SearchRange(1e-4, 10)] = Field(
            1e-3, ge=0, description="Weight of the squared distance."
        )

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def loss(self, ctx, batch):
        if ctx.state.adapter is None:
            return 0.0
        anchor = ctx.state.adapter.tensors()
        return self.config.strength * sum(
            (theta - anchor[name].to(theta)).square().sum() for name, theta in ctx.adapter.tensors().items()
        )

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter)
