"""The engine of one worker: this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clbench.errors import ClbenchError
from clbench.runner.engine.base import End, EventHandler, Executor, Failed, PoolRequest
from clbench.runner.engine.local import LocalEngine
from clbench.runner.engine.schedule import Unit


class InlineEngine(LocalEngine):
    """This machine, and this process alone."""

    @contextmanager
    def start(self, request: PoolRequest) -> Iterator[InlinePool]:
        yield InlinePool(request.executor)


class InlinePool:
    """Does a unit when it is polled; errors that no retry mends pass through."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._unit: Unit | None = None

    def free_workers(self) -> int:
        return int(self._unit is None)

    def submit(self, unit: Unit) -> None:
        self._unit = unit

    def poll(self, seconds: float, on_event: EventHandler) -> Iterator[tuple[Unit, End]]:
        unit, self._unit = self._unit, None
        if unit is None:
            return
        try:
            end = self._executor.do(unit, lambda event: on_event({"unit": unit.key, **event}))
        except ClbenchError as error:
            end = Failed.of(error, error.__cause__)
        yield unit, end
