"""Adapters of random factors, and their states under PEFT's names."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.backbones.sdxl import Backbone
from clbench.lora import Adapter


def random_adapter(backbone: Backbone) -> Adapter:
    """An adapter whose both factors say something; the same for the same layers."""
    source, rank = torch.Generator().manual_seed(3), backbone.rank
    A = {name: torch.randn(rank, size, generator=source) / rank for name, (_, size) in backbone.shapes.items()}
    B = {name: torch.randn(size, rank, generator=source) / 10 for name, (size, _) in backbone.shapes.items()}
    return Adapter(A, B, backbone.scale)


def peft_state(adapter: Adapter) -> dict[str, Tensor]:
    """The factors as a PEFT model names them."""
    factors = (("lora_A", adapter.A), ("lora_B", adapter.B))
    return {f"{name}.{side}.weight": value for side, own in factors for name, value in own.items()}
