import torch
from pydantic import BaseModel, ConfigDict

from clbench import Method, State


class EWC(Method):
    """Go on training one adapter, held near where it was wherever earlier tasks' loss was steep.

    loss + strength / 2 * sum_i F_i (theta_i - theta*_i)^2 over the adapter's values theta, with theta* those handed on
    and F the sum over past tasks of the mean squared gradient. Source: Kirkpatrick et al. 2017.
    """

    name = "ewc"

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        strength: float = 1e6
        batches: int = 4

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def loss(self, ctx, batch):
        if ctx.state.adapter is None:
            return 0.0
        live, before, fisher = State(adapter=ctx.adapter).tensors(), ctx.state.tensors(), ctx.state.extra
        drifts = [fisher[name].to(theta) * (theta - before[name].to(theta)) ** 2 for name, theta in live.items()]
        return self.config.strength / 2 * torch.stack([drift.sum() for drift in drifts]).sum()

    def end_task(self, ctx, state, adapter):
        live = State(adapter=ctx.adapter).tensors()
        fisher = dict(state.extra)
        for batch in ctx.batches(self.config.batches):
            gradients = torch.autograd.grad(ctx.denoising_loss(batch), list(live.values()))
            for name, gradient in zip(live, gradients, strict=True):
                fisher[name] = fisher.get(name, 0) + gradient.cpu() ** 2 / self.config.batches
        return State(adapter=adapter, extra=fisher)
