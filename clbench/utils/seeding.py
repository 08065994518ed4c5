"""Every source of randomness is a generator seeded from what it is for; the global ones are for plugins alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def generator(*purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `generator(seed, "train", position)`: the same on every device."""
    return torch.Generator().manual_seed(_seed(purpose))


@contextmanager
def global_seed(*purpose: str | int) -> Iterator[None]:
    """For a while the global generators of torch, NumPy and Python start from one purpose; then they are as before.

    A plugin that draws from them so draws the same every time.
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
