"""The engine of several processes on this machine.

Each process opens its executor once, with the same setup, and gets its units one at a time. It speaks JSON lines: units
on its standard input, events and ends on its standard output. It dies with its caller; when it dies alone, another
takes its place.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import torch

from clbench.errors import ClbenchError, WorkFailed
from clbench.protocol.device import default_device, free_memory
from clbench.runner.engine.base import End, EventHandler, Failed, PoolRequest, WorkerDied, WorkerPool
from clbench.runner.engine.processes import WorkerProcess, start_worker
from clbench.runner.engine.schedule import Unit
from clbench.runner.engine.slots import WorkerSlots

WORKER_MEMORY = 1.7e9
"""Bytes of main memory that a CPU worker takes with a model as small as the bundled one."""
MAX_FAILED_STARTS = 3
"""Processes in a row that never got as far as to open the executor."""
CLOSING_SECONDS = 10.0
"""Seconds that a worker has to finish the file that it is writing, before it is killed."""


class LocalEngine:
    """This machine: one process a GPU, or one a core of the CPU, each with one thread.

    Args:
        memory: device -> bytes that are free.
    """

    def __init__(self, memory: Callable[[str], int] = free_memory) -> None:
        self._memory = memory

    def device(self, asked: str | None) -> str:
        name = asked or default_device()
        try:
            if torch.device(name).type not in ("cpu", "cuda", "mps"):
                raise RuntimeError("give cpu, cuda, or one of several GPUs as cuda:1")
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            if reason.startswith("Expected one of"):
                reason = "give cpu, cuda, or one of several GPUs as cuda:1"
            raise ClbenchError(f"there is no device {name!r} here: {reason}") from None
        return "cpu" if torch.device(name).type == "cpu" else name  # one CPU is like another

    def workers(self, asked: int | None, most: int, device: str) -> int:
        if device == "cpu":
            fitting = max(1, int(self._memory(device) / WORKER_MEMORY))
            return asked or min(torch.get_num_threads(), most, fitting)
        if device != "cuda":  # one of them
            if (asked or 1) > 1:
                raise ClbenchError(f"several workers would share {device}; give --device cuda for one worker a GPU")
            return 1
        gpus = torch.cuda.device_count()
        if (asked or 1) > gpus:
            raise ClbenchError(f"{asked} workers need as many GPUs, and {gpus} are here")
        return asked or min(gpus, most)

    def slots(self, device: str) -> int:
        if device == "cpu":
            return os.cpu_count() or 1
        return torch.cuda.device_count() if device == "cuda" else 1

    def sharing(self, workers: int, device: str) -> int:
        return workers if device == "cpu" else 1

    def measure(self, function: Callable[..., Any], device: str, *arguments: Any) -> Any:
        return function(device, *arguments)

    @contextmanager
    def start(self, request: PoolRequest) -> Iterator[WorkerPool]:
        at_start = _place(request.at_start) if request.at_start else ""
        environments = [_environment(request.device, slot) for slot in range(request.workers)]
        with request.setup() as setup:
            pool = LocalPool(_place(request.open_executor), setup, environments, at_start, request.device)
            try:
                yield pool
            finally:
                pool.close()


def _place(function: Callable[..., Any]) -> str:
    """A function as a worker is told of it."""
    return f"{function.__module__}:{function.__qualname__}"


def _environment(device: str, slot: int) -> dict[str, str]:
    """Environment variables of a worker: one thread of a CPU, or one GPU, which it calls `cuda` as all others do."""
    if device == "cpu":
        return {"OMP_NUM_THREADS": "1"}
    return {"CUDA_VISIBLE_DEVICES": _visible_gpus()[slot]} if device == "cuda" else {}


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as the environment variable names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


@dataclass
class _Worker:
    process: WorkerProcess
    env: Mapping[str, str]
    stderr: Any
    """The file that its standard error goes to."""
    unit: Unit | None = None
    opened: bool = False
    unread: bytearray = field(default_factory=bytearray)
    """The beginning of a line."""


class LocalPool:
    """Worker processes.

    Args:
        place: `module:function`, which opens a worker's executor and is given `setup`.
        environments: for each process, what is added to its environment variables.
        at_start: `module:function`, which each process calls first; "" for none.
        device: what they work on.
    """

    def __init__(
        self,
        place: str,
        setup: str,
        environments: Sequence[Mapping[str, str]],
        at_start: str = "",
        device: str = "cpu",
    ) -> None:
        self._places, self._setup, self._failed_starts = [place, at_start], setup, 0
        self._device = device
        self._selector = selectors.DefaultSelector()
        self._workers = [self._start(env) for env in environments]
        self._slots = WorkerSlots(len(self._workers))

    @property
    def processes(self) -> list[WorkerProcess]:
        return [worker.process for worker in self._workers]

    def free_workers(self) -> int:
        return len(self._usable())

    def _usable(self) -> list[int]:
        free = [slot for slot, worker in enumerate(self._workers) if worker.unit is None and worker.opened]
        return self._slots.usable(free, len(free) < len(self._workers))

    def submit(self, unit: Unit) -> None:
        worker = self._workers[self._usable()[0]]
        worker.unit = unit
        self._send(worker, vars(unit))

    def poll(self, seconds: float, on_event: EventHandler) -> Iterator[tuple[Unit, End]]:
        for ready, _ in self._selector.select(seconds):
            worker: _Worker = ready.data
            raw = os.read(worker.process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
            if not raw:
                yield from self._replace(worker)
                continue
            *lines, rest = (worker.unread + raw).split(b"\n")
            worker.unread = bytearray(rest)
            for line in lines:
                yield from self._received(worker, json.loads(line), on_event)

    def _received(self, worker: _Worker, message: dict[str, Any], on_event: EventHandler) -> Iterator[tuple[Unit, End]]:
        if "opened" in message:
            worker.opened, self._failed_starts = True, 0
        elif "event" in message:
            on_event({"worker": worker.process.pid, **message})
        elif worker.unit is not None:
            unit, worker.unit = worker.unit, None
            self._slots.record_success(self._workers.index(worker))
            yield unit, Failed(**message["failed"]) if "failed" in message else bool(message["done"])

    def _replace(self, worker: _Worker) -> Iterator[tuple[Unit, End]]:
        """Another worker for one that died.

        Raises:
            WorkFailed: several in a row could not even open their executor.
        """
        reason = _last_words(worker)
        if not worker.opened:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkFailed(f"worker processes cannot start: {reason}")
        self._leave(worker)
        slot = self._workers.index(worker)
        self._workers[slot] = self._start(worker.env)
        if worker.unit is not None:
            self._slots.record_death(slot)
            yield worker.unit, WorkerDied(reason)

    def _start(self, env: Mapping[str, str]) -> _Worker:
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        process = start_worker(self._places, {**os.environ, **env}, self._device, stderr)
        worker = _Worker(process, env, stderr)
        assert process.stdout
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._send(worker, self._setup)
        return worker

    def _send(self, worker: _Worker, message: Any) -> None:
        assert worker.process.stdin
        with suppress(BrokenPipeError):  # it died, which poll() sees
            worker.process.stdin.write(json.dumps(message).encode() + b"\n")
            worker.process.stdin.flush()

    def _leave(self, worker: _Worker) -> None:
        """Let go of a worker; it leaves when its stdin closes."""
        process = worker.process
        assert process.stdin
        assert process.stdout
        self._selector.unregister(process.stdout)
        _close(process.stdin)
        _close(process.stdout)
        process.wait()
        worker.stderr.close()

    def close(self) -> None:
        """Stop all workers, whatever they are doing; a file that one is writing is finished first."""
        for worker in self._workers:
            _close(worker.process.stdin)
        deadline = time.monotonic() + CLOSING_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
            self._leave(worker)
        self._selector.close()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe:
        with suppress(BrokenPipeError):
            pipe.close()


def _last_words(worker: _Worker) -> str:
    """Why a worker died, as far as is known."""
    code = worker.process.wait()
    worker.stderr.seek(0)
    lines = worker.stderr.read().decode(errors="replace").strip().splitlines()
    if code < 0:
        return f"it was killed by signal {-code}" + (" (is there enough memory?)" if code == -9 else "")
    return lines[-1] if lines else f"it ended with code {code}"
