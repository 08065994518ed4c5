"""Turn images into unit vectors with CLIP, DINO and CSD.

encoder = load_encoder("clip", folder)
score = mean_pairwise_cosine(encoder.embed(generated), encoder.embed(references))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from clbench.errors import ClbenchError, did_you_mean


class Encoder(Protocol):
    """The interface of an encoder."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """One image as the model's input, float [3, H, W]."""
        ...

    def embed(self, images: list[Image.Image]) -> Tensor:
        """One unit vector for each image, float32 [N, D] on the CPU."""
        ...


def mean_pairwise_cosine(generated: Tensor, reference: Tensor) -> float:
    """Mean cosine of all pairs of rows; the rows of [N, D] and [M, D] are unit vectors."""
    return (generated @ reference.T).mean(dim=1).mean().item()


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
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ClbenchError(f"{source} does not hold a {name} encoder: {error}") from error
