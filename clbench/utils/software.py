"""Versions of the packages that results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

MAKERS = ("clbench", "diffusers", "peft", "transformers", "open_clip_torch", "torchvision", "pillow", "numpy")
"""Beside torch, what draws, trains, embeds and scores."""


@cache
def software() -> Mapping[str, str]:
    """What makes artifacts with other last bits in another version -> its version; part of every recipe."""
    import torch  # which says more of itself than its package does

    return {"torch": torch.__version__, **{name: version(name) for name in MAKERS}}


def software_on(device: str) -> Mapping[str, str]:
    """As `software`, and the instruction set that torch uses on a CPU, whose last bits depend on it."""
    import torch

    return {**software(), **({"instructions": torch.backends.cpu.get_cpu_capability()} if device == "cpu" else {})}
