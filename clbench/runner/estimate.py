"""What a run will take, before anything is loaded: time, device memory, disk.

footprint = model_footprint(suite, folders, "bf16")
machine = measure_machine("cuda", "bf16")
config = fit_memory(footprint, suite, config, "auto", machine.free_memory, sharing=1)
estimate(footprint, sweep, machine, ...)
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from clbench.backbones.architecture import DTYPES
from clbench.errors import ClbenchError
from clbench.protocol.device import DeviceConfig, free_memory
from clbench.results.environment import describe
from clbench.results.schema import Environment
from clbench.runner.config import SweepSpec
from clbench.runner.footprint import ModelFootprint
from clbench.suite import Suite
from clbench.utils.files import nearest_existing
from clbench.utils.formatting import counted, format_bytes, format_time

CPU_EFFICIENCY = (0.5, 0.5)
"""Shares of a device's matrix multiplication rate that such a U-Net is taken to reach in training and in sampling."""
GPU_EFFICIENCY = (0.1, 0.4)
"""The same on a GPU, where a training step of one image waits for its kernels to be launched; not measured."""
MARGIN = 1.15
"""On memory: the allocator's rounding, workspaces and the driver."""
LIBRARIES = round(1.1e9)
"""Bytes of main memory that a process takes before it has any model; measured."""
IMAGE_BYTES = 1.5
"""A kept PNG's size a pixel, about."""


@dataclass(frozen=True)
class Machine:
    """What was measured where the work is done."""

    free_memory: int
    """Bytes that are free on the device."""
    flops: float
    """FLOP a second of a large matrix product, by one process."""
    free_main_memory: int
    """Bytes of main memory that are free there."""
    environment: Environment


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run will take."""

    seconds: float
    device_bytes: int
    """On the accelerator, or of main memory where there is none; of all workers that share it."""
    disk_bytes: tuple[int, int]
    """If the method hands on an adapter; if it hands on merged weights."""
    gradient_checkpointing: bool

    def __str__(self) -> str:
        small, large = (format_bytes(size) for size in self.disk_bytes)
        mode = " (with gradient checkpointing)" if self.gradient_checkpointing else ""
        return (
            f"estimate: {format_time(self.seconds)}, {format_bytes(self.device_bytes)} of memory{mode}, "
            f"{small} (adapters) to {large} (merged weights) of disk"
        )


def measure_machine(device: str, precision: str) -> Machine:
    """Free memory, speed and software; called where the work is done."""
    return Machine(free_memory(device), matmul_rate(device, precision), free_memory("cpu"), describe(device))


def device_memory(footprint: ModelFootprint, suite: Suite, config: DeviceConfig) -> int:
    """Bytes that one worker needs on its device: of one process, or of two where one stays while the other trains."""
    width = DTYPES[config.precision].itemsize
    always = footprint.parameters * width + footprint.encoders + (LIBRARIES if config.device == "cpu" else 0)
    # With its gradient and two moments; in half precision all factors joined, a copy, and its gradient too.
    adapter = (4 * 4 + (0 if config.precision == "fp32" else 4 + 2 + 2)) * footprint.adapter
    saved = footprint.saved_low if config.gradient_checkpointing else footprint.saved
    training = adapter + suite.training.batch_size * saved
    drawn = min(config.sample_batch_size or suite.largest_cell, suite.largest_cell)
    sampling = drawn * suite.sampling.passes_a_step * footprint.sampled
    stays = always + 4 * footprint.adapted if config.stays_on_device else 0
    return round(MARGIN * (stays + always + max(training, sampling, footprint.decode)))


def fit_memory(
    footprint: ModelFootprint, suite: Suite, config: DeviceConfig, memory: str, free: int, sharing: int
) -> DeviceConfig:
    """The configuration that fits into a device's memory.

    Fewer images are drawn at a time before gradients are checkpointed, where that may change last bits: on a GPU, if it
    is not told to repeat them. Where there is room, what draws stays on the GPU while another process trains.

    Args:
        config: without gradient checkpointing.
        memory: `low`, `high`, or `auto`, which is `low` where it must be.
        free: bytes.
        sharing: how many workers share them.

    Raises:
        ClbenchError: it does not fit, even with `low`.
    """
    low = config.with_low_memory()
    if memory != "low" and config.device.startswith("cuda") and not config.deterministic:
        config = _with_fitting_batch(footprint, suite, config, free // sharing)
    need, need_low = (device_memory(footprint, suite, one) for one in (config, low))
    chosen = {"low": low, "high": config}.get(memory, low if need > free else config)
    chosen_need = need_low if chosen.gradient_checkpointing else need
    if sharing * chosen_need <= free:
        staying = chosen.model_copy(update={"stays_on_device": True})
        has_room = config.device.startswith("cuda") and sharing * device_memory(footprint, suite, staying) <= free
        return staying if has_room and memory != "low" else chosen
    what = f"{format_bytes(free)} of memory are free on {config.device}, but the run"
    if sharing > 1:
        each = f"{format_bytes(chosen_need)} in each of {sharing} processes"
        raise ClbenchError(f"{what} takes about {each}; give fewer --workers")
    if chosen.gradient_checkpointing:
        raise ClbenchError(f"{what} takes at least about {format_bytes(need_low)}, even with --memory low")
    sizes = f"{format_bytes(need)}; --memory low takes {format_bytes(need_low)}"
    raise ClbenchError(f"{what} takes about {sizes}")


def check_main_memory(footprint: ModelFootprint, config: DeviceConfig, free: int, sharing: int) -> None:
    """Refuse work on an accelerator that main memory is too small for.

    Each worker has a process that trains and one that scores. Each of these keeps the base weights that changes are
    added to, its text encoders and VAE, and its U-Net while the other one has the device; a merged state, the one
    before it and what is deployed are there at the same time.

    Args:
        free: bytes of main memory.
        sharing: how many workers share them.

    Raises:
        ClbenchError: it does not fit.
    """
    if config.device == "cpu":
        return
    width = DTYPES[config.precision].itemsize
    process = LIBRARIES + width * footprint.parameters + 4 * footprint.adapted + footprint.beside
    need = round(sharing * (2 * process + 3 * 4 * footprint.adapted))
    if need > free:
        remedy = "give fewer --workers, or " if sharing > 1 else ""
        raise ClbenchError(
            f"{format_bytes(free)} of main memory are free, but {counted(sharing, 'worker')} on {config.device} "
            f"need about {format_bytes(need)}; {remedy}use a machine with more"
        )


def _with_fitting_batch(footprint: ModelFootprint, suite: Suite, config: DeviceConfig, free: int) -> DeviceConfig:
    """The configuration with the largest sampling batch, halved from a whole cell on, that fits beside the models."""
    size = suite.largest_cell
    sizes = [size // 2**halvings for halvings in range(size.bit_length())]
    batches = [config, *(config.model_copy(update={"sample_batch_size": one}) for one in sizes[1:])]
    fitting = (one for one in batches if device_memory(footprint, suite, one) <= free)
    return next(fitting, config)


def estimate(
    footprint: ModelFootprint,
    sweep: SweepSpec,
    machine: Machine,
    *,
    work: float,
    training: float,
    workers: int,
    sharing: int,
) -> ResourceEstimate:
    """What a sweep will take.

    Args:
        work: U-Net passes of one image that are still to be made.
        training: those of them that train.
        workers: how many of them have work, and a core or GPU of their own, at the same time.
        sharing: how many workers share one device's memory.
    """
    suite, config = sweep.suite, sweep.config
    tracks = [suite.track(track) for track in dict.fromkeys(spec.track for spec in sweep.specs)]
    runs, tasks = sum(len(spec.runs) for spec in sweep.specs), len(tracks[0].tasks)
    cells = sum(len(track.tasks) for track in tracks) + runs * tasks * (tasks + 1) // 2
    images = cells * len(tracks[0].eval_prompt_templates) * suite.sampling.images_per_prompt
    least = runs * tasks if "states" in sweep.keep else runs + 1
    ahead = min(runs * tasks, 2 * runs + 3 * workers) if workers > 1 else 0  # where training goes ahead of scoring
    pictures = round(images * IMAGE_BYTES * suite.resolution**2) if "images" in sweep.keep else 0
    trains, draws = CPU_EFFICIENCY if config.device == "cpu" else GPU_EFFICIENCY
    firsts = runs * 4 * footprint.adapter
    least_disk = firsts + pictures + least * 4 * footprint.adapter
    most_disk = firsts + pictures + max(least, ahead) * 4 * footprint.adapted
    return ResourceEstimate(
        seconds=(training / trains + (work - training) / draws) * footprint.pass_flops / (workers * machine.flops),
        device_bytes=sharing * device_memory(footprint, suite, config),
        disk_bytes=(least_disk, most_disk),
        gradient_checkpointing=config.gradient_checkpointing,
    )


def check_disk(expected: ResourceEstimate, folder: Path) -> str | None:
    """A warning where the disk may not do; what `folder` already holds counts as done.

    Raises:
        ClbenchError: it cannot do.
    """
    free = shutil.disk_usage(nearest_existing(folder)).free
    there = 0
    for path in (*folder.rglob("*.safetensors"), *folder.rglob("*.png")):
        with suppress(FileNotFoundError):  # another command may be through with it
            there += path.stat().st_size
    small, large = (max(0, size - there) for size in expected.disk_bytes)
    if free < small:
        raise ClbenchError(
            f"{folder} has {format_bytes(free)} free, but the run keeps at least {format_bytes(small)} there; make "
            f"space or give another --output or --store"
        )
    if free < large:
        return f"{folder} has {format_bytes(free)} free; methods that hand on merged weights need {format_bytes(large)}"
    return None


@cache
def matmul_rate(device: str, precision: str) -> float:
    """FLOP a second of a matrix product of such layers' size, by one process; measured once in a process."""
    kind = DTYPES[precision]
    side = 8192 if device.startswith("cuda") else 1024
    own = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, side, side, dtype=kind, device=device, generator=own)  # GPUs are faster on equal numbers
    best = float("inf")
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
