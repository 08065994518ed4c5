from dataclasses import replace
from typing import Any

from pydantic import Field

from clbench import Method
from clbench.method import Settings
from clbench.replay import interleave, pack_examples, reservoir, unpack_examples


class AGEM(Method):
    """Go on training one adapter, with each gradient projected so that the loss on kept images does not rise (A-GEM).

    Kept images are not trained on; they only forbid steps against them.

    g is the gradient of the loss on new examples, h that on kept ones. If g.h < 0, g <- g - (g.h / h.h) h, over all
    values of A and B together; otherwise g stays.

    Passed on: the adapter, and up to `memory` images with their prompts (grows with the tasks, 8 bits a channel).
    Settings: `memory` 200 images, as in CLoG. A step costs half a step more, for h.
    """

    name = "a_gem"
    family = "replay"
    paper = "Efficient Lifelong Learning with A-GEM"
    arxiv = "1812.00420"
    year = "2018"
    code = "https://github.com/aimagelab/mammoth"
    departures = (
        "Half of each batch is new and half kept, where the sources draw a second batch; g follows from the whole "
        "batch's gradient and h. The memory is a reservoir sample, as CLoG's, instead of equal shares."
    )

    class Config(Settings):
        memory: int = Field(200, ge=1, description="Images that are kept at most, of all tasks together.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def data(self, ctx, examples):
        self._new = examples
        return interleave(examples, unpack_examples(ctx.state))

    def loss(self, ctx, batch):
        self._batch = batch
        return 0.0

    def on_gradients(self, ctx):
        import torch

        batch, live = self._batch, list[Any](ctx.adapter.tensors().values())
        kept = batch.examples % 2 == 1  # where `interleave` put them
        if "images" not in ctx.state.extra or kept.all() or not kept.any():
            return
        rows = kept.nonzero().flatten()
        part = replace(batch, **{name: getattr(batch, name)[rows] for name in vars(batch)})
        reference = torch.autograd.grad(ctx.denoising_loss(part), live)
        share = len(rows) / len(kept)  # of the batch's mean loss
        gradients = [(theta.grad - share * h) / (1 - share) for theta, h in zip(live, reference, strict=True)]
        dot = sum((g * h).sum() for g, h in zip(gradients, reference, strict=True))
        along = min(float(dot), 0.0) / max(float(sum(h.square().sum() for h in reference)), 1e-30)
        for theta, g, h in zip(live, gradients, reference, strict=True):
            theta.grad.copy_(g - along * h)

    def end_task(self, ctx, state, adapter):
        import torch

        seen = int(state.extra["seen"][0]) if state.extra else 0
        kept = reservoir(unpack_examples(state), self._new, seen, self.config.memory, ctx.generator)
        seen = torch.tensor([seen + len(self._new)])
        return state.with_adapter(adapter).with_extra(seen=seen, **pack_examples(kept))
