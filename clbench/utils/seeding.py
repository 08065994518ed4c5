"""Random generators, each seeded by its purpose; only plugins use the global ones."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def generator(*purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `generator(seed, "train", position)`; the device does not matter."""
    return torch.Generator().manual_seed(_seed(purpose))


@contextmanager
def global_seed(*purpose: str | int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside a `with` block, and restore them after it.

    It makes plugins that use them reproducible.
    """
    seed, python, arrays = _seed(purpose), random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def _seed(purpose: tuple[str | int, ...]) -> int:
    digest = hashlib.sha256(json.dumps(purpose).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
