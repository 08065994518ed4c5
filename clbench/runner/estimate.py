"""What a run will cost, counted on the U-Net's graph before anything is loaded: time, device memory, disk.

    price = count(unet_config, suite.training, resolution, vae_scale_factor=8)
    expected(price, work=5e4, runs=8, ...)

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
from typing import Any, Literal

import psutil
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clbench.backbones.architecture import adapted_unet, adapter_parameters
from clbench.errors import ClbenchError
from clbench.suite import Suite, Training
from clbench.utils.files import nearest_existing
from clbench.utils.formatting import format_bytes, format_time

Memory = Literal["auto", "low", "high"]
EFFICIENCY = 0.5
"""Share of a device's matrix multiplication rate that such a U-Net is taken to reach."""
MARGIN = 1.15
"""On memory: the allocator's rounding, workspaces and the driver."""
LIBRARIES = round(1.1e9)
"""Bytes of main memory that a process takes before it has any model; measured."""
IMAGE_BYTES = 1.5
"""A kept PNG's size a pixel, about."""


@dataclass(frozen=True)
class Price:
    """What one U-Net costs."""

    parameters: int
    """Of the U-Net."""
    adapter: int
    """Values of one adapter."""
    adapted: int
    """Values of the weights that it changes."""
    pass_flops: float
    """Of one forward pass for one image; a backward pass counts as two."""
    saved: int
    """fp32 bytes kept for a backward pass of one image."""
    saved_low: int
    """The same with gradient checkpointing."""
    encoders: int = 0
    """Bytes of the encoders' weights."""
    decode: int = 0
    """fp32 bytes that decoding one image needs, about: four of the VAE's largest feature maps."""


@dataclass(frozen=True)
class Expectation:
    """What a run will take."""

    seconds: float
    device_bytes: int
    """On the accelerator, or of main memory where there is none."""
    disk_bytes: tuple[int, int]
    """If the method hands on an adapter; if it hands on merged weights."""
    low_memory: bool

    def __str__(self) -> str:
        small, large = (format_bytes(size) for size in self.disk_bytes)
        mode = " (with gradient checkpointing)" if self.low_memory else ""
        return (
            f"expects about {format_time(self.seconds)}, {format_bytes(self.device_bytes)} of memory{mode} and "
            f"{small} (adapters) to {large} (merged weights) of disk"
        )


def count(config: Mapping[str, Any], training: Training, latent_side: int) -> Price:
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
    return Price(
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


def price_of(suite: Suite, folders: Mapping[str, Path]) -> Price:
    """Count a pipeline's U-Net at the suite's resolution; `folders` holds the backbone's and maybe another VAE's.

    Raises:
        ClbenchError: a configuration is missing, or not of such a pipeline.
    """
    backbone = folders["backbone"]
    try:
        config = json.loads((backbone / "unet" / "config.json").read_text())
        vae = json.loads((folders.get("vae", backbone / "vae") / "config.json").read_text())
        channels = vae["block_out_channels"]
        price = count(config, suite.training, suite.resolution // 2 ** (len(channels) - 1))
        encoders = [path for name in suite.encoders if name in folders for path in folders[name].iterdir()]
        return replace(
            price,
            encoders=sum(path.stat().st_size for path in encoders),
            decode=4 * 4 * suite.resolution**2 * max(channels[:2]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClbenchError(f"{backbone} holds no pipeline of Stable Diffusion XL's class: {error}") from error


def expect(
    price: Price,
    suite: Suite,
    *,
    device: str,
    precision: str,
    memory: Memory,
    work: float,
    workers: int,
    sharing: int,
    runs: int,
    tasks: int,
    images: int,
    keep: frozenset[str],
) -> Expectation:
    """What a run will take.

    Args:
        work: U-Net passes of one image that are still to be made.
        sharing: how many of the workers share one device's memory.
        images: how many are drawn in all.

    Raises:
        ClbenchError: there is not the memory, even with `low`.
    """
    width = 2 if precision == "bf16" else 4
    batch = suite.training.batch_size
    always = price.parameters * width + price.encoders + (LIBRARIES if device == "cpu" else 0)
    adapter = 4 * 4 * price.adapter  # with its gradient and two moments
    kept = {low: batch * (price.saved_low if low else price.saved) * width / 4 for low in (False, True)}
    need = {low: round(MARGIN * (always + max(adapter + kept[low], price.decode))) for low in kept}
    free = free_memory(device)
    low = {"low": True, "high": False}.get(memory, need[False] > free)
    if sharing * need[low] > free:
        what = f"{format_bytes(free)} of memory are free on {device}, but the run"
        if sharing > 1:
            each = f"{format_bytes(need[low])} in each of {sharing} processes"
            raise ClbenchError(f"{what} takes about {each}; give fewer --workers")
        if low:
            raise ClbenchError(f"{what} takes at least about {format_bytes(need[True])}, even with --memory low")
        sizes = f"{format_bytes(need[False])}; --memory low takes {format_bytes(need[True])}"
        raise ClbenchError(f"{what} takes about {sizes}")
    least = runs * tasks if "states" in keep else runs + 1
    ahead = min(runs * tasks, 2 * runs + 3 * workers) if workers > 1 else 0  # where training goes ahead of scoring
    pictures = round(images * IMAGE_BYTES * suite.resolution**2) if "images" in keep else 0
    firsts = runs * 4 * price.adapter
    least_disk = firsts + pictures + least * 4 * price.adapter
    most_disk = firsts + pictures + max(least, ahead) * 4 * price.adapted
    seconds = work * price.pass_flops / (EFFICIENCY * workers * matmul_rate(device, precision))
    return Expectation(seconds, sharing * need[low], (least_disk, most_disk), low)


def check_disk(expectation: Expectation, folder: Path) -> str | None:
    """A warning where the disk may not do; what `folder` already holds counts as done.

    Raises:
        ClbenchError: it cannot do.
    """
    free = shutil.disk_usage(nearest_existing(folder)).free
    there = 0
    for path in (*folder.rglob("*.safetensors"), *folder.rglob("*.png")):
        with suppress(FileNotFoundError):  # another command may be through with it
            there += path.stat().st_size
    small, large = (max(0, size - there) for size in expectation.disk_bytes)
    if free < small:
        raise ClbenchError(
            f"{folder} has {format_bytes(free)} free, but the run keeps at least {format_bytes(small)} there; make "
            f"space or give another --output or --store"
        )
    if free < large:
        return f"{folder} has {format_bytes(free)} free; methods that hand on merged weights need {format_bytes(large)}"
    return None


def free_memory(device: str) -> int:
    """Bytes that are free on the device; of a CPU's, no more than this job or container may take."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, *allowed_memory())


LIMITS = (  # of version 2 and of version 1: limit, use, what the kernel gives back when asked
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
                        told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                        used = int((folder / use).read_text()) - int(told.get(cache, 0))
                        yield max(0, int((folder / limit).read_text()) - used)


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
