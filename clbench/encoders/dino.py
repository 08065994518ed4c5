"""DINO through transformers: the class token of the last hidden state, without a pooling layer (Caron et al. 2021)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2
from transformers import ViTModel

from clbench.encoders import Encoder
from clbench.utils.pretrained import load_whole


class DINOEncoder(Encoder):
    """A ViT from a transformers folder; images are resized by PIL, bicubic, as its `preprocessor_config.json` says.

    Args:
        resize: size in pixels to which to resize the shorter side instead, before a centre crop.
    """

    def __init__(self, source: Path, device: str = "cpu", resize: int | None = None) -> None:
        model = load_whole(ViTModel, source, add_pooling_layer=False)
        settings = json.loads((source / "preprocessor_config.json").read_text())
        size = settings["size"]  # older files hold one number
        size = (size, size) if isinstance(size, int) else (size["height"], size["width"])
        preprocess = v2.Compose(
            [
                v2.Lambda(lambda image: image.convert("RGB")),
                v2.Resize(resize or size, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(size),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(settings["image_mean"], settings["image_std"]),
            ]
        )
        super().__init__(model, preprocess, device)

    def features(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).last_hidden_state[:, 0]
