from pydantic import Field

from clbench import Method
from clbench.method import Settings
from clbench.replay import interleave, pack_examples, reservoir, unpack_examples


class DataReplay(Method):
    """Go on training one adapter, on batches of which half are kept images of earlier tasks (experience replay).

    A small uniform sample of all earlier images stands for the earlier tasks; it is what data-free methods should be
    measured against.

    loss = mean over a batch of half new and half kept examples; the memory is a reservoir sample of all images so
    far.

    Passed on: the adapter, and up to `memory` images with their prompts (grows with the tasks, 8 bits a channel).
    Settings: `memory` 200 images, as in CLoG.
    """

    name = "data_replay"
    family = "replay"
    paper = "On Tiny Episodic Memories in Continual Learning"
    arxiv = "1902.10486"
    year = "2019"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "The sources add kept images to a full batch of new ones; here a batch keeps its size, so that no more is "
        "computed than in `naive`, and half as many new images are seen."
    )

    class Config(Settings):
        memory: int = Field(200, ge=1, description="Images that are kept at most, of all tasks together.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def data(self, ctx, examples):
        self._new = examples
        return interleave(examples, unpack_examples(ctx.state))

    def end_task(self, ctx, state, adapter):
        import torch

        seen = int(state.extra["seen"][0]) if state.extra else 0
        kept = reservoir(unpack_examples(state), self._new, seen, self.config.memory, ctx.generator)
        seen = torch.tensor([seen + len(self._new)])
        return state.with_adapter(adapter).with_extra(seen=seen, **pack_examples(kept))
