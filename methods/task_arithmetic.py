from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class TaskArithmetic(Method):
    """Train each task from the base model, and add a fixed share of its change to the merged weights.

    A task's change of the weights (its task vector) is a direction that can be scaled and added; tasks never see each
    other in training.

    D_t = D_{t-1} + strength * scale B_t A_t, each adapter trained on W_0; the model is W_0 + D_t.

    Passed on: the merged model.
    Settings: `strength` 0.3, as in fusion_bench (CLIP).
    """

    name = "task_arithmetic"
    family = "merging"
    paper = "Editing Models with Task Arithmetic"
    arxiv = "2212.04089"
    year = "2022"
    code = "https://github.com/tanganke/fusion_bench"
    departures = (
        "Task vectors are LoRA products, not full fine-tuning's. The paper tunes the strength on held-out data."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.1, 1.5)] = Field(
            0.3, ge=0, description="Factor of each task's change in the merged model."
        )

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        return state.with_merged(state.merged + self.config.strength * adapter.delta())
