"""CSD: a CLIP image tower without its projection, times a style head (Somepalli et al. 2024)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn


class CSD(nn.Module):
    """The style embedding is the tower's feature times `last_layer_style`; the content head is kept as published."""

    def __init__(self, vision_cfg: dict, embed_dim: int) -> None:
        super().__init__()
        tower: Any = _build_vision_tower(embed_dim, CLIPVisionCfg(**vision_cfg))
        width = tower.proj.shape[0]
        tower.proj = None
        self.backbone = tower
        self.last_layer_style = nn.Parameter(torch.zeros(width, embed_dim))
        self.last_layer_content = nn.Parameter(torch.zeros(width, embed_dim), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, D], not normalised."""
        return self.backbone(pixels) @ self.last_layer_style


class CSDEncoder:
    """CSD from a folder with `config.json` (tower and preprocessing, in open_clip's terms) and `model.safetensors`."""

    def __init__(self, source: Path, device: str = "cpu") -> None:
        config = json.loads((source / "config.json").read_text())
        self.model = CSD(config["vision_cfg"], config["embed_dim"])
        self.model.load_state_dict(load_file(source / "model.safetensors"))
        self.model.to(device).eval().float()
        size = config["vision_cfg"]["image_size"]
        self._transform = image_transform_v2(PreprocessCfg(size=size, **config["preprocess_cfg"]), is_train=False)
        self.device = device

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._transform(image)  # type: ignore[return-value]

    @torch.no_grad()
    def embed(self, images: list[Image.Image]) -> Tensor:
        pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device)
        return F.normalize(self.model(pixels), dim=-1).float().cpu()
