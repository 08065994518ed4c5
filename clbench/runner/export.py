"""Export the model after a task for diffusers: an adapter file, or a merged U-Net."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from clbench.errors import ClbenchError, did_you_mean
from clbench.lora import Adapter, Delta
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.runner.reopen import run_numbered
from clbench.utils.files import cannot_write, write_atomic

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export_model(
    runtime: TrackRuntime, sequences: list[TaskSequence], task: str, to: Path, run: int = 1, dtype: str = "fp32"
) -> Path:
    """Write the model after a task: `<to>/pytorch_lora_weights.safetensors`, or `<to>/unet/` where weights were merged.

    Args:
        runtime, sequences: as `clbench.runner.reopen.reopen` gives them.
        task: a task's name, or its number in the run's order, from 1.
        run: which run, from 1.
        dtype: of the merged U-Net; one of `DTYPES`.

    Raises:
        ClbenchError: there is no such run or task, its state is not in the store, or there is something in its place.
    """
    if dtype not in DTYPES:
        raise ClbenchError(f"there is no dtype {dtype!r}{did_you_mean(dtype, list(DTYPES))}")
    sequence = run_numbered(sequences, run)
    tasks = [one.name for one in sequence.tasks]
    position = _position(tasks, task)
    state = sequence.stored_state(position)
    if state is None:
        raise ClbenchError(
            f"{runtime.store.location} does not hold the state after task {tasks[position]!r}: of a run only the last "
            f"one is kept, unless it is given --keep states"
        )
    if state.adapter is not None and not state.merged and "weights" not in sequence.host.own_hooks:
        return _write_adapter(state.adapter, _free(to / "pytorch_lora_weights.safetensors"))
    weights = sequence.deployed(position, state).weights
    return _write_unet(runtime.assets.folders["backbone"], weights, _free(to / "unet"), DTYPES[dtype])


def _free(path: Path) -> Path:
    """A path where there is nothing yet: an export never deletes another model."""
    if path.exists() or path.is_symlink():
        raise ClbenchError(f"{path} exists, and may be another model; remove it, or give another folder with --to")
    return path


def _position(tasks: list[str], task: str) -> int:
    if task in tasks:
        return tasks.index(task)
    if task.isdecimal() and 1 <= int(task) <= len(tasks):
        return int(task) - 1
    raise ClbenchError(f"there is no task {task!r}{did_you_mean(task, tasks)}, nor one of that number")


def _write_adapter(adapter: Adapter, path: Path) -> Path:
    """For `pipeline.load_lora_weights(path.parent)`; the scale is multiplied into B."""
    layers: dict[str, Any] = {f"{name}.lora_A.weight": value for name, value in adapter.A.items()}
    layers |= {f"{name}.lora_B.weight": value * adapter.scale for name, value in adapter.B.items()}
    write_atomic(
        path,
        lambda temporary: StableDiffusionXLPipeline.save_lora_weights(
            str(temporary.parent), unet_lora_layers=layers, weight_name=temporary.name
        ),
    )
    return path


def _write_unet(backbone: Path, weights: Delta, path: Path, dtype: torch.dtype) -> Path:
    """For `UNet2DConditionModel.from_pretrained(path)`; added in fp32."""
    unet: Any = UNet2DConditionModel.from_pretrained(backbone / "unet", local_files_only=True)
    with torch.no_grad():
        for name, change in weights.items():
            weight = unet.get_submodule(name).weight
            weight.copy_(weight.float() + change)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unet.to(dtype).save_pretrained(Path(folder, "unet"))
            Path(folder, "unet").rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path
