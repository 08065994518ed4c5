"""What other processes do in tests: workshops for worker processes that start in no time, and small functions."""

import os
import signal
import time
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.utils.files import write_atomic


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


class Shot:
    """As of a process that the system kills, whatever it is given."""

    def do(self, unit, tell):
        os.kill(os.getpid(), signal.SIGKILL)


def open_shot_shop(setup: str):
    return Shot()


class Slow:
    """Writes a file for half a second."""

    def __init__(self, path):
        self.path = path

    def do(self, unit, tell):
        write_atomic(self.path, self.write)
        time.sleep(60)
        return True

    def write(self, temporary):
        with temporary.open("w") as file:
            for word in ("half", "whole"):
                print(word, file=file, flush=True)
                time.sleep(0.5)


def open_slow_shop(path: str):
    return Slow(Path(path))


def with_process(item: int) -> tuple[int, int]:
    """A number's square, and the process that computed it."""
    return item * item, os.getpid()


def refuse(limit: int, item: int) -> int:
    """Fail for numbers from `limit` on."""
    if item >= limit:
        raise ClbenchError(f"{item} is too much")
    return item
