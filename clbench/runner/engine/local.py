"""A crew of processes on this machine.

    with local(open_workshop, setup, [{}, {}]) as crew:       # two processes, no own environment variables
        work_off(units, crew, watch)

Each process opens the workshop once, with the same `setup`, and gets its units one at a time. It is started afresh, not
forked, and speaks JSON lines: units on its standard input, events and ends on its standard output. It dies with its
caller; when it dies alone, another takes its place.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from clbench.errors import WorkFailed
from clbench.runner.engine.loop import End, Failed, Watcher, WorkerDied, Workshop
from clbench.runner.engine.schedule import Unit
from clbench.runner.engine.slots import Places

GIVES_UP = 3
"""Processes in a row that never got as far as to open the workshop."""
LEAVES_WITHIN = 10.0
"""Seconds that a worker has to finish the file that it is writing, before it is killed."""


@contextmanager
def local(
    open_workshop: Callable[[str], Workshop], setup: str, surroundings: Sequence[Mapping[str, str]]
) -> Iterator[Local]:
    """A crew of one process for each of `surroundings`, for a while.

    Args:
        open_workshop: a function at the top of a module that can be imported; it is given `setup`.
        surroundings: what is added to each process's environment variables.
    """
    crew = Local(f"{open_workshop.__module__}:{open_workshop.__qualname__}", setup, surroundings)
    try:
        yield crew
    finally:
        crew.close()


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    surroundings: Mapping[str, str]
    complaints: Any
    """The file that its standard error goes to."""
    unit: Unit | None = None
    opened: bool = False
    heard: bytearray = field(default_factory=bytearray)
    """The beginning of a line."""


class Local:
    def __init__(self, place: str, setup: str, surroundings: Sequence[Mapping[str, str]]) -> None:
        self._place, self._setup, self._failed_starts = place, setup, 0
        self._selector = selectors.DefaultSelector()
        self._workers = [self._start(own) for own in surroundings]
        self._places = Places(len(self._workers))

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        return [worker.process for worker in self._workers]

    def free(self) -> int:
        return len(self._ready())

    def _ready(self) -> list[int]:
        free = [place for place, worker in enumerate(self._workers) if worker.unit is None]
        return self._places.ready(free, len(free) < len(self._workers))

    def give(self, unit: Unit) -> None:
        worker = self._workers[self._ready()[0]]
        worker.unit = unit
        self._say(worker, vars(unit))

    def hear(self, seconds: float, watch: Watcher) -> Iterator[tuple[Unit, End]]:
        for ready, _ in self._selector.select(seconds):
            worker: _Worker = ready.data
            raw = os.read(worker.process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
            if not raw:
                yield from self._replace(worker)
                continue
            *lines, rest = (worker.heard + raw).split(b"\n")
            worker.heard = bytearray(rest)
            for line in lines:
                yield from self._heard(worker, json.loads(line), watch)

    def _heard(self, worker: _Worker, told: dict[str, Any], watch: Watcher) -> Iterator[tuple[Unit, End]]:
        if "opened" in told:
            worker.opened, self._failed_starts = True, 0
        elif "event" in told:
            watch({"worker": worker.process.pid, **told})
        elif worker.unit is not None:
            unit, worker.unit = worker.unit, None
            self._places.did(self._workers.index(worker))
            yield unit, Failed(**told["failed"]) if "failed" in told else bool(told["done"])

    def _replace(self, worker: _Worker) -> Iterator[tuple[Unit, End]]:
        """Another worker for one that died.

        Raises:
            WorkFailed: several in a row could not even open the workshop.
        """
        reason = _last_words(worker)
        if not worker.opened:
            self._failed_starts += 1
            if self._failed_starts >= GIVES_UP:
                raise WorkFailed(f"worker processes cannot start: {reason}")
        self._leave(worker)
        place = self._workers.index(worker)
        self._workers[place] = self._start(worker.surroundings)
        if worker.unit is not None:
            self._places.died(place)
            yield worker.unit, WorkerDied(reason)

    def _start(self, surroundings: Mapping[str, str]) -> _Worker:
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "clbench.runner.engine.worker", self._place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, **surroundings},
            start_new_session=True,  # Ctrl-C is for the caller, who then closes our stdin
        )
        worker = _Worker(process, surroundings, complaints)
        assert process.stdout
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._say(worker, self._setup)
        return worker

    def _say(self, worker: _Worker, what: Any) -> None:
        assert worker.process.stdin
        with suppress(BrokenPipeError):  # it died: that is heard
            worker.process.stdin.write(json.dumps(what).encode() + b"\n")
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
        worker.complaints.close()

    def close(self) -> None:
        """Stop all workers, whatever they are doing; a file that one is writing is finished first."""
        for worker in self._workers:
            _close(worker.process.stdin)
        deadline = time.monotonic() + LEAVES_WITHIN
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
    """Why a worker died, as far as can be told."""
    code = worker.process.wait()
    worker.complaints.seek(0)
    lines = worker.complaints.read().decode(errors="replace").strip().splitlines()
    if code < 0:
        return f"it was killed by signal {-code}" + (" (is there enough memory?)" if code == -9 else "")
    return lines[-1] if lines else f"it ended with code {code}"
