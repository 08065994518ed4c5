"""Versions of the packages that results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

RESULT_PACKAGES = ("clbench", "diffusers", "peft", "transformers", "open_clip_torch", "torchvision", "pillow", "numpy")
"""Packages whose version may change results; torch is added to them."""


@cache
def software_versions(device: str | None = None) -> Mapping[str, str]:
    """Package versions that may change results; part of every cache key.

    Args:
        device: on "cpu" also the instruction set that torch uses, because the last bits of results depend on it.
    """
    import torch

    # torch.__version__ also names the build, such as "+cu128".
    versions = {"torch": torch.__version__, **{name: version(name) for name in RESULT_PACKAGES}}
    return {**versions, "instructions": torch.backends.cpu.get_cpu_capability()} if device == "cpu" else versions
