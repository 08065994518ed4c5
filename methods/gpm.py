from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings
from clbench.subspace import grow, input_moments, outside


class GPM(Method):
    """Merge each adapter, and keep every A outside the subspace of earlier tasks' inputs (gradient projection memory).

    A layer's change matters to earlier tasks only through the inputs that it gets in them; rows of A that are
    orthogonal to those inputs change nothing there.

    Per layer F has orthonormal columns. A_t starts as A (I - F F^T), and so do its gradient and, after each step, A_t
    itself. After each task F gets the fewest left singular vectors of (I - F F^T) X, where X [in, n] holds the task's
    inputs, so that ||F F^T X||_F^2 is at least min(1, threshold + growth * t) of ||X||_F^2, for t = 0, 1, ... The model
    is W_0 + scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and F (grows up to in x in per layer).
    Settings: `threshold` 0.97 and `growth` 0.003, as in its code for CIFAR-100. `batches` 16 is ours: the code takes
    125 images. They cost 16 forward passes a task, and F an eigendecomposition per layer and task.
    """

    name = "gpm"
    family = "orthogonal"
    paper = "Gradient Projection Memory for Continual Learning"
    arxiv = "2103.09762"
    year = "2021"
    code = "https://github.com/sahagobinda/GPM"
    departures = (
        "The paper trains all weights with SGD, whose steps are within the projected gradients' span; AdamW's are not, "
        "so that A is projected after each step too. In its first task the code takes one direction fewer than Eq. 5."
    )

    class Config(Settings):
        threshold: Annotated[float, SearchRange(0.5, 0.99, log=False)] = Field(
            0.97, ge=0, le=1, description="Share of the first task's squared inputs that is protected."
        )
        growth: float = Field(0.003, ge=0, le=1, description="What each later task adds to the share.")
        batches: int = Field(16, ge=1, le=1000, description="Batches whose inputs are looked at.")

    def prepare(self, ctx, adapter):
        self._memory = {layer: F.to(ctx.adapter.A[layer].device) for layer, F in ctx.state.extra.items()}
        return replace(adapter, A={layer: outside(A, ctx.state.extra.get(layer)) for layer, A in adapter.A.items()})

    def on_gradients(self, ctx):
        live: dict[str, Any] = ctx.adapter.A
        for layer, F in self._memory.items():
            live[layer].grad = outside(live[layer].grad, F)

    def after_step(self, ctx):
        import torch

        with torch.no_grad():
            for layer, F in self._memory.items():
                A = ctx.adapter.A[layer]
                A.copy_(outside(A, F))

    def end_task(self, ctx, state, adapter):
        share = min(1.0, self.config.threshold + self.config.growth * ctx.position)
        moments = input_moments(ctx, self.config.batches)
        memory = {layer: grow(moment, share, state.extra.get(layer)) for layer, moment in moments.items()}
        return state.with_merged(state.merged + adapter.delta()).with_extra(**memory)
