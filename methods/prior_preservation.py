from pydantic import Field

from clbench import Method
from clbench.method import Example, Settings
from clbench.replay import interleave


class PriorPreservation(Method):
    """Go on training one adapter, on batches of which half are images of the task's class that the base model draws.

    DreamBooth's loss against language drift: a class keeps its meaning while one instance of it is learned. It knows
    nothing of earlier tasks.

    loss = mean over a batch of half new examples and half class images, which is DreamBooth's sum with the prior
    weight 1, halved. The class prompt is the training prompt without what names the task: the words of the task's
    name before " of ", and the first of several words after it ("a photo of sks car": "a photo of car"; "ink art
    image of tree": "image of tree").

    Passed on: the adapter.
    Settings: `images` 100 and the weight 1, as in diffusers' DreamBooth examples. They are drawn before each task:
    with SDXL's 50 steps that can take longer than the training.
    """

    name = "prior_preservation"
    family = "replay"
    paper = "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation"
    arxiv = "2208.12242"
    year = "2022"
    code = "https://github.com/huggingface/diffusers"
    departures = (
        "A batch keeps its size, where diffusers adds a class image for each new one; the factors of an adapter are "
        "trained, handed on from task to task, instead of the model."
    )

    class Config(Settings):
        images: int = Field(100, ge=1, le=1000, description="Class images that are drawn for each task.")

    def begin_task(self, ctx, state):
        return state.adapter or ctx.fresh_adapter()

    def data(self, ctx, examples):
        prompt = _class_prompt(ctx.prompt, ctx.task)
        drawn = ctx.sample([prompt], self.config.images, {})
        return interleave(examples, [Example(image, prompt) for image in drawn])

    def end_task(self, ctx, state, adapter):
        return state.with_adapter(adapter)


def _class_prompt(prompt, task):
    """The prompt of the task's class: without style words before " of " and without an identifier after it."""
    kind, _, thing = prompt.rpartition(" of ")
    words = [word for word in kind.split() if word.casefold() not in task.casefold().split()]
    return " ".join([*words, "of", *(thing.split()[1:] or [thing])])
