"""A suite's models on one device: each is loaded when it is first needed, once for all tracks and methods."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from clbench.backbones.architecture import adapted_shapes, token_widths
from clbench.backbones.sdxl import Backbone
from clbench.backbones.source import BackboneSource, PipelineSource
from clbench.encoders import Encoder, load_encoder
from clbench.protocol.device import DeviceConfig
from clbench.protocol.evaluator import Evaluator
from clbench.suite import Suite
from clbench.utils.pretrained import quietly


class Models:
    """The backbone, the encoders, and an evaluator for each track.

    Args:
        folders: model or data set -> local folder; more may be added by each track.
    """

    def __init__(self, suite: Suite, config: DeviceConfig, folders: Mapping[str, Path]) -> None:
        self.suite, self.config, self.folders = suite, config, dict(folders)
        self._encoders: dict[str, Encoder] = {}
        self._evaluators: dict[str, Evaluator] = {}
        self.emit: Callable[[dict[str, Any]], None] = lambda event: None
        """Called with `load` before a model is loaded, and with `loaded` after."""

    @cached_property
    def backbone(self) -> Backbone:
        gc.collect()  # the models of a failed unit go before others come
        with self._loading("backbone"):
            return self.backbone_source.load(self.config.device)

    @property
    def backbone_source(self) -> BackboneSource:
        """How other processes load the same backbone."""
        return PipelineSource(
            self.folders["backbone"],
            self.suite.training,
            self.config.precision,
            vae=self.folders.get("vae"),
            scheduler=self.suite.sampling.scheduler,
            gradient_checkpointing=self.config.gradient_checkpointing,
            sample_batch_size=self.config.sample_batch_size,
            base_on_device=self.config.stays_on_device,
        )

    @contextmanager
    def off_device(self) -> Iterator[None]:
        """On an accelerator: give another process room for a while, for which models go to the CPU unless both fit."""
        device, stays = self.config.device, self.config.stays_on_device or self.config.device == "cpu"
        if not stays:
            self._move("cpu")
            gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        try:
            yield
        finally:
            if not stays:
                self._move(device)

    def _move(self, device: str) -> None:
        if "backbone" in vars(self):
            self.backbone.move(device)
        for encoder in self._encoders.values():
            encoder.model.to(device)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Adapted layer -> (out, in); read from the configuration, without loading the model."""
        return adapted_shapes(self.folders["backbone"], self.suite.training)

    @cached_property
    def token_widths(self) -> tuple[int, ...]:
        """Width of a learned token's vector in each text encoder; read from the configurations."""
        return token_widths(self.folders["backbone"])

    def encoder(self, name: str) -> Encoder:
        """One of the suite's encoders, by name."""
        if name not in self._encoders:
            weights = self.suite.encoders[name]
            options = {"resize": weights.resize, "quick_gelu": weights.quick_gelu}
            given = {key: value for key, value in options.items() if value is not None}
            # Building modules draws weights that are replaced at once.
            with self._loading(name), torch.random.fork_rng(devices=[]):
                self._encoders[name] = load_encoder(name, self.folders[name], self.config.device, **given)
        return self._encoders[name]

    @contextmanager
    def _loading(self, model: str) -> Iterator[None]:
        self.emit({"event": "load", "model": model})
        with quietly():
            yield
        self.emit({"event": "loaded", "model": model})

    def evaluator(self, track: str) -> Evaluator:
        """The evaluator of a track, which keeps the embeddings of its references."""
        if track not in self._evaluators:
            self._evaluators[track] = Evaluator(self.suite, self.suite.track(track), self.encoder, self.folders)
        return self._evaluators[track]
