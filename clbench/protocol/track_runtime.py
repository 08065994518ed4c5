"""One track of one suite at work: its training images, its cells, its base row, its controls, all kept in a store."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import FiniteFloat, TypeAdapter

from clbench.backbones.architecture import adapter_parameters
from clbench.backbones.sdxl import Backbone
from clbench.data.assets import TrackAssets, resolve_assets
from clbench.data.images import image_suffix, load_images, side_by_side, thumbnail
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import MethodFailed
from clbench.lora import Delta
from clbench.method import Example
from clbench.protocol import probes
from clbench.protocol.device import DeviceConfig
from clbench.protocol.hook_checks import AdapterSpec
from clbench.protocol.hook_runner import KEPT
from clbench.protocol.keys import TrackKeys, track_recipe
from clbench.protocol.models import Models
from clbench.protocol.sampling import draw_cell
from clbench.protocol.trainer import make_examples
from clbench.results.schema import Controls
from clbench.state import digest
from clbench.storage.store import Store
from clbench.suite import Suite, Task
from clbench.tokens import Tokens, named_tensors, tokens_in
from clbench.utils.images import to_pil

_SCORES = TypeAdapter(dict[str, FiniteFloat])
_BASE_ROW = TypeAdapter(dict[str, dict[str, Any]])


class TrackRuntime:
    """One track of one suite on one device.

    Args:
        assets: where the models and data sets are; default their usual places.
        models: models that are loaded already, such as another track's; default they are loaded when first needed.
        keep_images: keep every image that is scored.
        in_process: whether methods run in this process, whose artifacts are then no other run's.
    """

    def __init__(
        self,
        suite: Suite,
        track: str,
        store: Store,
        config: DeviceConfig | None = None,
        assets: TrackAssets | None = None,
        *,
        models: Models | None = None,
        keep_images: bool = False,
        in_process: bool = False,
    ) -> None:
        self.suite, self.track, self.store, self.keep_images = suite, suite.track(track), store, keep_images
        self.config, self._in_process = config or DeviceConfig(), in_process
        self.assets = assets or resolve_assets(suite, suite.name, track, AssetPaths(default_data_root(), Path()))
        self.models = models or Models(suite, self.config, {})
        self.models.folders.update(self.assets.folders)
        self._encoded = False
        self.emit: Callable[[dict[str, Any]], None] = lambda event: None
        """Called with each event: `work`, `loss` or `cell` (see `clbench.runner.monitor.events`)."""

    @property
    def backbone(self) -> Backbone:
        return self.models.backbone

    @cached_property
    def keys(self) -> TrackKeys:
        """Made when first needed, when the number of threads is set."""
        recipe = track_recipe(self.suite, self.track.name, self.assets.sha256, self.config)
        return TrackKeys({**recipe, **({"in_process": True} if self._in_process else {})})

    @property
    def adapter_spec(self) -> AdapterSpec:
        training = self.suite.training
        return AdapterSpec(self.models.shapes, training.rank, training.alpha / training.rank)

    @property
    def trainable_parameters(self) -> int:
        """Number of values of one registered adapter."""
        return adapter_parameters(self.models.shapes, self.suite.training.rank)

    # --- work, counted in U-Net passes of one image ---

    @property
    def train_work(self) -> float:
        """Passes of one training; a backward pass counts as two."""
        return 3.0 * self.suite.training.steps * self.suite.training.batch_size

    @property
    def cell_work(self) -> float:
        """Passes of one cell."""
        return self.drawing_work(len(self.track.eval_prompt_templates))

    def drawing_work(self, prompts: int) -> float:
        """Passes of the images of so many prompts, with and without their prompt."""
        return 2.0 * self.suite.sampling.steps * self.suite.sampling.images_per_prompt * prompts

    def report_work(self, passes: float) -> None:
        """Emit that so many passes were made."""
        self.emit({"event": "work", "made": passes})

    # --- images ---

    def examples(self, task: Task, source: torch.Generator) -> list[Example]:
        """A task's training images with their prompt; `source` draws where they are cut."""
        images = load_images(task.train, self.suite.resolution, self.assets.folders)
        return make_examples(images, self.track.train_prompt(task), self.suite.resolution, source)

    def cell(
        self, task: Task, prompts: list[str], weights: Delta, weights_digest: str, tokens: Tokens | None = None
    ) -> tuple[str, dict[str, float]]:
        """A cell's key in the store and its scores; it is drawn only if the store does not have it.

        Beside the scores the store keeps a strip of the first image of each prompt, for the sample grids.

        Args:
            tokens: learned tokens that the prompts may contain.
        """
        used = named_tensors(tokens_in(tokens or {}, prompts))
        key = self.keys.cell(task.name, prompts, weights_digest, digest(used) if used else None)
        with self.store.lock(key):  # other methods may end with the same weights, at the same time
            found = self.store.get_json(key, self._scores) if self.has_images([key]) else None
            scores = found or self._draw(key, task, prompts, weights, weights_digest, tokens)
        self.report_work(self.cell_work)
        self.emit({"event": "cell", "task": task.name, "cell": key, "scores": scores, "found": found is not None})
        return key, scores

    def _scores(self, stored: Any) -> dict[str, float]:
        """A cell's scores as the store has them; raises ValueError where they are none of this track."""
        scores = _SCORES.validate_python(stored)
        if set(scores) != set(self.track.metrics):
            raise ValueError(f"scores of {sorted(scores)} instead of {sorted(self.track.metrics)}")
        return scores

    def has_images(self, cells: Iterable[str]) -> bool:
        """Whether all images of cells are in the store, if they are to be kept."""
        last = image_suffix(len(self.track.eval_prompt_templates) * self.suite.sampling.images_per_prompt - 1)
        return not self.keep_images or all(self.store.has(cell, last) for cell in cells)

    def _draw(
        self, key: str, task: Task, prompts: list[str], weights: Delta, weights_digest: str, tokens: Tokens | None
    ) -> dict[str, float]:
        """Draw, score and store one cell."""
        each = self.suite.sampling.images_per_prompt
        images = self.draw(prompts, weights, weights_digest, f"task {task.name!r}", tokens)
        if self.keep_images:
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # compressing takes a second a large picture
                list(threads.map(lambda numbered: self._keep(key, *numbered), enumerate(images)))
        strip = side_by_side([thumbnail(image) for image in images[::each]])
        self.store.put(key, ".png", lambda path: strip.save(path, format="PNG"))
        return self.store.put_json(key, self.models.evaluator(self.track.name).score(task, images))

    def _keep(self, key: str, number: int, image: Image.Image) -> None:
        self.store.put(key, image_suffix(number), lambda path: image.save(path, format="PNG"))

    def draw(
        self, prompts: list[str], weights: Delta, weights_digest: str, what: str, tokens: Tokens | None = None
    ) -> list[Image.Image]:
        """The images of a model, prompt by prompt; `what` they show is for the message of an error.

        Raises:
            MethodFailed: they are not finite.
        """
        if self.config.device != "cpu" and not self._encoded:
            self._encode_prompts()
        self.backbone.use_adapter(None)
        self.backbone.deploy(weights, weights_digest)
        drawn = draw_cell(self.backbone, prompts, self.suite.sampling, self.suite.resolution, tokens)
        if not bool(torch.isfinite(drawn).all()):
            raise MethodFailed(f"the model draws {what} as NaN or infinity{KEPT}")
        return to_pil(drawn)

    def _encode_prompts(self) -> None:
        """Encode all prompts of the evaluation, so that the text encoders travel to the device once."""
        track = self.track
        prompts = [prompt for task in track.tasks for prompt in (*track.eval_prompts(task), *track.leak_prompts(task))]
        self.backbone.encode_prompts(prompts + list(track.drift.prompts if track.drift else ()))
        self._encoded = True

    # --- words ---

    def training_words(self, task: Task) -> dict[str, str]:
        """The fields of a task that its training prompt has, with their words: what a method may know."""
        names = {name for _, name, _, _ in string.Formatter().parse(self.track.train_prompt_template) if name}
        return {name: task.fields[name] for name in sorted(names)}

    # --- what all methods share ---

    def controls(self) -> Controls:
        """The track's controls, computed once."""
        stored = self.stored_controls()
        if stored is None:
            stored = self.models.evaluator(self.track.name).controls()
            self.store.put_json(self.keys.controls, stored.model_dump(mode="json"))
        return stored

    def stored_controls(self) -> Controls | None:
        """As `controls`, if the store has them."""
        return self.store.get_json(self.keys.controls, Controls.model_validate)

    def base_row(self) -> dict[str, dict[str, Any]]:
        """Task -> scores of the untouched model and its cell's key: drawn once a track, whatever the method."""
        stored = self.stored_base_row()
        if stored is None:
            nothing = digest(Delta())
            tasks = self.track.tasks
            cells = [self.cell(task, self.track.eval_prompts(task), Delta(), nothing) for task in tasks]
            leak = probes.leak(self, list(tasks), Delta(), nothing)
            self.report_work(probes.leak_passes(self))
            if self.track.drift:
                probes.untouched(self)
                self.report_work(probes.drift_passes(self))
            row = {task.name: {"cell": key, "scores": own} for task, (key, own) in zip(tasks, cells, strict=True)}
            for metric, values in (leak or {}).items():
                for task, value in zip(tasks, values, strict=True):
                    row[task.name].setdefault("leak", {})[metric] = value
            stored = self.store.put_json(self.keys.base, row)
        return stored

    def stored_base_row(self) -> dict[str, dict[str, Any]] | None:
        """As `base_row`, if the store has it."""
        stored = self.store.get_json(self.keys.base, self._base_row)
        if stored is None or not self.has_images(one["cell"] for one in stored.values()):
            return None
        if self.track.drift and not self.store.has(self.keys.drift, ".safetensors"):
            return None
        return stored

    def _base_row(self, stored: Any) -> dict[str, dict[str, Any]]:
        """The base row as the store has it; raises ValueError where it is none of this track."""
        row = _BASE_ROW.validate_python(stored)
        if set(row) != set(self.track.task_names) or not all(isinstance(one.get("cell"), str) for one in row.values()):
            raise ValueError("it is of other tasks, or lacks a cell's key")
        leaks = set(self.track.headline_metrics) if self.track.leak_prompt_templates else set()
        if any(set(one.setdefault("leak", {})) != leaks for one in row.values()):
            raise ValueError("it lacks what leaks of a task's look")
        return {task: {**one, "scores": self._scores(one.get("scores"))} for task, one in row.items()}
