"""Turn images into unit vectors with CLIP, DINO and CSD.

encoder = load_encoder("clip", folder)
score = mean_pairwise_cosine(encoder.embed(generated), encoder.embed(references))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clbench.errors import ClbenchError, did_you_mean
from clbench.metrics import pairwise_cosines


class Encoder:
    """A model in fp32 that turns images into unit vectors.

    Args:
        preprocess: turns one image into the model's input, float [3, H, W].
    """

    def __init__(self, model: Any, preprocess: Callable[[Image.Image], Tensor], device: str) -> None:
        self.model, self.preprocess, self.device = model.to(device).eval().float(), preprocess, device

    def features(self, pixels: Tensor) -> Tensor:
        """Vectors of any length, [N, D], from preprocessed images [N, 3, H, W]."""
        return self.model(pixels)

    @torch.no_grad()
    def embed(self, images: list[Image.Image]) -> Tensor:
        """One unit vector for each image, float32 [N, D] on the CPU."""
        pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device)
        return F.normalize(self.features(pixels), dim=-1).float().cpu()


def mean_pairwise_cosine(generated: Tensor, reference: Tensor) -> float:
    """Mean over references, then over samples, of the cosine; the rows of [N, D] and [M, D] are unit vectors."""
    return pairwise_cosines(generated, reference).mean(dim=1).mean().item()


def load_encoder(name: str, source: Path, device: str = "cpu", **settings: Any) -> Encoder:
    """Load an encoder from a local folder.

    Args:
        name: `clip`, `csd` or `dino`.
        settings: `resize` for dino, `quick_gelu` for clip.

    Raises:
        ClbenchError: the name or a setting is unknown, or the folder does not hold such a model.
    """
    from clbench.encoders.clip import CLIPEncoder
    from clbench.encoders.csd import CSDEncoder
    from clbench.encoders.dino import DINOEncoder

    kinds = {"clip": CLIPEncoder, "csd": CSDEncoder, "dino": DINOEncoder}
    if name not in kinds:
        raise ClbenchError(f"there is no encoder {name!r}{did_you_mean(name, list(kinds))}")
    try:
        return kinds[name](source, device, **settings)
    except Exception as error:  # three libraries report a bad file by many types of error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, UnpicklingError):  # whose text advises to unpickle it all the same
            reason = "its file of weights holds more than tensors, and is not unpickled"
        raise ClbenchError(f"{source} does not hold a {name} encoder: {reason}") from error
