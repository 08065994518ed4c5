"""Convert between tensors and PIL images."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """float [N, 3, H, W] in [0, 1] -> RGB images."""
    array = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in array]
