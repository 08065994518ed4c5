from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class CoMA(Method):
    """Train each task from the previous model, then go back part of the way to it (continual model averaging).

    The weights between two models that one training connects are often good for both models' tasks; their average
    keeps more of the old one than the end of the training does.

    D_t = (1 - share) D_{t-1} + share (D_{t-1} + scale B_t A_t), and D_1 = scale B_1 A_1; each adapter is trained on
    W_0 + D_{t-1}, and the model is W_0 + D_t.

    Passed on: the merged model.
    Settings: `share` 0.5, as in most of its code's configurations (0.4 for CIFAR-100 and ImageNet-R). With 1 it is
    `merge_init`.
    """

    name = "coma"
    family = "merging"
    paper = "Weighted Ensemble Models Are Strong Continual Learners"
    arxiv = "2312.08977"
    year = "2023"
    code = "https://github.com/IemProg/CoFiMA"
    departures = "The code averages all weights of a classifier; here adapters are trained, and their changes averaged."

    class Config(Settings):
        share: Annotated[float, SearchRange(0.1, 1, log=False)] = Field(
            0.5, ge=0, le=1, description="Share of the new model in the average."
        )

    def end_task(self, ctx, state, adapter):
        share = self.config.share if ctx.position else 1.0
        return state.with_merged(state.merged + share * adapter.delta())
