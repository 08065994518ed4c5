from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class OrthogonalAdaptation(Method):
    """Fix each task's A to its own rows of one random orthogonal basis, train B alone, and sum.

    Tasks that read orthogonal parts of the input cannot disturb each other there, however they are trained, so that
    each is trained from the base model without knowing the others.

    Per layer O is a random orthogonal matrix [in, in], the same for all tasks; A_t = r rows of O that no earlier task
    had, B_t = 0 at the start and trained; the model is W_0 + strength * scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and the seed of O (8 bytes).
    Settings: `strength` 0.6, the paper's (SD 1.5, rank 20, two or three concepts). A layer has in / r blocks of rows;
    then rows are used again (mini-v2: after 2 to 4 tasks; sdxl-v1: after 10 or more). O takes a QR decomposition of
    in x in per layer and task, about a minute on SDXL.
    """

    name = "orthogonal_adaptation"
    family = "orthogonal"
    paper = "Orthogonal Adaptation for Modular Customization of Diffusion Models"
    arxiv = "2312.02432"
    year = "2023"
    departures = (
        "The paper draws each task's r columns at random, so that some are shared; here they are the next r unused "
        "ones. It also trains a token for each concept. No official code; the equations are the paper's."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.3, 3)] = Field(
            0.6, ge=0, description="Factor of each task's change in the merged model."
        )

    def begin_task(self, ctx, state):
        import torch

        self._seed = int(state.extra["seed"][0]) if state.extra else ctx.generator.initial_seed()
        draws, adapter = torch.Generator().manual_seed(self._seed), ctx.fresh_adapter()
        for layer, A in adapter.A.items():
            rank, inputs = A.shape
            basis = torch.linalg.qr(torch.randn(inputs, inputs, generator=draws)).Q
            adapter.A[layer] = basis[(torch.arange(rank) + ctx.position * rank) % inputs]
        return adapter

    def frozen(self, state):
        return Delta()

    def on_gradients(self, ctx):
        for A in ctx.adapter.A.values():
            A.grad = None  # so that the optimizer leaves it alone, weight decay included

    def end_task(self, ctx, state, adapter):
        import torch

        merged = state.merged + self.config.strength * adapter.delta()
        return state.with_merged(merged).with_extra(seed=torch.tensor([self._seed]))
