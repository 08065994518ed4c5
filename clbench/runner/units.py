"""What is to be run, and the workshop where a worker does its units.

    workshop = Workshop(jobs)
    workshop.do(unit, tell)

A unit is done when its artifact is in the store, and in hand while somebody holds its lock, which dies with its owner.
So a worker may be killed at any time, and commands may share a store. Every CPU worker has one thread, so that the
number of workers changes no bit.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from clbench.errors import ClbenchError, DeviceFailed, WorkFailed
from clbench.plugins import get_method
from clbench.protocol.device import memory_in_use, one_thread, prepare_process
from clbench.protocol.task_sequence import Sequence as TaskSequence
from clbench.protocol.track_runtime import Bench
from clbench.runner.config import Job
from clbench.runner.engine import Unit, Watcher
from clbench.storage.open import open_store
from clbench.storage.store import recipe_key
from clbench.utils.software import software_versions

SUFFIX = {"base": ".json", "controls": ".json", "fit": ".safetensors", "train": ".safetensors", "score": ".json"}
"""Kind of unit -> its artifact's."""


ROWS = ("base", "score")
"""Kinds of units whose artifacts name the cells that they are of."""
ABOUT = ("suite", "track", "method", "order", "seed", "task")
"""Of a unit: what is told beside the artifacts that it makes."""


class Workshop:
    """The jobs' benches and sequences, opened when first needed and kept; models are loaded once for all of them.

    Args:
        reuse: whether artifacts of earlier processes count.
    """

    def __init__(self, jobs: Sequence[Job], reuse: bool = True) -> None:
        self.jobs = list(jobs)
        self.store = open_store(self.jobs[0].store, reuse)
        self._benches: dict[str, Bench] = {}
        self._sequences: dict[int, list[TaskSequence]] = {}
        self._last: TaskSequence | None = None

    def bench(self, number: int) -> Bench:
        """Of a job, by its number; no model is loaded yet."""
        job = self.jobs[number]
        if job.track not in self._benches:
            self._benches[job.track] = Bench(
                job.suite,
                job.track,
                self.store,
                job.device,
                job.precision,
                job.assets,
                low_memory=job.low_memory,
                keep_images="images" in job.keep,
                deterministic=job.deterministic,
                kin=next(iter(self._benches.values()), None),
            )
        return self._benches[job.track]

    def sequences(self, number: int) -> list[TaskSequence]:
        """A job's, in the protocol's order."""
        if number not in self._sequences:
            job, bench = self.jobs[number], self.bench(number)
            method = get_method(job.method, job.settings, job.plugins)
            self._sequences[number] = [TaskSequence(bench, method, order, seed) for order, seed in job.runs]
        return self._sequences[number]

    def is_done(self, unit: Unit) -> bool:
        """Whether the unit's artifact is there (and whole, is seen when it is read), or was, and is of no more use."""
        kind, number = unit.where["kind"], unit.where["job"]
        if self.store.has(unit.key, SUFFIX[kind]):
            return not self.bench(number).keep_images or kind not in ROWS or self.is_whole(unit)
        if kind != "train" or "states" in self.jobs[number].keep:
            return False
        position = unit.where["position"]
        sharing = self._sharing(number, unit.key, position)
        return bool(sharing) and all(one.passed(position) for one in sharing)

    def is_whole(self, unit: Unit) -> bool:
        """As `is_done`, but scores are read: what is damaged is set aside."""
        if SUFFIX[unit.where["kind"]] != ".json":
            return self.is_done(unit)
        row = self.store.get_json(unit.key)
        return row is not None and self._has_images(unit, row)

    def _has_images(self, unit: Unit, row: Any) -> bool:
        """Whether a row's images are there, if it is one and they are to be kept."""
        kind, bench = unit.where["kind"], self.bench(unit.where["job"])
        if kind not in ROWS:
            return True
        return bench.has_images(row["cells"] if kind == "score" else [one["cell"] for one in row.values()])

    def do(self, unit: Unit, tell: Watcher) -> bool:
        """Do a unit, unless it is done; False where another command has it in hand.

        Raises:
            ClbenchError: it failed; what was finished before is kept.
        """
        if self.is_done(unit):
            return True
        with one_thread(self.jobs[0].device), self.store.try_lock(unit.key) as mine:
            if mine and not self.is_done(unit):
                try:
                    self._do(unit, tell)
                except ClbenchError:
                    self._forget()
                    raise
        return mine

    def _forget(self) -> None:
        """A failed unit may have left something in the models: they go, and the next unit loads them afresh."""
        self._benches.clear()
        self._sequences.clear()
        self._last = None

    def _do(self, unit: Unit, tell: Watcher) -> None:
        where, number = unit.where, unit.where["job"]
        bench, device = self.bench(number), self.jobs[number].device
        if self._key(where) != unit.key:
            raise WorkFailed(
                f"{socket.gethostname()} would make something else than was planned: did a plugin change meanwhile? "
                f"Run the same command again"
            )
        bench.tell = tell
        self.store.provenance = {**{key: where[key] for key in ABOUT if key in where}, **software_versions()}
        try:
            with _device_in_one_sentence(device):
                if where["kind"] == "base":
                    bench.base_row()
                elif where["kind"] == "controls":
                    bench.controls()
                else:
                    self._do_for(self._sequence(number, where["order"], where["seed"]), where)
        finally:
            bench.tell = lambda event: None
        tell({"event": "memory", "bytes": memory_in_use(device)})

    def _key(self, where: dict[str, Any]) -> str | None:
        """What a unit's artifact is called here."""
        bench, kind = self.bench(where["job"]), where["kind"]
        if kind in ("base", "controls"):
            return bench.base_key if kind == "base" else bench.controls_key
        sequence = self._sequence(where["job"], where["order"], where["seed"])
        if kind == "fit":
            return sequence.shared_fit()
        return (sequence.state_key if kind == "train" else sequence.row_key)(where["position"])

    def _do_for(self, sequence: TaskSequence, where: dict[str, Any]) -> None:
        if where["kind"] == "fit":
            sequence.first_fit()
            return
        position = where["position"]
        if where["kind"] == "train":
            sequence.make_state(position)  # its lock, which is the unit's, is held
        else:
            sequence.row(position)
        if "states" not in self.jobs[where["job"]].keep:
            for earlier in range(max(0, position - 1), position + 1):
                self._drop_if_spent(where["job"], sequence.state_key(earlier), earlier)

    def _sequence(self, number: int, order: str, seed: int) -> TaskSequence:
        """One sequence; the last one forgets its state, which may be large, when another's turn comes.

        Its method is made afresh, so that nothing is handed on but the state.
        """
        found = next(one for one in self.sequences(number) if (one.order, one.seed) == (order, seed))
        if self._last not in (None, found):
            self._last.forget()
        self._last = found
        found.method = type(found.method)(**self.jobs[number].settings)
        return found

    def _sharing(self, number: int, state: str, position: int) -> list[TaskSequence]:
        """A job's sequences that have a state: orders may begin alike."""
        return [one for one in self.sequences(number) if one.state_key(position) == state]

    def _drop_if_spent(self, number: int, state: str, position: int) -> None:
        """All sequences that share a state must be through with it."""
        if all(one.spent(position) for one in self._sharing(number, state, position)):
            self.store.drop(state, ".safetensors")


def open_workshop(setup: str) -> Workshop:
    """What every worker of a crew opens.

    Args:
        setup: as `setup_of` writes it.

    Raises:
        WorkFailed: the worker has other software than the caller, or does not see its store or models.
    """
    told = json.loads(setup)
    jobs = [Job.model_validate(job) for job in told["jobs"]]
    workshop, host = Workshop(jobs), socket.gethostname()
    own = software_versions(jobs[0].device)
    if other := {name: version for name, version in own.items() if told["software"].get(name) != version}:
        raise WorkFailed(f"{host} has other software ({_listed(other)}) than the caller ({_listed(told['software'])})")
    if not workshop.store.has(told["sign"], ".json"):
        raise WorkFailed(f"{host} does not see the store {jobs[0].store}; give --store a folder or URL that all share")
    if unseen := [folder for job in jobs for folder in job.assets.folders.values() if not folder.is_dir()]:
        raise WorkFailed(f"{host} has no {unseen[0]}; put models and data where every node sees them")
    prepare_process(jobs[0].device, jobs[0].deterministic)
    return workshop


@contextmanager
def setup_of(workshop: Workshop) -> Iterator[str]:
    """What `open_workshop` takes, for a while: meanwhile a sign in the store shows that it is the same."""
    sign = recipe_key("sign", {"of": secrets.token_hex(8)})
    with workshop.store.lock(sign):  # one that nobody holds was left by a killed process
        workshop.store.put_json(sign, True)
        try:
            jobs = [job.model_dump(mode="json") for job in workshop.jobs]
            own = software_versions(workshop.jobs[0].device)
            yield json.dumps({"sign": sign, "software": own, "jobs": jobs})
        finally:
            workshop.store.drop(sign, ".json")


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


@contextmanager
def _device_in_one_sentence(device: str) -> Iterator[None]:
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
