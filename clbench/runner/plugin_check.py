"""Check methods in seconds, before minutes are spent on them: every hook, by the real engine, on a toy suite.

    found = check("mine", ["mine.py"])
    found.error, found.warnings, found.regime

Three tasks are trained, handed on through a file, and drawn, each by an instance of its own, as workers do it.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from clbench.data.assets import TrackAssets, resolve_assets
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import ClbenchError, DeviceFailed
from clbench.plugins import get_method
from clbench.protocol.describe import MethodDescription, describe, describe_here
from clbench.protocol.device import DeviceConfig, one_thread
from clbench.protocol.hook_runner import KEPT
from clbench.protocol.method_host import MethodHere, MethodHost, MethodProcess
from clbench.protocol.rows import read_run
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.schema import Run
from clbench.runner.config import RunSpec
from clbench.runner.engine import Engine, Event, EventHandler
from clbench.runner.engine.inline import InlineEngine
from clbench.runner.executor import UnitExecutor
from clbench.runner.toy import ToyModels, toy_suite
from clbench.state import digest
from clbench.storage.store import Store, recipe_key
from clbench.suite import Suite, load_suite, suite_folder
from clbench.utils.output import captures, outside


@dataclass(frozen=True)
class MethodCheck:
    """What the check of one method found."""

    method: str
    hooks: tuple[str, ...]
    """Those that it defines itself."""
    warnings: tuple[str, ...]
    error: ClbenchError | None
    """Why it fails; DeviceFailed where the device failed, which says nothing about the method."""
    tasks: int
    """How many were trained and drawn, if it does not fail."""
    regime: str | None
    """What the state is, by its sizes after each of these tasks."""
    state_bytes: tuple[int, ...]
    """The state's size after each task; empty if it fails."""
    state_sha256: tuple[str, ...]
    """The state's checksum after each task, which a second check repeats; empty if it fails."""
    seconds: float
    output: tuple[Event, ...]
    """What its hooks printed, as `output` events."""


def check(
    method: str,
    plugins: Sequence[Path | str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    suite: str = "mini-v2",
    track: str | None = None,
    device: str = "cpu",
    data_root: Path | None = None,
    on_event: EventHandler = lambda event: None,
) -> MethodCheck:
    """Run all hooks of a method, as `clbench check` does; what fails is the check's `error`.

    Args:
        plugins: files with methods.
        settings: the method's hyper-parameters.
        suite: a suite's name, or its folder.
        track: default the suite's first.
        data_root: the folder of your own copies of models and data sets.
        on_event: as `check_method` takes it.

    Raises:
        ClbenchError: bad input. WorkFailed: the method cannot be made.
    """
    definition = load_suite(suite)
    track = definition.track(track or next(iter(definition.tracks))).name
    paths = AssetPaths(data_root or default_data_root(), suite_folder(suite))
    folders = resolve_assets(definition, suite, track, paths).folders
    where, precision = InlineEngine().device(device), definition.precision or "fp32"
    files = [Path(plugin) for plugin in plugins]
    return check_method(where, precision, method, settings or {}, files, definition, track, folders, on_event)


def check_method(
    device: str,
    precision: str,
    name: str,
    settings: Mapping[str, Any],
    plugins: Sequence[Path],
    suite: Suite,
    track: str,
    folders: Mapping[str, Path],
    on_event: EventHandler = lambda event: None,
) -> MethodCheck:
    """Run all hooks of a method on the toy form of a suite.

    Args:
        settings: its hyper-parameters.
        folders: the whole suite's models and data sets.
        on_event: called with an `output` event for each line that a hook prints.

    Raises:
        ClbenchError: there is no such method, or no such setting. WorkFailed: it cannot be made.
    """
    began, output = time.perf_counter(), list[Event]()

    def keep_output(event: Event) -> None:
        if event["event"] == "output":
            output.append(event)
            on_event(event)

    with TemporaryDirectory() as store, one_thread(device):
        host, description = _host(name, settings, plugins)
        definition, config = toy_suite(suite, track), DeviceConfig(device=device, precision=precision)
        assets = TrackAssets(folders=dict(folders), sha256={})
        models = ToyModels(definition, config, folders)
        runtime = TrackRuntime(definition, track, Store(Path(store)), config, assets, models=models)
        runtime.emit = outside(keep_output)
        sequence = TaskSequence(runtime, host, *definition.runs(track)[0])
        error, run, states = None, None, tuple[str, ...]()
        try:
            run, states = _run_hooks(sequence)
        except (torch.OutOfMemoryError, torch.AcceleratorError) as failure:
            error = DeviceFailed(f"{device} failed ({str(failure).splitlines()[0]})")
        except ClbenchError as failure:
            error = type(failure)(str(failure).replace(KEPT, ""))
            error.__cause__ = failure.__cause__
    if device != "cpu":  # the models that follow may need it all
        del models, runtime
        gc.collect()
        torch.cuda.empty_cache()
    return MethodCheck(
        method=name,
        hooks=description.own_hooks,
        warnings=description.warnings,
        error=error,
        tasks=len(definition.track(track).tasks),
        regime=run.regime if run else None,
        state_bytes=run.state_bytes if run else (),
        state_sha256=states,
        seconds=time.perf_counter() - began,
        output=tuple(output),
    )


def _host(name: str, settings: Mapping[str, Any], plugins: Sequence[Path]) -> tuple[MethodHost, MethodDescription]:
    """Where the method's code runs: in this process for a debugger."""
    if captures():
        description = describe(name, settings, plugins)
        return MethodProcess(description, settings), description
    method = get_method(name, settings, plugins)
    return MethodHere(method, lambda: get_method(name, settings, plugins)), describe_here(method, plugins)


def _run_hooks(sequence: TaskSequence) -> tuple[Run, tuple[str, ...]]:
    """A whole sequence, and its states' checksums; every state is read back from the store, as between workers."""
    sequence.runtime.base_row()
    states = list[str]()
    for position in range(len(sequence.tasks)):
        states.append(digest(sequence.state(position).tensors()))
        sequence.forget()
        sequence.row(position)
    return read_run(sequence), tuple(states)


def check_plugins(executor: UnitExecutor, engine: Engine, on_event: EventHandler) -> None:
    """Check a sweep's methods that plugin files define, unless the store knows that they passed, where work is done.

    Raises:
        ClbenchError: one fails.
    """
    sweep, store = executor.sweep, executor.store
    first_track = sweep.specs[0].track  # all variants are run on it
    for spec in (one for one in sweep.specs if one.track == first_track and one.method.file in sweep.plugins):
        key = _passed_key(sweep.suite, sweep.config, spec)
        if store.get_json(key) is not None:
            continue
        on_event({"event": "stage", "what": f"checking the hooks of {spec.variant.name}"})
        where = (sweep.suite, spec.track, sweep.assets[spec.track].folders)
        check: MethodCheck = engine.measure(
            check_method,
            sweep.config.device,
            sweep.config.precision,
            spec.variant.method,
            spec.variant.settings,
            sweep.plugins,
            *where,
        )
        for warning in check.warnings:
            warnings.warn(warning, stacklevel=2)
        if isinstance(check.error, DeviceFailed):  # the work will tell
            continue
        if check.error:
            for event in check.output:
                on_event(event)
            advice = (
                f"nothing was run (`clbench check {spec.method.file}` checks it alone, --no-check runs it all the same)"
            )
            raise type(check.error)(f"{check.error}; {advice}") from check.error.__cause__
        store.provenance = {"suite": sweep.suite.name, "track": spec.track, "method": spec.variant.method}
        store.put_json(key, {"regime": check.regime, "state_bytes": check.state_bytes})
        store.provenance = {}


def _passed_key(suite: Suite, config: DeviceConfig, spec: RunSpec) -> str:
    """The key of the note that a method passed the check."""
    recipe = {
        "method": spec.variant.method,
        "source": spec.reference.source_sha256,
        "config": spec.reference.config,
        "suite": suite.sha256,
        "track": spec.track,
        "device": config.device,
        "precision": config.precision,
    }
    return recipe_key("check", recipe)
