from dataclasses import replace
from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class CoFiMA(Method):
    """Go on training one adapter, then average it with the previous one, value by value by their Fisher information.

    As in `coma`, but each value of the average is nearer to the model whose task depends on it more.

    theta <- ((1 - share) F_{t-1} theta_{t-1} + share F_t theta_t) / ((1 - share) F_{t-1} + share F_t) for the values
    theta of all A and B, where theta_t is the end of task t's training from theta_{t-1}, and F_t is the mean of the
    squared gradient of the diffusion loss over `batches` batches, there. Where both F are 0, it is the plain average.

    Passed on: the adapter, and F_t (twice an adapter).
    Settings: `share` 0.5, as in most of its code's configurations (0.4 for CIFAR-100 and ImageNet-R). `batches` 16 is
    ours: the code goes through all of a task's data once. They cost as much as 16 training steps a task.
    """

    name = "cofima"
    family = "merging"
    paper = "Weighted Ensemble Models Are Strong Continual Learners"
    arxiv = "2312.08977"
    year = "2023"
    code = "https://github.com/IemProg/CoFiMA"
    departures = (
        "On the factors A and B, where the code averages a classifier's weights. It caps F at 1e-4, which suits the "
        "gradients of its loss; here F has no cap."
    )

    class Config(Settings):
        share: Annotated[float, SearchRange(0.1, 1, log=False)] = Field(
            0.5, ge=0, le=1, description="Share of the new model in the average."
        )
        batches: int = Field(16, ge=1, le=1000, description="Batches from which a task's information is estimated.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        fisher = self._fisher(ctx)
        after = state.with_adapter(adapter).with_extra(**fisher)
        if state.adapter is None:
            return after
        before, now = state.adapter.tensors(), adapter.tensors()
        mean = {name: self._average(before[name], now[name], state.extra[name], fisher[name]) for name in now}
        A = {layer: mean[f"adapter.A/{layer}"] for layer in adapter.A}
        return after.with_adapter(replace(adapter, A=A, B={layer: mean[f"adapter.B/{layer}"] for layer in adapter.B}))

    def _average(self, before, now, fisher_before, fisher_now):
        import torch

        share = self.config.share
        old, new = (1 - share) * fisher_before, share * fisher_now
        weight = torch.where(old + new > 0, new / (old + new), share)
        return before + weight * (now - before)

    def _fisher(self, ctx):
        """The mean squared gradient of the loss at the live values, by their names in the state's file."""
        import torch

        live, count = ctx.adapter.tensors(), self.config.batches
        fisher = {name: torch.zeros(theta.shape) for name, theta in live.items()}
        for batch in ctx.batches(count):
            gradients = torch.autograd.grad(ctx.denoising_loss(batch), [*live.values()])
            for name, gradient in zip(live, gradients, strict=True):
                fisher[name] += gradient.float().cpu().square() / count
        return fisher
