"""A suite cut down until three tasks take seconds: its own tasks, prompts and layers, with little of each.

    models = ToyModels(toy_suite(suite, "styles"), config, folders)

The U-Net is untrained. It has the blocks, and so the layers' names, of the suite's own model, but is no wider than the
bundled one; the VAE and the text encoders are the bundled suite's. No encoder is loaded, and every score is 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image

from clbench.backbones.sdxl import Backbone
from clbench.data.locate import bundled_folder
from clbench.protocol.evaluator import Evaluator
from clbench.protocol.models import Models
from clbench.suite import Suite, Task

TASKS, STEPS, RESOLUTION = 3, 2, 32
WIDTH = 32
"""Channels of the U-Net's first level, which each level doubles."""


def toy_suite(suite: Suite, track: str) -> Suite:
    """The first tasks of a track's first run, trained for two steps and drawn in one."""
    (order, seed), whole = suite.runs(track)[0], suite.track(track)
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
            "training": suite.training.model_copy(update={"steps": STEPS, "adapter_parameters": None}),
            "sampling": suite.sampling.model_copy(update={"steps": 1, "images_per_prompt": 1, "scheduler": None}),
            "tracks": {track: whole.model_copy(update=short)},
        }
    )


class ToyModels(Models):
    """The models of a toy suite; its `folders` are those of the whole suite."""

    @cached_property
    def backbone(self) -> Backbone:
        config = json.loads((self.folders["backbone"] / "unet" / "config.json").read_text())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline: Any = StableDiffusionXLPipeline.from_pretrained(bundled_folder("pipeline"), local_files_only=True)
            hidden = pipeline.text_encoder.config.hidden_size + pipeline.text_encoder_2.config.hidden_size
            narrow = narrow_unet(config, hidden, pipeline.text_encoder_2.config.projection_dim)
            pipeline.register_modules(unet=UNet2DConditionModel.from_config(narrow))
            own = self.config
            return Backbone(pipeline.to(torch.float32), self.suite.training, own.device, own.precision)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return self.backbone.shapes

    def evaluator(self, track: str) -> Evaluator:
        return _NoScores(self.suite, self.suite.track(track), self.encoder, self.folders)


class _NoScores(Evaluator):
    def score(self, task: Task, images: list[Image.Image]) -> dict[str, float]:
        return dict.fromkeys(self.track.metrics, 0.0)


def narrow_unet(config: Mapping[str, Any], hidden: int, pooled: int) -> dict[str, Any]:
    """A U-Net's configuration with the same blocks, but few channels.

    Args:
        hidden, pooled: widths of the text encoders' hidden states and pooled embedding.
    """
    widths = [min(width, WIDTH * 2**level) for level, width in enumerate(config["block_out_channels"])]
    same = widths == list(config["block_out_channels"])
    return {
        **config,
        "block_out_channels": widths,
        "attention_head_dim": config["attention_head_dim"] if same else 2,
        "norm_num_groups": math.gcd(config.get("norm_num_groups", 32), *widths),
        "cross_attention_dim": hidden,
        "projection_class_embeddings_input_dim": 6 * config["addition_time_embed_dim"] + pooled,
    }
