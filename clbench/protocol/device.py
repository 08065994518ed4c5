"""The device that a process works on, and its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_process(device: str, deterministic: bool) -> None:
    """For a process of its own: one thread on a CPU; on a GPU, if asked, only operations that repeat their bits."""
    if device == "cpu":
        torch.set_num_threads(1)
    elif deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its bits with this alone
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """CPU work on one thread for a while: as many processes do more than as many threads, with the same bits."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def memory_in_use(device: str) -> int:
    """Bytes in use on the accelerator, or by this process where there is none."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return psutil.Process().memory_info().rss
