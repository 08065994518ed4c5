"""The device that a process works on, how the work is done there, and its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from clbench.suite import FrozenModel

LOW_MEMORY_BATCH = 4
"""Images that are drawn at a time to begin with where memory is short."""


class DeviceConfig(FrozenModel):
    """The device and how models run on it; resolved once, before the work is planned."""

    device: str = "cpu"
    """A torch device: `cpu`, `mps`, `cuda` or one of several GPUs, such as `cuda:1`."""
    precision: str = "fp32"
    """`fp32`, `bf16` or `fp16`, of the U-Net; adapters are always fp32."""
    deterministic: bool = False
    """On a GPU: only operations that repeat their bits. A CPU always does."""
    gradient_checkpointing: bool = False
    sample_batch_size: int | None = None
    """The most images that are drawn at a time; None: a whole cell."""
    stays_on_device: bool = False
    """On an accelerator with room for both: while another process trains, what draws and scores stays there, with
    fp32 base weights of its own."""

    def with_low_memory(self) -> DeviceConfig:
        """The same with gradient checkpointing and small sampling batches: less memory, more time."""
        return self.model_copy(update={"gradient_checkpointing": True, "sample_batch_size": LOW_MEMORY_BATCH})


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_process(config: DeviceConfig) -> None:
    """Set up a process of its own: one thread on a CPU; on a GPU, if asked, only operations that repeat their bits."""
    if config.device == "cpu":
        torch.set_num_threads(1)
        return
    if config.device.startswith("cuda"):
        # PyTorch's defaults, said here since they change the last bits: only fp32 convolutions, which are the VAE's and
        # the encoders', round their inputs to TF32.
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its bits with this alone
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        # It finds bugs, and costs a write of all memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Let CPU work use one thread for a while: processes use the cores better than threads, with the same bits."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- memory ---


def memory_in_use(device: str) -> int:
    """Bytes in use on the accelerator, or by this process where there is none."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return psutil.Process().memory_info().rss


def peak_memory(device: str) -> int | None:
    """The most memory that this process has used on the device, in bytes; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def reset_peak_memory(device: str) -> None:
    """Let `peak_memory` begin anew, where the device can: a process's main memory has one peak."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def free_memory(device: str) -> int:
    """Bytes that are free on the device; of a CPU's, no more than this job or container may take."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, *allowed_memory())


LIMITS = (  # of cgroups version 2 and version 1: limit, use, what the kernel gives back when asked
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def allowed_memory(
    membership: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes that this process's control groups still allow, as Slurm and containers limit them."""
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, kinds, group = line.split(":", 2)
            for kind, limit, use, cache in LIMITS:
                if kind not in kinds.split(","):
                    continue
                own = groups / kind / group.lstrip("/")
                for folder in (own, *own.parents):
                    with suppress(OSError, ValueError):  # no such file, or "max"
                        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                        used = int((folder / use).read_text()) - int(stat.get(cache, 0))
                        yield max(0, int((folder / limit).read_text()) - used)
