"""A backbone that is built in a second: a suite's own layers, untrained and narrow, with the bundled text encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from clbench.backbones.sdxl import Backbone
from clbench.suite import Training

WIDTH = 32
"""Channels of the U-Net's first level, which each level doubles."""


@dataclass(frozen=True)
class ToySource:
    """What a toy backbone is built from."""

    folder: Path
    """The whole suite's pipeline, whose U-Net configuration is read."""
    bundled: Path
    """The bundled pipeline, whose VAE and text encoders are loaded."""
    training: Training
    precision: str

    def load(self, device: str) -> Backbone:
        config = json.loads((self.folder / "unet" / "config.json").read_text())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline: Any = StableDiffusionXLPipeline.from_pretrained(self.bundled, local_files_only=True)
            hidden = pipeline.text_encoder.config.hidden_size + pipeline.text_encoder_2.config.hidden_size
            narrow = narrow_unet(config, hidden, pipeline.text_encoder_2.config.projection_dim)
            pipeline.register_modules(unet=UNet2DConditionModel.from_config(narrow))
            return Backbone(pipeline.to(torch.float32), self.training, device, self.precision)


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
