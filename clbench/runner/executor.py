"""The executor: does the units of a sweep, in this process or in a worker's.

    executor = UnitExecutor(sweep)
    executor.do(unit, emit)

A unit is done when its artifact is in the store, and being done while somebody holds its lock, which dies with its
owner. So a worker may be killed at any time, and commands may share a store. Every CPU worker has one thread, so that
the number of workers changes no bit.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pydantic import BaseModel

from clbench.errors import ClbenchError, DeviceFailed, WorkFailed
from clbench.plugins import get_method
from clbench.protocol.artifact_status import ArtifactStatus
from clbench.protocol.device import memory_in_use, one_thread, prepare_process
from clbench.protocol.method_host import MethodHere, MethodHost, MethodProcess
from clbench.protocol.models import Models
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.runner.config import RunSpec, SweepSpec
from clbench.runner.engine import EventHandler, Unit
from clbench.runner.unit_kinds import TASK_KINDS, TRACK_KINDS, Place, TaskUnit, UnitWork
from clbench.storage.open import open_store
from clbench.storage.store import recipe_key
from clbench.utils.output import outside
from clbench.utils.software import software_versions

NOTED = ("suite", "track", "method", "variant", "order", "seed", "task")
"""Parameters of a unit that are noted beside the artifacts that it makes."""


class UnitExecutor:
    """A sweep's tracks and sequences, opened when first needed and kept; models are loaded once for all of them.

    Args:
        reuse: whether artifacts of earlier processes count.
        models: models that are loaded already.
    """

    def __init__(self, sweep: SweepSpec, reuse: bool = True, models: Models | None = None) -> None:
        self.sweep = sweep
        self.store = open_store(sweep.store, reuse)
        self._models = models
        self._open()

    def _open(self) -> None:
        self._runtimes: dict[str, TrackRuntime] = {}
        self._sequences: dict[str, list[TaskSequence]] = {}
        self._latest: TaskSequence | None = None

    def runtime(self, track: str) -> TrackRuntime:
        """A track at work; no model is loaded yet."""
        if track not in self._runtimes:
            sweep = self.sweep
            self._runtimes[track] = TrackRuntime(
                sweep.suite,
                track,
                self.store,
                sweep.config,
                sweep.assets[track],
                models=self._models,
                keep_images="images" in sweep.keep,
                in_process=sweep.in_process,
            )
            self._models = self._runtimes[track].models
        return self._runtimes[track]

    def sequences(self, spec: RunSpec) -> list[TaskSequence]:
        """The sequences of a variant on a track, in the protocol's order."""
        if spec.name not in self._sequences:
            runtime = self.runtime(spec.track)
            host = self._host(spec)
            self._sequences[spec.name] = [TaskSequence(runtime, host, order, seed) for order, seed in spec.runs]
        return self._sequences[spec.name]

    def _host(self, spec: RunSpec) -> MethodHost:
        name, settings = spec.variant.method, spec.variant.settings
        if not self.sweep.in_process:
            return MethodProcess(spec.method, settings)
        method = get_method(name, settings, self.sweep.plugins)
        return MethodHere(method, lambda: get_method(name, settings, self.sweep.plugins))

    def place(self, spec: RunSpec, sequence: TaskSequence, position: int) -> Place:
        """A task of one of a method's sequences."""
        sweep = self.sweep
        status = ArtifactStatus(self.sequences(spec), "states" in sweep.keep, sweep.last_row_only)
        return Place(sequence, status, position)

    def work_of(self, unit: Unit) -> UnitWork:
        """A planned unit's work, found by its parameters.

        Raises:
            WorkFailed: here it would make something else than was planned.
        """
        params, spec = unit.params, self.sweep.specs[unit.params["spec"]]
        if kind := TRACK_KINDS.get(params["kind"]):
            found = kind(self.runtime(spec.track))
        else:
            run = (params["order"], params["seed"])
            sequence = next(one for one in self.sequences(spec) if (one.order, one.seed) == run)
            found = next(TASK_KINDS[params["kind"]].of(self.place(spec, sequence, params["position"])), None)
        if found is None or found.key != unit.key:
            raise WorkFailed(
                f"{socket.gethostname()} would make something else than was planned: did a plugin change meanwhile? "
                f"Run the same command again"
            )
        return found

    def do(self, unit: Unit, emit: EventHandler) -> bool:
        """Do a unit, unless it is done; False where another command is doing it.

        Raises:
            ClbenchError: it failed; what was finished before is kept.
        """
        with one_thread(self.sweep.config.device):
            work = self.work_of(unit)
            if work.is_done():
                return True
            with self.store.try_lock(unit.key) as mine:
                if mine and not work.is_done():
                    try:
                        self._run(unit, work, emit)
                    except ClbenchError:
                        # It may have left something in the models: the next unit loads them afresh.
                        self._models = None
                        self._open()
                        raise
            return mine

    def _run(self, unit: Unit, work: UnitWork, emit: EventHandler) -> None:
        device = self.sweep.config.device
        if isinstance(work, TaskUnit):
            self._switch_to(work.sequence)
        work.runtime.emit = work.runtime.models.emit = outside(emit)
        self.store.provenance = {
            **{key: unit.params[key] for key in NOTED if key in unit.params},
            **software_versions(),
        }
        try:
            with _device_errors(device):
                work.run()
        finally:
            work.runtime.emit = work.runtime.models.emit = lambda event: None
        emit({"event": "memory", "bytes": memory_in_use(device)})

    def _switch_to(self, sequence: TaskSequence) -> None:
        """Let the sequence before forget its state, which may be large."""
        if self._latest not in (None, sequence):
            self._latest.forget()
        self._latest = sequence


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn errors of the device into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkFailed(
            f"{device} ran out of memory ({str(error).splitlines()[0][:120]}); what is finished is kept, so run the "
            f"same command with --memory low"
        ) from error
    except torch.AcceleratorError as error:  # the process's CUDA context is lost
        raise DeviceFailed(
            f"{device} failed ({str(error).splitlines()[0]}); what is finished is kept, so run the same command again"
        ) from error


# --- in other processes ---


class Setup(BaseModel):
    """What a worker needs to open its executor."""

    sweep: SweepSpec
    software: dict[str, str]
    """The caller's package versions, on the sweep's device."""
    sign: str
    """Key of an artifact in the store, by which a worker sees that its store is the caller's."""


@contextmanager
def executor_setup(executor: UnitExecutor) -> Iterator[str]:
    """A `Setup` as JSON, valid within."""
    sign = recipe_key("sign", {"of": secrets.token_hex(8)})
    with executor.store.lock(sign):  # one that nobody holds was left by a killed process
        executor.store.put_json(sign, True)
        try:
            own = dict(software_versions(executor.sweep.config.device))
            yield Setup(sweep=executor.sweep, software=own, sign=sign).model_dump_json()
        finally:
            executor.store.drop(sign, ".json")


def open_executor(setup: str) -> UnitExecutor:
    """A worker's executor.

    Args:
        setup: as `executor_setup` gives it.

    Raises:
        WorkFailed: the worker has other software than the caller, or does not see its store or models.
    """
    given = Setup.model_validate_json(setup)
    sweep, host = given.sweep, socket.gethostname()
    executor = UnitExecutor(sweep)
    own = software_versions(sweep.config.device)
    if other := {name: version for name, version in own.items() if given.software.get(name) != version}:
        raise WorkFailed(f"{host} has other software ({_listed(other)}) than the caller ({_listed(given.software)})")
    if not executor.store.has(given.sign, ".json"):
        raise WorkFailed(f"{host} does not see the store {sweep.store}; give --store a folder or URL that all share")
    folders = [folder for assets in sweep.assets.values() for folder in assets.folders.values()]
    if unseen := [folder for folder in folders if not folder.is_dir()]:
        raise WorkFailed(f"{host} has no {unseen[0]}; put models and data where every node sees them")
    prepare_process(sweep.config)
    return executor


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
