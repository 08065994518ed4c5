"""A crew of one: this process."""

from __future__ import annotations

from collections.abc import Iterator

from clbench.errors import ClbenchError
from clbench.runner.engine.loop import End, Failed, Watcher, Workshop
from clbench.runner.engine.schedule import Unit


class Inline:
    """Does each unit when it is asked how that went; errors that no retry mends pass through."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._unit: Unit | None = None

    def free(self) -> int:
        return int(self._unit is None)

    def give(self, unit: Unit) -> None:
        self._unit = unit

    def hear(self, seconds: float, watch: Watcher) -> Iterator[tuple[Unit, End]]:
        unit, self._unit = self._unit, None
        if unit is None:
            return
        try:
            end = self.workshop.do(unit, lambda event: watch({"unit": unit.key, **event}))
        except ClbenchError as error:
            end = Failed(str(error), error.exit_code)
        yield unit, end
