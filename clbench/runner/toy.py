"""A suite cut down until three tasks take seconds: its own tasks, prompts and layers, with little of each.

    models = ToyModels(toy_suite(suite, "styles"), config, folders)

The U-Net is untrained. It has the blocks, and so the layers' names, of the suite's own model, but is no wider than the
bundled one; the VAE and the text encoders are the bundled suite's. No encoder is loaded, and every score is 0.
"""

from __future__ import annotations

from functools import cached_property

from PIL import Image

from clbench.backbones.architecture import token_widths
from clbench.backbones.source import BackboneSource
from clbench.backbones.toy import ToySource
from clbench.data.locate import bundled_folder
from clbench.protocol.evaluator import Evaluator
from clbench.protocol.models import Models
from clbench.suite import Suite, Task

TASKS, STEPS, RESOLUTION = 3, 2, 32


def toy_suite(suite: Suite, track: str) -> Suite:
    """The first tasks of a track's first run, trained for two steps and drawn in one.

    A task may take as many U-Net passes with a gradient as in the whole suite, for hooks that take a fixed number.
    """
    (order, seed), whole = suite.runs(track)[0], suite.track(track)
    budget = suite.training.most_passes / (STEPS * suite.training.batch_size)
    training = {"steps": STEPS, "budget": max(1.0, budget), "adapter_parameters": None}
    tasks = tuple(whole.ordered(order)[:TASKS])
    short = {
        "tasks": tasks,
        "orders": {order: tuple(range(len(tasks)))},
        "seeds": {order: seed},
        "eval_prompt_templates": whole.eval_prompt_templates[:1],
        "content_prompt_templates": whole.content_prompt_templates[:1],
        "score_next_task": None,
        "leak_prompt_templates": None,
        "drift": None,
    }
    return suite.model_copy(
        update={
            "resolution": RESOLUTION,
            "training": suite.training.model_copy(update=training),
            "sampling": suite.sampling.model_copy(update={"steps": 1, "images_per_prompt": 1, "scheduler": None}),
            "tracks": {track: whole.model_copy(update=short)},
        }
    )


class ToyModels(Models):
    """The models of a toy suite; its `folders` are those of the whole suite."""

    @property
    def backbone_source(self) -> BackboneSource:
        return ToySource(
            self.folders["backbone"], bundled_folder("pipeline"), self.suite.training, self.config.precision
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return self.backbone.shapes

    @cached_property
    def token_widths(self) -> tuple[int, ...]:
        return token_widths(bundled_folder("pipeline"))

    def evaluator(self, track: str) -> Evaluator:
        return _NoScores(self.suite, self.suite.track(track), self.encoder, self.folders)


class _NoScores(Evaluator):
    def score(self, task: Task, images: list[Image.Image]) -> dict[str, float]:
        return dict.fromkeys(self.track.metrics, 0.0)
