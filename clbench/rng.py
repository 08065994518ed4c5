"""Every source of randomness is a generator seeded from what it is for; there is no global one."""

from __future__ import annotations

import hashlib
import json

import torch


def generator(*purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `generator(seed, "train", position)`: the same on every device."""
    digest = hashlib.sha256(json.dumps(purpose).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
