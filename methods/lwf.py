from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class LwF(Method):
    """Merge each adapter, and hold a new one to what the previous model predicts for the new images (distillation).

    Data of earlier tasks is gone, but the model that knew them is not: what it says about the new data is a second
    target, so that the new model differs from it where the new task asks for it alone.

    loss + strength * mean of (f_t(z) - f_{t-1}(z))^2 over the batch, where f is the U-Net's output for noisy latents z
    with the new task's prompt; f_{t-1} has the weights W_0 + scale (B_1 A_1 + ... + B_{t-1} A_{t-1}). The first task
    has no second target.

    Passed on: the merged model.
    Settings: `strength` 1, as in CLoG (diffusion models, noise prediction). Each step makes one more prediction,
    without a gradient. With 0 it is `merge_init`.
    """

    name = "lwf"
    family = "distillation"
    paper = "Learning without Forgetting"
    arxiv = "1606.09282"
    year = "2016"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "The paper distils the outputs of a classifier's old heads, with a temperature; this squared difference is "
        "CLoG's form for diffusion. CLoG goes on training the same weights; here each task's adapter is merged."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.01, 100)] = Field(1.0, ge=0, description="Weight of distillation.")

    def loss(self, ctx, batch):
        if ctx.position == 0:
            return 0.0
        before = ctx.predict(batch, weights=ctx.state.merged)
        return self.config.strength * (ctx.predicted - before).square().mean()
