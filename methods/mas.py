from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class MAS(Method):
    """Go on training one adapter, held where its layers' outputs are sensitive to its values (local MAS).

    A value is important if a small change of it changes much of what is computed, whatever the loss is. The local
    form looks at each layer's output instead of the network's, which makes the importance a product of activities
    (Hebb).

    loss + strength / 2 * sum_i Omega_i (theta_i - theta*_i)^2 over the values theta of all A and B, with theta* those
    handed on; per task Omega_i += the mean over samples of |d ||y||^2 / d theta_i|, where y is the output of the
    value's layer. For y = (W + scale B A) x these are |2 scale y (A x)^T| for B and |2 scale (B^T y) x^T| for A.

    Passed on: the adapter, and Omega (twice an adapter).
    Settings: `strength` 5, as in CLoG (which uses the network's output; the paper has 1). `batches` 16 is ours: the
    sources go through all data once. They cost 16 forward passes a task, and no backward pass.
    """

    name = "mas"
    family = "regularization"
    paper = "Memory Aware Synapses: Learning what (not) to forget"
    arxiv = "1711.09601"
    year = "2017"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "The paper's local form, because a method sees its layers' outputs but not the network's, as CLoG's code "
        "does. The squared norm is summed over tokens and channels, so that published strengths say little here."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(1e-6, 10)] = Field(5.0, ge=0, description="Weight of the penalty.")
        batches: int = Field(16, ge=1, le=1000, description="Batches from which a task's importance is estimated.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def loss(self, ctx, batch):
        if ctx.state.adapter is None:
            return 0.0
        anchor, omega = ctx.state.adapter.tensors(), ctx.state.extra
        return (self.config.strength / 2) * sum(
            (omega[name].to(theta) * (theta - anchor[name].to(theta)).square()).sum()
            for name, theta in ctx.adapter.tensors().items()
        )

    def end_task(self, ctx, state, adapter):
        import torch

        omega, weight = dict(state.extra), 2 * adapter.scale / self.config.batches

        def add(name, per_sample):
            omega[name] = omega.get(name, 0.0) + weight * per_sample.abs().mean(dim=0).cpu()

        def watch(layer):
            A, B = (factor[layer].detach().float() for factor in (ctx.adapter.A, ctx.adapter.B))

            def seen(module, inputs, output):
                x, y = inputs[0].float(), output.float()  # [N, tokens, channels]
                add(f"adapter.A/{layer}", torch.einsum("ntr,nti->nri", y @ B, x))
                add(f"adapter.B/{layer}", torch.einsum("nto,ntr->nor", y, x @ A.T))

            return ctx.modules[layer].register_forward_hook(seen)

        hooks = [watch(layer) for layer in ctx.shapes]
        with torch.no_grad():
            for batch in ctx.batches(self.config.batches):
                ctx.denoising_loss(batch)
        for hook in hooks:
            hook.remove()
        return state.with_adapter(adapter).with_extra(**omega)
