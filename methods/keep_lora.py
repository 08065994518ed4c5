from dataclasses import replace
from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings
from clbench.subspace import grow, input_moments, outside


class KeepLoRA(Method):
    """Fix each task's A to the loss's gradient outside what the base model and earlier tasks read, and train B alone.

    The base model's general knowledge is in the main directions of its weights, the earlier tasks' in those of their
    inputs; the new task's gradient says which of the remaining directions to learn in.

    Per layer F, with orthonormal columns, begins as the first right singular vectors of W_0, the fewest that hold
    `weights` of ||W_0||_F^2. A_t = the first r right singular vectors of G (I - F F^T), fixed, where G [out, in] is the
    mean gradient of the task's loss with respect to W before training; B_t is trained from 0. After it F gets the
    fewest left singular vectors of (I - F F^T) X so that ||F F^T X||_F^2 >= inputs * ||X||_F^2 for the task's inputs X.
    The model is W_0 + scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and F (grows up to in x in per layer).
    Settings: `weights` 0.85 and `inputs` 0.99, as in its code (CLIP's image encoder; its text encoder has 0.2).
    `batches` 16 is ours: the code goes through all data twice. They cost as much as 21 training steps a task.
    """

    name = "keep_lora"
    family = "orthogonal"
    paper = "KeepLoRA: Continual Learning with Residual Gradient Adaptation"
    arxiv = "2601.19659"
    year = "2026"
    code = "https://github.com/MaolinLuo/KeepLoRA"
    departures = (
        "The code for CLIP starts B at S V^T of the gradient and subtracts B A from W, which trains alike but for "
        "weight decay; B = 0 is as in its code for LLaVA. It averages batches of inputs entry by entry; here all count."
    )

    class Config(Settings):
        weights: Annotated[float, SearchRange(0.2, 0.95, log=False)] = Field(
            0.85, ge=0, le=1, description="Share of the base weights' squared norm that is protected."
        )
        inputs: Annotated[float, SearchRange(0.5, 0.99, log=False)] = Field(
            0.99, ge=0, le=1, description="Share of a task's squared inputs that is protected."
        )
        batches: int = Field(16, ge=1, le=1000, description="Batches whose gradients and inputs are looked at.")

    def prepare(self, ctx, adapter):
        self._memory = dict(ctx.state.extra) or {layer: self._principal(ctx.base_weight(layer)) for layer in ctx.shapes}
        gradients = self._gradients(ctx)
        return replace(adapter, A={layer: self._rows(layer, gradients[layer], A) for layer, A in adapter.A.items()})

    def _principal(self, weight):
        """The basis that holds the share `weights` of a weight [out, in]."""
        return grow(weight.double().T @ weight.double(), self.config.weights)

    def _rows(self, layer, gradient, A):
        """The layer's A, of the shape of the one given."""
        import torch

        found = torch.linalg.svd(outside(gradient, self._memory[layer]), full_matrices=False).Vh[: len(A)]
        return torch.cat([outside(found, self._memory[layer]), torch.zeros_like(A)[len(found) :]])

    def _gradients(self, ctx):
        """Layer -> the mean gradient of the loss with respect to its weight, [out, in]."""
        import torch

        sums, count = dict.fromkeys(ctx.shapes, 0.0), self.config.batches

        def watch(layer):
            def seen(module, inputs, output):
                def add(gradient):
                    terms = torch.einsum("...o,...i->oi", gradient.float(), inputs[0].detach().float())
                    sums[layer] = sums[layer] + terms.cpu() / count

                output.register_hook(add)

            return ctx.modules[layer].register_forward_hook(seen)

        hooks = [watch(layer) for layer in ctx.shapes]
        for batch in ctx.batches(count):
            ctx.denoising_loss(batch).backward()
        for hook in hooks:
            hook.remove()
        return sums

    def on_gradients(self, ctx):
        for A in ctx.adapter.A.values():
            A.grad = None  # so that the optimizer leaves it alone, weight decay included

    def end_task(self, ctx, state, adapter):
        moments = input_moments(ctx, self.config.batches)
        memory = {layer: grow(moment, self.config.inputs, self._memory[layer]) for layer, moment in moments.items()}
        return state.with_merged(state.merged + adapter.delta()).with_extra(**memory)
