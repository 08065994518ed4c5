"""What a task left behind, as a diffusers user loads it: an adapter file, or a merged U-Net."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from clbench.assets import gather
from clbench.bench import Bench
from clbench.data import Places
from clbench.errors import ClbenchError, did_you_mean
from clbench.files import cannot_write, write_atomic
from clbench.lora import Adapter
from clbench.method import Method, get_method, source_of
from clbench.result import Result
from clbench.sequence import Sequence
from clbench.state import State
from clbench.store import Store
from clbench.suite import load_suite, suite_folder
from clbench.workers import one_thread

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export(
    result: Result,
    task: str,
    to: Path,
    *,
    store: Path,
    run: int = 1,
    suite: str | None = None,
    plugins: tuple[Path, ...] = (),
    data_root: Path,
    dtype: str = "fp32",
) -> Path:
    """Write the model after a task: `<to>/pytorch_lora_weights.safetensors`, or `<to>/unet/` where weights were merged.

    Args:
        task: a task's name, or its number in the run's order, from 1.
        store: the run's store.
        run: which run of the result, from 1.
        suite: what `--suite` took; default the result's suite by name.
        dtype: of the merged U-Net; one of `DTYPES`.

    Raises:
        ClbenchError: there is no such run or task, or its state is not in the store.
    """
    if dtype not in DTYPES:
        raise ClbenchError(f"there is no dtype {dtype!r}{did_you_mean(dtype, list(DTYPES))}")
    if not 1 <= run <= len(result.runs):
        raise ClbenchError(f"there is no run {run}; this result has runs 1 to {len(result.runs)}")
    chosen = result.runs[run - 1]
    name = suite or result.suite.name
    definition = load_suite(name)
    if definition.sha256 != result.suite.sha256:
        raise ClbenchError(f"the result was made with another version of suite {result.suite.name} than {name} is now")
    method = get_method(result.method.name, result.method.config, plugins)
    if source_of(method).sha256 != result.method.source_sha256:
        raise ClbenchError(f"method {method.name} ({source_of(method).path}) has changed since the result was made")
    assets = gather(definition, name, result.track, Places(data_root, suite_folder(name)))
    device, precision = str(result.settings.get("device")), str(result.settings.get("precision"))
    with one_thread(device):  # as the run was, whose keys this looks up
        bench = Bench(definition, result.track, Store(store), device, precision, assets)
        sequence = Sequence(bench, method, chosen.order, chosen.seed)
        position = _position(list(chosen.task_order), task)
        state = sequence.stored_state(position)
    if state is None:
        raise ClbenchError(
            f"{store} does not hold the state after task {chosen.task_order[position]!r}: of a run only the last one "
            f"is kept, unless it is given --keep states"
        )
    if state.adapter is not None and not state.merged and type(method).weights is Method.weights:
        return _write_adapter(state.adapter, to)
    return _write_unet(assets.folders["backbone"], method, state, to, DTYPES[dtype])


def _position(tasks: list[str], task: str) -> int:
    if task in tasks:
        return tasks.index(task)
    if task.isdecimal() and 1 <= int(task) <= len(tasks):
        return int(task) - 1
    raise ClbenchError(f"there is no task {task!r}{did_you_mean(task, tasks)}, nor one of that number")


def _write_adapter(adapter: Adapter, to: Path) -> Path:
    """For `pipeline.load_lora_weights(to)`; the scale is multiplied into B."""
    layers: dict[str, Any] = {f"{name}.lora_A.weight": value for name, value in adapter.A.items()}
    layers |= {f"{name}.lora_B.weight": value * adapter.scale for name, value in adapter.B.items()}
    path = to / "pytorch_lora_weights.safetensors"
    write_atomic(
        path,
        lambda temporary: StableDiffusionXLPipeline.save_lora_weights(
            str(temporary.parent), unet_lora_layers=layers, weight_name=temporary.name
        ),
    )
    return path


def _write_unet(backbone: Path, method: Method, state: State, to: Path, dtype: torch.dtype) -> Path:
    """For `UNet2DConditionModel.from_pretrained(to / "unet")`; added in fp32."""
    unet: Any = UNet2DConditionModel.from_pretrained(backbone / "unet", local_files_only=True)
    with torch.no_grad():
        for name, change in method.weights(state).items():
            weight = unet.get_submodule(name).weight
            weight.copy_(weight.float() + change)
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to) as folder:
            unet.to(dtype).save_pretrained(Path(folder, "unet"))
            shutil.rmtree(to / "unet", ignore_errors=True)
            Path(folder, "unet").rename(to / "unet")
    except OSError as error:
        raise cannot_write(to / "unet", error) from error
    return to / "unet"
