"""Working units off with a crew, whoever that is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from clbench.runner.engine.schedule import Schedule, Unit

Event = dict[str, Any]
"""What happened, as JSON: `event` says what, `unit` and its `where` say to what."""
Watcher = Callable[[Event], None]

PATIENCE = 0.2
"""Seconds before a unit that another command has in hand is asked for again."""
TRIES = 3
"""How often a unit is begun whose workers die."""


class Workshop(Protocol):
    """What a worker opens for itself, and keeps."""

    def do(self, unit: Unit, tell: Watcher) -> bool:
        """Do a unit, unless its artifact is there; False where another command has it in hand.

        Raises:
            ClbenchError: it failed, and would again. DeviceFailed: but not in another process.
        """
        ...


@dataclass(frozen=True)
class Failed:
    """A unit failed, and would again: the sentence, and its exit code."""

    message: str
    exit_code: int = 1


@dataclass(frozen=True)
class WorkerDied:
    """A worker died with a unit in its hands."""

    reason: str


End = bool | Failed | WorkerDied
"""How a unit ended: done, in another command's hands, failed, or with its worker."""


class Crew(Protocol):
    """Workers, each with at most one unit in hand."""

    def free(self) -> int:
        """How many could take a unit now."""
        ...

    def give(self, unit: Unit) -> None:
        """Let a free worker do a unit."""
        ...

    def hear(self, seconds: float, watch: Watcher) -> Iterator[tuple[Unit, End]]:
        """Pass on what is told, and say which units ended; waits that long at most for the first of them."""
        ...


def work_off(units: list[Unit], crew: Crew, watch: Watcher) -> dict[str, Failed]:
    """Do all units, and return group -> what made it fail.

    Args:
        units: what is to be done, each after those that it needs.
        watch: told `begin`, what the workshop tells, and `end` of every unit.
    """
    schedule, failures = Schedule(units), dict[str, Failed]()
    busy: list[tuple[float, Unit]] = []
    lost: Counter[str] = Counter()
    in_hand, begun = 0, set[str]()
    while not schedule.finished:
        now = time.monotonic()
        for _, unit in (patient := [entry for entry in busy if entry[0] <= now]):
            schedule.put_back(unit)
        busy = [entry for entry in busy if entry not in patient]
        while crew.free() and (unit := schedule.take()):
            if unit.key not in begun:  # else it is asked for again
                begun.add(unit.key)
                watch({"event": "begin", "unit": unit.key, "label": unit.label, **unit.where})
            in_hand += 1
            crew.give(unit)
        if not in_hand and crew.free():
            if not busy:
                raise RuntimeError(f"{len(units)} units were planned, and none of those left can ever be ready")
            watch({"event": "wait"})
            time.sleep(max(0.0, min(when for when, _ in busy) - now))
        for unit, end in crew.hear(PATIENCE, watch) if in_hand or not crew.free() else ():
            in_hand -= 1
            if isinstance(end, WorkerDied):
                lost[unit.key] += 1
                begun.discard(unit.key)
                watch({"event": "warning", "message": f"a worker died during {unit.label}: {end.reason}"})
                if lost[unit.key] < TRIES:
                    schedule.put_back(unit)
                    continue
                end = Failed(f"{unit.label}: {TRIES} workers died of it, the last: {end.reason}")
            if end is False:
                busy.append((time.monotonic() + PATIENCE, unit))
                continue
            how = {"how": "failed", "message": end.message} if isinstance(end, Failed) else {"how": "done"}
            watch({"event": "end", "unit": unit.key, "label": unit.label, **how, **unit.where})
            if isinstance(end, Failed):
                for group in unit.groups:
                    failures.setdefault(group, end)
                schedule.give_up(unit)
            else:
                schedule.finish(unit)
    return failures
