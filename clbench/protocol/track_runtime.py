"""One track of one suite on one device: its models, its cells, its controls; all of it keyed for the store."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clbench.backbones.architecture import adapted_shapes, adapter_parameters
from clbench.backbones.sdxl import Backbone
from clbench.data.assets import TrackAssets, resolve_assets
from clbench.data.images import image_suffix, load_images, side_by_side, thumbnail
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import WorkFailed
from clbench.lora import Delta
from clbench.method import Example
from clbench.protocol.evaluator import Evaluator
from clbench.protocol.sampling import draw_cell
from clbench.protocol.trainer import make_examples
from clbench.results.schema import Controls
from clbench.state import digest
from clbench.storage.store import Store, recipe_key
from clbench.suite import Suite, Task
from clbench.utils.images import to_pil
from clbench.utils.software import software_versions


class Bench:
    """One track of one suite on one device, its models loaded when first needed.

    Args:
        assets: where the models and data sets lie; default where they belong.
        low_memory: checkpoint gradients, and draw few images at a time.
        keep_images: keep every image that is scored.
        kin: another track of the same suite, whose models this one uses.
    """

    def __init__(
        self,
        suite: Suite,
        track: str,
        store: Store,
        device: str = "cpu",
        precision: str = "fp32",
        assets: TrackAssets | None = None,
        *,
        low_memory: bool = False,
        keep_images: bool = False,
        deterministic: bool = False,
        kin: Bench | None = None,
    ) -> None:
        self.suite, self.track, self.store = suite, suite.track(track), store
        self.device, self.precision, self.low_memory = device, precision, low_memory
        self.keep_images, self.deterministic = keep_images, deterministic
        self.assets = assets or resolve_assets(suite, suite.name, track, AssetPaths(default_data_root(), Path()))
        self.kin = kin
        self.tell: Callable[[dict[str, Any]], None] = lambda event: None
        """Told what just happened, as an event of `clbench.runner.engine`: `work`, `loss`, `cell`."""

    def worked(self, passes: float) -> None:
        """Tell of U-Net passes that were just made."""
        self.tell({"event": "work", "made": passes})

    @cached_property
    def backbone(self) -> Backbone:
        if self.kin:
            return self.kin.backbone
        folders = self.assets.folders
        gc.collect()  # the models of a failed unit go before others come
        return Backbone.load(
            folders["backbone"],
            self.suite.training,
            self.device,
            self.precision,
            vae=folders.get("vae"),
            scheduler=self.suite.sampling.scheduler,
            low_memory=self.low_memory,
        )

    @cached_property
    def evaluator(self) -> Evaluator:
        known = self.kin.evaluator.encoders if self.kin else {}
        return Evaluator(self.suite, self.track, self.assets.folders, self.device, known)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What every artifact of this bench depends on.

        Versions because they change the last bits, and where the last bits are promised also what else changes them.
        """
        cpu = self.device == "cpu"
        return {
            "suite": self.suite.sha256,
            "assets": self.assets.sha256,
            "track": self.track.name,
            "device": self.device,
            "precision": self.precision,
            **software_versions(self.device),
            **({"threads": torch.get_num_threads()} if cpu else {}),
            **({"deterministic": True} if self.deterministic else {}),
            **({"low_memory": True} if self.low_memory and (cpu or self.deterministic) else {}),
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
        return adapter_parameters(self.shapes, self.suite.training.rank)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Adapted layer -> (out, in); told without loading the model."""
        if self.kin:
            return self.kin.shapes
        return adapted_shapes(self.assets.folders["backbone"], self.suite.training)

    def examples(self, task: Task, source: torch.Generator) -> list[Example]:
        """A task's training images with their prompt; `source` draws where they are cut."""
        images = load_images(task.train, self.suite.resolution, self.assets.folders)
        return make_examples(images, self.track.train_prompt(task), self.suite.resolution, source)

    def sample(
        self, prompts: Iterable[str], images_each: int, weights: Mapping[str, Tensor], source: torch.Generator
    ) -> Tensor:
        """Images of any model, for methods that replay: float [N, 3, H, W] in [-1, 1]; what is deployed stays so."""
        noise_seed = int(torch.randint(2**62, (), generator=source))
        own = {"images_per_prompt": images_each, "noise_seed": noise_seed}
        with self.backbone.temporary_weights(weights):
            sampling = self.suite.sampling.model_copy(update=own)
            return draw_cell(self.backbone, list(prompts), sampling, self.suite.resolution) * 2 - 1

    def controls(self) -> Controls:
        """The track's controls, computed once."""
        stored = self.store.get_json(self.controls_key)
        if stored is None:
            stored = self.store.put_json(self.controls_key, self.evaluator.controls().model_dump(mode="json"))
        return Controls.model_validate(stored)

    def base_row(self) -> dict[str, dict[str, Any]]:
        """Task -> scores of the untouched model and its cell's key: drawn once a track, whatever the method."""
        stored = self.store.get_json(self.base_key)
        if stored is None or not self.has_images(one["cell"] for one in stored.values()):
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
        with self.store.lock(key):  # other methods may end with the same weights, at the same time
            found = self.store.get_json(key) if self.has_images([key]) else None
            scores = found or self._draw(key, task, prompts, weights, weights_digest)
        self.worked(self.cell_work)
        self.tell({"event": "cell", "task": task.name, "cell": key, "scores": scores, "found": found is not None})
        return key, scores

    def has_images(self, cells: Iterable[str]) -> bool:
        """Whether all images of cells are in the store, if they are to be kept."""
        last = image_suffix(len(self.track.eval_prompt_templates) * self.suite.sampling.images_per_prompt - 1)
        return not self.keep_images or all(self.store.has(cell, last) for cell in cells)

    def _draw(self, key: str, task: Task, prompts: list[str], weights: Delta, weights_digest: str) -> dict[str, float]:
        """Draw, score and keep one cell."""
        each = self.suite.sampling.images_per_prompt
        self.backbone.use_adapter(None)
        self.backbone.deploy(weights, weights_digest)
        drawn = draw_cell(self.backbone, prompts, self.suite.sampling, self.suite.resolution)
        if not bool(torch.isfinite(drawn).all()):
            raise WorkFailed(f"the model draws task {task.name!r} as NaN or infinity; finished work is kept")
        images = to_pil(drawn)
        if self.keep_images:
            for number, image in enumerate(images):
                self.store.put(key, image_suffix(number), lambda path, image=image: image.save(path, format="PNG"))
        strip = side_by_side([thumbnail(image) for image in images[::each]])
        self.store.put(key, ".png", lambda path: strip.save(path, format="PNG"))
        return self.store.put_json(key, self.evaluator.score(task, images))
