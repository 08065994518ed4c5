import torch
from pydantic import BaseModel, ConfigDict

from clbench import Method
from clbench.method import Example


class SelfReplay(Method):
    """Train on images that the previous model draws for earlier tasks' prompts beside the new ones, then merge."""

    name = "self_replay"

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        images: int = 2

    def data(self, ctx, examples):
        prompts = remembered(ctx.state)
        if not prompts:
            return examples
        images = ctx.sample(prompts, self.config.images, self.weights(ctx.state))
        repeated = [prompt for prompt in prompts for _ in range(self.config.images)]
        return examples + [Example(image, prompt) for image, prompt in zip(images, repeated, strict=True)]

    def end_task(self, ctx, state, adapter):
        text = "\n".join([*remembered(state), ctx.prompt])
        kept = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        return state.with_merged(state.merged + adapter.delta()).with_extra(prompts=kept)


def remembered(state):
    """The prompts of earlier tasks, which the state keeps as text."""
    return bytes(state.extra["prompts"].tolist()).decode().split("\n") if "prompts" in state.extra else []
