from dataclasses import replace
from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class TextualInversion(Method):
    """Learn one new word for each task, and nothing else: the model stays the base model.

    A frozen text-to-image model can draw a concept once its text encoders are given the right input embedding for it.
    No task changes what another one learned.

    v* = argmin over v of E ||eps - eps_0(x_t, t, c(y with v in the place of the task's identifier))||^2, with a vector
    v for each text encoder, and its start v = the class's own (the mean, if it is several tokens). Identifier: the
    words of the task's name before " of ", else the first of several words after it; class: the word before " of ", or
    the words that are left after it ("ink art image of tree": "ink art", "image"; "a photo of sks car": "sks", "car").

    Passed on: a vector for each text encoder and task (grows by 64 + 64 values a task on mini-v2, 768 + 1280 on SDXL).
    Settings: `learning_rate` 0.005, the paper's base rate, for single vectors: an adapter's is far lower.
    """

    name = "textual_inversion"
    family = "tokens"
    paper = "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion"
    arxiv = "2208.01618"
    year = "2022"
    code = "https://github.com/rinongal/textual_inversion"
    departures = (
        "SDXL's two text encoders get a vector each, where diffusers' SDXL example trains one alone. Prompt, "
        "steps and optimizer are the suite's; the paper draws from many prompts, trains 5000 steps and multiplies the "
        "rate by the batch size."
    )

    class Config(Settings):
        learning_rate: Annotated[float | None, SearchRange(1e-4, 0.5)] = Field(
            0.005, gt=0, le=1, description="Learning rate of the vectors."
        )

    def begin_task(self, ctx, state):
        return None

    def new_tokens(self, ctx, state):
        identifier, start = _identifier_and_class(ctx.prompt, ctx.task)
        return {_word(identifier): tuple(vectors.mean(dim=0) for vectors in ctx.token_vectors(start))}

    def prompts(self, state, prompts):
        return [_word(text) if _word(text) in state.tokens else text for text in prompts]

    def data(self, ctx, examples):
        identifier, _ = _identifier_and_class(ctx.prompt, ctx.task)
        return [replace(one, prompt=one.prompt.replace(identifier, _word(identifier), 1)) for one in examples]

    def end_task(self, ctx, state, adapter):
        return state.with_tokens(ctx.tokens)


def _word(text):
    """The learned word that takes the place of an identifier."""
    return f"<{'-'.join(text.split())}>"


def _identifier_and_class(prompt, task):
    """The words of a training prompt that name the task, and those that say what it is."""
    kind, _, thing = prompt.rpartition(" of ")
    own = task.casefold().split()
    names = [word for word in kind.split() if word.casefold() in own]
    if names:
        others = [word for word in kind.split() if word not in names]
        return " ".join(names), (others or names)[-1]
    first, *rest = thing.split()
    return first, " ".join(rest) or first
