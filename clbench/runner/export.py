"""Export the model after a task for diffusers: as a LoRA file, or as a merged U-Net."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import pad

from clbench.backbones.architecture import DTYPES
from clbench.errors import ClbenchError, did_you_mean
from clbench.lora import Adapter, Delta, low_rank, product, save_tensors
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.runner.reopen import run_numbered
from clbench.state import State
from clbench.utils.files import cannot_write, free_path, write_atomic

LOSS = 1e-6
"""What a LoRA may lose of each layer's change, as a share of its Frobenius norm, unless its rank is too small."""


@dataclass(frozen=True)
class ExportedModel:
    """What was written."""

    path: Path
    """`<to>/pytorch_lora_weights.safetensors`, or the folder `<to>/unet`."""
    rank: int | None = None
    """The LoRA's rank; None for a U-Net."""
    relative_error: float = 0.0
    """Frobenius norm of what the LoRA lost, over all layers, divided by that of the deployed change."""


def export_model(
    runtime: TrackRuntime,
    sequences: list[TaskSequence],
    task: str,
    to: Path,
    run: int = 1,
    dtype: str = "fp32",
    form: Literal["diffusers", "lora"] = "diffusers",
    rank: int | None = None,
) -> ExportedModel:
    """Write the model after a task: as LoRA where the state has its factors or `form` asks for it, else as a U-Net.

    Of a method that is told the task at sampling, that is the model which draws this task.

    Without factors, a LoRA is a truncated SVD of the deployed change. A sum of t products of rank r has at most rank
    t r, so that for methods that sum, nothing but rounding is lost; others lose more.

    Args:
        runtime, sequences: as `clbench.runner.reopen.reopen` gives them.
        task: a task's name, or its number in the run's order, from 1.
        run: which run, from 1.
        dtype: of what is written; one of `DTYPES`.
        rank: the largest rank of a LoRA; default t r after t tasks. The smallest that loses no more than `LOSS` is
            taken.

    Raises:
        ClbenchError: there is no such run or task, its state is not in the store, it is the base model, or there is
            something in its place.
    """
    if dtype not in DTYPES:
        raise ClbenchError(f"there is no dtype {dtype!r}{did_you_mean(dtype, list(DTYPES))}")
    sequence = run_numbered(sequences, run)
    position = task_position(sequence, task)
    state = sequence.stored_state(position)
    if state is None:
        raise ClbenchError(
            f"{runtime.store.location} does not hold the state after task {sequence.tasks[position].name!r}: of a run "
            f"only the last one is kept, unless it is given --keep states"
        )
    weights = sequence.deployed(position, state, sequence.tasks[position] if sequence.is_told else None).weights
    adapter = _factors(state, weights)
    if form == "diffusers" and adapter is None:
        if rank is not None:
            raise ClbenchError("--rank goes with --format lora: this method's model is exported as a merged U-Net")
        path = _write_unet(runtime.assets.folders["backbone"], weights, free_path(to / "unet"), DTYPES[dtype])
        return ExportedModel(path)
    path = free_path(to / "pytorch_lora_weights.safetensors")
    if adapter is None or (rank is not None and rank < adapter.rank):
        adapter = _approximation(weights, rank or (position + 1) * runtime.suite.training.rank)
    return _write_lora(adapter, weights, path, DTYPES[dtype])


def task_position(sequence: TaskSequence, task: str) -> int:
    """The position, from 0, of a task that is given by its name or its number, from 1.

    Raises:
        ClbenchError: there is no such task.
    """
    tasks = [one.name for one in sequence.tasks]
    if task in tasks:
        return tasks.index(task)
    if task.isdecimal() and 1 <= int(task) <= len(tasks):
        return int(task) - 1
    raise ClbenchError(f"there is no task {task!r}{did_you_mean(task, tasks)}, nor one of that number")


def _factors(state: State, weights: Delta) -> Adapter | None:
    """The state's adapter, if it alone is what is deployed."""
    if state.adapter is None:
        return None
    change = state.adapter.delta()
    same = change.keys() == weights.keys() and all(torch.equal(change[name], weights[name]) for name in change)
    return state.adapter if same else None


def _approximation(weights: Delta, rank: int) -> Adapter:
    """The closest adapter of at most that rank.

    All its layers have one rank, padded with zeros: until huggingface/diffusers#14409, layers of another rank than the
    file's first were scaled wrongly.

    Raises:
        ClbenchError: nothing is changed.
    """
    if not weights:
        raise ClbenchError("this is the base model unchanged, of which there is no LoRA")
    with ThreadPoolExecutor() as pool:  # LAPACK releases the interpreter's lock
        factors = dict(
            zip(weights, pool.map(lambda change: low_rank(change, rank, LOSS), weights.values()), strict=True)
        )
    widest = max(1, *(len(A) for A, _ in factors.values()))
    return Adapter(
        {name: pad(A, (0, 0, 0, widest - len(A))) for name, (A, _) in factors.items()},
        {name: pad(B, (0, widest - len(A))) for name, (A, B) in factors.items()},
    )


def _write_lora(adapter: Adapter, weights: Delta, path: Path, dtype: torch.dtype) -> ExportedModel:
    """For `pipeline.load_lora_weights(path.parent)`; the scale is multiplied into B."""
    A = {name: value.to(dtype) for name, value in adapter.A.items()}
    B = {name: (value * adapter.scale).to(dtype) for name, value in adapter.B.items()}
    error = _relative_error(A, B, weights)
    layers: dict[str, Any] = {f"{name}.lora_A.weight": value for name, value in A.items()}
    layers |= {f"{name}.lora_B.weight": value for name, value in B.items()}
    about = {"format": "pt", "rank": str(adapter.rank), "relative_error": repr(error)}
    write_atomic(
        path,
        lambda temporary: StableDiffusionXLPipeline.save_lora_weights(
            str(temporary.parent),
            unet_lora_layers=layers,
            weight_name=temporary.name,
            save_function=lambda tensors, file: save_tensors(tensors, Path(file), about),
        ),
    )
    return ExportedModel(path, adapter.rank, error)


def _relative_error(A: Mapping[str, Tensor], B: Mapping[str, Tensor], weights: Delta) -> float:
    """The Frobenius norm of `weights - B A`, over all layers, divided by that of `weights`; 0 where both are 0."""
    lost = sum(float((weights[name] - product(A[name], B[name])).double().square().sum()) for name in weights)
    whole = sum(float(change.double().square().sum()) for change in weights.values())
    return (lost / whole) ** 0.5 if whole else 0.0


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
