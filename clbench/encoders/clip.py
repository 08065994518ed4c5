"""CLIP through open_clip: image embeddings for CLIP-I, text embeddings for CLIP-T."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor

from clbench.encoders import Encoder


class CLIPEncoder(Encoder):
    """An open_clip model from a local folder in open_clip's layout: configuration, weights, tokenizer.

    Args:
        quick_gelu: reject a model without OpenAI's activation: it loads the same weights, but gives wrong vectors.
    """

    def __init__(self, source: Path, device: str = "cpu", quick_gelu: bool = False) -> None:
        loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{source}", device=device)
        model, preprocess = loaded
        if quick_gelu and not any(isinstance(module, QuickGELU) for module in model.modules()):
            raise ValueError("its open_clip_config.json lacks `quick_gelu: true`")
        super().__init__(model, preprocess, device)
        self._tokenize = open_clip.get_tokenizer(f"local-dir:{source}")

    def features(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    @torch.no_grad()
    def embed_text(self, prompts: list[str]) -> Tensor:
        """One unit vector for each prompt, float32 [N, D] on the CPU."""
        return F.normalize(self.model.encode_text(self._tokenize(prompts).to(self.device)), dim=-1).float().cpu()
