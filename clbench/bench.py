"""One track of one suite on one device: its models, its cells, its controls; all of it keyed for the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clbench.backbone import Backbone
from clbench.errors import ClbenchError, WorkFailed
from clbench.evaluate import Evaluator
from clbench.files import folder_sha256
from clbench.lora import Delta
from clbench.method import Example
from clbench.miniworld.render import draw_set, to_pil
from clbench.result import Controls
from clbench.sample import draw_cell
from clbench.state import digest
from clbench.store import Store, recipe_key
from clbench.suite import Suite, Task, Weights


class Bench:
    """One track of one suite on one device, its models loaded when first needed."""

    def __init__(self, suite: Suite, track: str, store: Store, device: str = "cpu", precision: str = "fp32") -> None:
        self.suite, self.track, self.store = suite, suite.track(track), store
        self.device, self.precision = device, precision

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.load(locate(self.suite.backbone), self.suite.training, self.device, self.precision)

    @cached_property
    def evaluator(self) -> Evaluator:
        folders = {name: locate(weights) for name, weights in self.suite.encoders.items()}
        return Evaluator(self.suite, self.track, folders, self.device)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What every artifact of this bench depends on; threads and versions because they change the last bits."""
        return {
            "suite": self.suite.sha256,
            "track": self.track.name,
            "device": self.device,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "clbench": version("clbench"),
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
            "peft": version("peft"),
        }

    @property
    def controls_key(self) -> str:
        return recipe_key("controls", self.recipe)

    @property
    def base_key(self) -> str:
        return recipe_key("base", self.recipe)

    @property
    def train_work(self) -> float:
        """U-Net passes of one training: a backward pass counts as two."""
        return 3.0 * self.suite.training.steps * self.suite.training.batch_size

    @property
    def cell_work(self) -> float:
        images = self.suite.sampling.images_per_prompt * len(self.track.eval_prompt_templates)
        return 2.0 * self.suite.sampling.steps * images

    @property
    def trainable_parameters(self) -> int:
        """Number of values of one registered adapter."""
        return sum(self.suite.training.rank * (out + inputs) for out, inputs in self.backbone.shapes.values())

    def examples(self, task: Task) -> list[Example]:
        """A task's training images with their prompt."""
        images = draw_set(task.train, self.suite.resolution)
        pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1 for image in images]
        return [Example(image, self.track.train_prompt(task)) for image in pixels]

    def sample(
        self, prompts: Iterable[str], images_each: int, weights: Mapping[str, Tensor], source: torch.Generator
    ) -> Tensor:
        """Images of any model, for methods that replay: float [N, 3, H, W] in [-1, 1]; what is deployed stays so."""
        noise_seed = int(torch.randint(2**62, (), generator=source))
        own = {"images_per_prompt": images_each, "noise_seed": noise_seed}
        with self.backbone.other_weights(weights):
            return draw_cell(self.backbone, list(prompts), self.suite.sampling.model_copy(update=own)) * 2 - 1

    def controls(self) -> Controls:
        """The track's controls, computed once."""
        stored = self.store.get_json(self.controls_key)
        if stored is None:
            stored = self.store.put_json(self.controls_key, self.evaluator.controls().model_dump(mode="json"))
        return Controls.model_validate(stored)

    def base_row(self) -> dict[str, dict[str, Any]]:
        """Task -> scores of the untouched model and its cell's key: drawn once a track, whatever the method."""
        stored = self.store.get_json(self.base_key)
        if stored is None:
            nothing = digest(Delta())
            cells = [self.cell(task, self.track.eval_prompts(task), Delta(), nothing) for task in self.track.tasks]
            named = zip(self.track.tasks, cells, strict=True)
            stored = self.store.put_json(
                self.base_key, {task.name: {"cell": key, "scores": scores} for task, (key, scores) in named}
            )
        return stored

    def cell(self, task: Task, prompts: list[str], weights: Delta, weights_digest: str) -> tuple[str, dict[str, float]]:
        """One cell's key in the store and its scores; the weights are deployed only if it must be drawn.

        Beside the scores the store keeps a strip of the first image of each prompt, for the sample grids.
        """
        recipe = {**self.recipe, "task": task.name, "prompts": prompts, "weights": weights_digest}
        key = recipe_key("cell", recipe)
        stored = self.store.get_json(key)
        if stored is None:
            self.backbone.use_adapter(None)
            self.backbone.deploy(weights)
            drawn = draw_cell(self.backbone, prompts, self.suite.sampling)
            if not bool(torch.isfinite(drawn).all()):
                raise WorkFailed(f"the model draws task {task.name!r} as NaN or infinity; finished work is kept")
            images = to_pil(drawn)
            strip = side_by_side(images[:: self.suite.sampling.images_per_prompt])
            self.store.put(key, ".png", lambda path: strip.save(path, format="PNG"))
            stored = self.store.put_json(key, self.evaluator.score(task, images))
        return key, stored


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def locate(weights: Weights) -> Path:
    """The local folder of a model, its checksum compared.

    Raises:
        ClbenchError: missing, or not what the definition names.
    """
    kind, _, name = weights.source.partition(":")
    folder = Path(__file__).parent / "miniworld" / "weights" / name if kind == "bundled" else Path(weights.source)
    if not folder.is_dir():
        raise ClbenchError(f"the model {weights.source} is missing: there is no folder {folder}")
    found = folder_sha256(folder)
    if found != weights.sha256:
        raise ClbenchError(
            f"{folder} is not the model that the definition names: its sha256 is {found[:12]}..., "
            f"expected {weights.sha256[:12]}...; restore it, e.g. with `git checkout -- {folder}`"
        )
    return folder


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """One row of pictures of the same size."""
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        strip.paste(image, (index * width, 0))
    return strip
