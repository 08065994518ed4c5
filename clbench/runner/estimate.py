"""What a run will take, counted on the U-Net's graph before anything is loaded: time, device memory, disk.

    footprint = model_footprint(suite, folders)
    machine = measure_machine("cuda", "bf16")
    config = fit_memory(footprint, suite, config, "auto", machine.free_memory)
    estimate(footprint, machine, ...)

Shapes are enough for that, so the graph runs on PyTorch's `meta` device, which computes nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clbench.backbones.architecture import adapted_unet, adapter_parameters
from clbench.errors import ClbenchError
from clbench.protocol.device import DeviceConfig, free_memory
from clbench.results.environment import describe
from clbench.results.schema import Environment
from clbench.runner.config import SweepSpec
from clbench.suite import Suite, Training
from clbench.utils.files import nearest_existing
from clbench.utils.formatting import format_bytes, format_time

EFFICIENCY = 0.5
"""Share of a device's matrix multiplication rate that such a U-Net is taken to reach."""
MARGIN = 1.15
"""On memory: the allocator's rounding, workspaces and the driver."""
LIBRARIES = round(1.1e9)
"""Bytes of main memory that a process takes before it has any model; measured."""
IMAGE_BYTES = 1.5
"""A kept PNG's size a pixel, about."""


@dataclass(frozen=True)
class ModelFootprint:
    """What one U-Net takes."""

    parameters: int
    """Number of the U-Net's values."""
    adapter: int
    """Number of one adapter's values."""
    adapted: int
    """Number of values of the weights that an adapter changes."""
    pass_flops: float
    """FLOP of one forward pass for one image; a backward pass counts as two."""
    saved: int
    """fp32 bytes kept for a backward pass of one image."""
    saved_low: int
    """The same with gradient checkpointing."""
    encoders: int = 0
    """Bytes of the encoders' weights."""
    decode: int = 0
    """fp32 bytes that decoding one image needs, about: four of the VAE's largest feature maps."""


@dataclass(frozen=True)
class Machine:
    """What was measured where the work is done."""

    free_memory: int
    """Bytes that are free on the device."""
    flops: float
    """FLOP a second of a large matrix product, by one process."""
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


def count(config: Mapping[str, Any], training: Training, latent_side: int) -> ModelFootprint:
    """Count a U-Net of SDXL's class.

    Args:
        config: its `config.json`.
        latent_side: of one image.

    Raises:
        ClbenchError: it is not the architecture that the definition names.
    """
    with torch.device("meta"):
        unet, parameters, shapes = adapted_unet(config, training)
        blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock | ResnetBlock2D)]
        with _saved_bytes(unet, blocks) as (total, inside), FlopCounterMode(display=False) as flops:
            unet(
                torch.empty(1, unet.config.in_channels, latent_side, latent_side),
                torch.zeros(1),
                torch.empty(1, 77, unet.config.cross_attention_dim),
                added_cond_kwargs={
                    "text_embeds": torch.empty(1, _pooled_width(unet.config)),
                    "time_ids": torch.empty(1, 6),
                },
            )
    return ModelFootprint(
        parameters=parameters,
        adapter=adapter_parameters(shapes, training.rank),
        adapted=sum(out * inputs for out, inputs in shapes.values()),
        pass_flops=float(flops.get_total_flops()),
        saved=total[0],
        saved_low=total[0] - sum(inside) + max(inside, default=0),
    )


def _pooled_width(config: Any) -> int:
    return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


@contextmanager
def _saved_bytes(unet: Any, blocks: list[Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Bytes that autograd keeps during a forward pass: in all, and within each of `blocks`, the parameters left out."""
    total, inside, seen = [0], [], {id(value.untyped_storage()) for value in unet.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if id(storage) not in seen:
            seen.add(id(storage))
            alive.append(storage)
            total[0] += storage.nbytes()
        return value

    alive, starts = [], []
    hooks = []
    for block in blocks:
        hooks.append(block.register_forward_pre_hook(lambda *_: starts.append(total[0])))
        hooks.append(block.register_forward_hook(lambda *_: inside.append(total[0] - starts.pop())))
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            yield total, inside
    finally:
        for hook in hooks:
            hook.remove()


def model_footprint(suite: Suite, folders: Mapping[str, Path]) -> ModelFootprint:
    """Count a pipeline's U-Net at the suite's resolution; `folders` holds the backbone's and maybe another VAE's.

    Raises:
        ClbenchError: a configuration is missing, or not of such a pipeline.
    """
    backbone = folders["backbone"]
    try:
        config = json.loads((backbone / "unet" / "config.json").read_text())
        vae = json.loads((folders.get("vae", backbone / "vae") / "config.json").read_text())
        channels = vae["block_out_channels"]
        footprint = count(config, suite.training, suite.resolution // 2 ** (len(channels) - 1))
        encoders = [path for name in suite.encoders if name in folders for path in folders[name].iterdir()]
        return replace(
            footprint,
            encoders=sum(path.stat().st_size for path in encoders),
            decode=4 * 4 * suite.resolution**2 * max(channels[:2]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClbenchError(f"{backbone} holds no pipeline of Stable Diffusion XL's class: {error}") from error


def measure_machine(device: str, precision: str) -> Machine:
    """Free memory, speed and software; called where the work is done."""
    return Machine(free_memory(device), matmul_rate(device, precision), describe(device))


def device_memory(footprint: ModelFootprint, suite: Suite, config: DeviceConfig) -> int:
    """Bytes that one process needs on its device."""
    width = 2 if config.precision == "bf16" else 4
    always = footprint.parameters * width + footprint.encoders + (LIBRARIES if config.device == "cpu" else 0)
    adapter = 4 * 4 * footprint.adapter  # with its gradient and two moments
    saved = footprint.saved_low if config.gradient_checkpointing else footprint.saved
    saved_batch = suite.training.batch_size * saved * width / 4
    return round(MARGIN * (always + max(adapter + saved_batch, footprint.decode)))


def fit_memory(
    footprint: ModelFootprint, suite: Suite, config: DeviceConfig, memory: str, free: int, sharing: int
) -> DeviceConfig:
    """The configuration that fits into a device's memory.

    Args:
        config: without gradient checkpointing.
        memory: `low`, `high`, or `auto`, which is `low` where it must be.
        free: bytes.
        sharing: how many workers share them.

    Raises:
        ClbenchError: it does not fit, even with `low`.
    """
    low = config.with_low_memory()
    need, need_low = (device_memory(footprint, suite, one) for one in (config, low))
    chosen = {"low": low, "high": config}.get(memory, low if need > free else config)
    chosen_need = need_low if chosen.gradient_checkpointing else need
    if sharing * chosen_need <= free:
        return chosen
    what = f"{format_bytes(free)} of memory are free on {config.device}, but the run"
    if sharing > 1:
        each = f"{format_bytes(chosen_need)} in each of {sharing} processes"
        raise ClbenchError(f"{what} takes about {each}; give fewer --workers")
    if chosen.gradient_checkpointing:
        raise ClbenchError(f"{what} takes at least about {format_bytes(need_low)}, even with --memory low")
    sizes = f"{format_bytes(need)}; --memory low takes {format_bytes(need_low)}"
    raise ClbenchError(f"{what} takes about {sizes}")


def estimate(
    footprint: ModelFootprint,
    sweep: SweepSpec,
    machine: Machine,
    *,
    work: float,
    workers: int,
    sharing: int,
) -> ResourceEstimate:
    """What a sweep will take.

    Args:
        work: U-Net passes of one image that are still to be made.
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
    firsts = runs * 4 * footprint.adapter
    least_disk = firsts + pictures + least * 4 * footprint.adapter
    most_disk = firsts + pictures + max(least, ahead) * 4 * footprint.adapted
    return ResourceEstimate(
        seconds=work * footprint.pass_flops / (EFFICIENCY * workers * machine.flops),
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


def matmul_rate(device: str, precision: str) -> float:
    """Measured FLOP a second of a matrix product of such layers' size, by one process."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.ones(side, side, dtype=kind, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
