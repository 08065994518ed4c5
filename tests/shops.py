"""Workshops for worker processes that start in no time."""

import os
import time


class Sound:
    def do(self, unit, tell):
        time.sleep(0.02)
        return True


class Bad:
    """As of a GPU that fails whatever it is given."""

    def do(self, unit, tell):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`")


def open_shop(setup: str):
    return Bad() if os.environ.get("BAD") else Sound()
