from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class EWC(Method):
    """Go on training one adapter, held near where it was wherever earlier tasks' gradients were large (online EWC).

    The diagonal of the Fisher information says how much a task's loss suffers if a value moves; online EWC keeps one
    running sum of it instead of one for each task.

    loss + strength * sum_i F_i (theta_i - theta*_i)^2 over the values theta of all A and B, with theta* those handed
    on and F <- decay * F + F_t; F_t is the mean of the squared gradient of the diffusion loss over `batches` batches.

    Passed on: the adapter, and F (twice an adapter).
    Settings: `strength` 50000, as in CLoG, whose loss (noise prediction) and F_t (a batch's gradient, squared) are
    these; T2I-ConBench has 1e-4 and mammoth's `ewc_on` 10, with F_t made otherwise. `decay` 1, as in mammoth.
    `batches` 16 is ours: the sources go through all of a task's data once. They cost as much as 16 training steps a
    task.
    """

    name = "ewc"
    family = "regularization"
    paper = "Overcoming catastrophic forgetting in neural networks"
    arxiv = "1612.00796"
    year = "2016"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "The running sum is Progress & Compress's (arXiv 1805.06370), read in mammoth. F is of the factors A and B, "
        "and of the diffusion loss, as the sources for diffusion have it, instead of a log-likelihood."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(1e4, 1e9)] = Field(5e4, ge=0, description="Weight of the penalty.")
        decay: float = Field(1.0, ge=0, le=1, description="Share of the earlier tasks' information that is kept.")
        batches: int = Field(16, ge=1, le=1000, description="Batches from which a task's information is estimated.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def loss(self, ctx, batch):
        if ctx.state.adapter is None:
            return 0.0
        anchor, fisher = ctx.state.adapter.tensors(), ctx.state.extra
        return self.config.strength * sum(
            (fisher[name].to(theta) * (theta - anchor[name].to(theta)).square()).sum()
            for name, theta in ctx.adapter.tensors().items()
        )

    def end_task(self, ctx, state, adapter):
        import torch

        live, count = ctx.adapter.tensors(), self.config.batches
        fisher = {name: self.config.decay * value for name, value in state.extra.items()}
        for batch in ctx.batches(count):
            gradients = torch.autograd.grad(ctx.denoising_loss(batch), [*live.values()])
            for name, gradient in zip(live, gradients, strict=True):
                fisher[name] = fisher.get(name, 0.0) + gradient.float().cpu().square() / count
        return state.with_adapter(adapter).with_extra(**fisher)
