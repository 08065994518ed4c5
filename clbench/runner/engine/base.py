"""The parts of an engine: an executor does units, a pool runs executors in workers, an engine starts a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from clbench.errors import ClbenchError, MethodFailed
from clbench.runner.engine.schedule import Unit

Event = dict[str, Any]
"""Something that happened, as JSON: `event` names it, `unit` and its `params` say where."""
EventHandler = Callable[[Event], None]


class Executor(Protocol):
    """Does units; every worker opens one for itself and keeps it."""

    def do(self, unit: Unit, emit: EventHandler) -> bool:
        """Do a unit, unless its artifact exists; False where another command is doing it.

        Raises:
            ClbenchError: it failed, and would again. DeviceFailed: it failed, but would not in another process.
        """
        ...


@dataclass(frozen=True)
class Failed:
    """A unit failed, and would again: the sentence, and its exit code."""

    message: str
    exit_code: int = 1
    cause: BaseException | None = field(default=None, compare=False)
    """What was raised in the first place, with its traceback, if it was in this process."""
    by_method: bool = False
    """Whether it is the method that failed, which may do better with other settings."""

    @classmethod
    def of(cls, error: ClbenchError, cause: BaseException | None = None) -> Failed:
        return cls(str(error), error.exit_code, cause, isinstance(error, MethodFailed))


@dataclass(frozen=True)
class WorkerDied:
    """A worker died while it did a unit."""

    reason: str


End = bool | Failed | WorkerDied
"""How a unit ended: done (True), being done by another command (False), failed, or with its worker."""


class WorkerPool(Protocol):
    """Workers, each doing at most one unit at a time."""

    def free_workers(self) -> int:
        """How many could take a unit now."""
        ...

    def submit(self, unit: Unit) -> None:
        """Let a free worker do a unit."""
        ...

    def poll(self, seconds: float, on_event: EventHandler) -> Iterator[tuple[Unit, End]]:
        """Pass events on, and yield the units that ended; waits at most so long for the first of them."""
        ...


@dataclass(frozen=True)
class PoolRequest:
    """What an engine needs to know to start workers."""

    executor: Executor
    """This process's own."""
    open_executor: Callable[[str], Executor]
    """A function at the top of a module; other processes call it with the setup to open their executor."""
    setup: Callable[[], AbstractContextManager[str]]
    """A context that gives the setup; it is valid inside."""
    workers: int
    device: str
    memory: int
    """Bytes of main memory that each worker needs."""
    at_start: Callable[[], None] | None = None
    """Called by each process of this machine before it gets the setup; a function at the top of a module too."""


class Engine(Protocol):
    """A place where units are done."""

    def device(self, asked: str | None) -> str:
        """The device that workers use: the one asked for, or the best there is.

        Raises:
            ClbenchError: it is not there.
        """
        ...

    def workers(self, asked: int | None, most: int, device: str) -> int:
        """How many workers to start: as many as asked for, or as fit, but no more than `most` by default.

        Raises:
            ClbenchError: so many do not fit.
        """
        ...

    def slots(self, device: str) -> int:
        """How many workers run at full speed at the same time."""
        ...

    def sharing(self, workers: int, device: str) -> int:
        """How many of the workers share the memory of one device."""
        ...

    def measure(self, function: Callable[..., Any], device: str, *arguments: Any) -> Any:
        """`function(device, *arguments)`, called where units will be done.

        Raises:
            ClbenchError: as the function does.
        """
        ...

    def start(self, request: PoolRequest) -> AbstractContextManager[WorkerPool]:
        """Workers for a while."""
        ...
