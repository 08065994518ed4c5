from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class DARE(Method):
    """Train each task from the base model, drop a random half of its change, rescale the rest, and add a share of it.

    Changes of fine-tuned weights are redundant: most entries can go if the others are scaled up, and what is left
    overlaps less with other tasks.

    D_t = D_{t-1} + strength * M_t * (scale B_t A_t) / (1 - drop), with * entry by entry and a random mask M_t that is
    0 with probability `drop`; each adapter is trained on W_0, and the model is W_0 + D_t.

    Passed on: the merged model.
    Settings: `drop` 0.5 and `strength` 0.3, as in fusion_bench (CLIP). The paper drops up to 0.9 or 0.99.
    """

    name = "dare"
    family = "merging"
    paper = "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch"
    arxiv = "2311.03099"
    year = "2023"
    code = "https://github.com/tanganke/fusion_bench"
    departures = "The masks are on the dense products of LoRA's factors, not on changes of full fine-tuning."

    class Config(Settings):
        drop: Annotated[float, SearchRange(0.1, 0.9, log=False)] = Field(
            0.5, ge=0, lt=1, description="Probability that an entry is dropped."
        )
        strength: Annotated[float, SearchRange(0.1, 1.5)] = Field(
            0.3, ge=0, description="Factor of each task's change in the merged model."
        )

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        import torch

        factor = self.config.strength / (1 - self.config.drop)
        kept = {
            layer: torch.where(torch.rand(value.shape, generator=ctx.generator) < self.config.drop, 0.0, factor * value)
            for layer, value in adapter.delta().items()
        }
        return state.with_merged(state.merged + kept)
