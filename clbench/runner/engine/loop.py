"""The loop that does units: give each to a free worker when what it needs is done, and try again what a worker lost."""

from __future__ import annotations

import time
from collections import Counter

from clbench.runner.engine.base import EventHandler, Failed, WorkerDied, WorkerPool
from clbench.runner.engine.schedule import Schedule, Unit

RETRY_DELAY = 0.2
"""Seconds before a unit that another command is doing is asked for again."""
MAX_ATTEMPTS = 3
"""Attempts at a unit whose workers die."""


def execute(units: list[Unit], pool: WorkerPool, on_event: EventHandler) -> dict[str, Failed]:
    """Do all units, and return group -> what made it fail.

    Args:
        units: what is to be done, each after those that it needs.
        on_event: called with `begin`, the executor's events, and `end` of every unit.
    """
    schedule, failures = Schedule(units), dict[str, Failed]()
    delayed: list[tuple[float, Unit]] = []
    deaths: Counter[str] = Counter()
    running, begun = 0, set[str]()
    while not schedule.finished:
        now = time.monotonic()
        for _, unit in (due := [entry for entry in delayed if entry[0] <= now]):
            schedule.put_back(unit)
        delayed = [entry for entry in delayed if entry not in due]
        while pool.free_workers() and (unit := schedule.take()):
            if unit.key not in begun:  # else it is asked for again
                begun.add(unit.key)
                on_event({"event": "begin", "unit": unit.key, "label": unit.label, **unit.params})
            running += 1
            pool.submit(unit)
        if not running and pool.free_workers():
            if not delayed:
                raise RuntimeError(f"{len(units)} units were planned, and none of those left can ever be ready")
            on_event({"event": "wait"})
            time.sleep(max(0.0, min(when for when, _ in delayed) - now))
        for unit, end in pool.poll(RETRY_DELAY, on_event) if running or not pool.free_workers() else ():
            running -= 1
            if isinstance(end, WorkerDied):
                deaths[unit.key] += 1
                begun.discard(unit.key)
                on_event({"event": "warning", "message": f"a worker died during {unit.label}: {end.reason}"})
                if deaths[unit.key] < MAX_ATTEMPTS:
                    schedule.put_back(unit)
                    continue
                end = Failed(f"{unit.label}: {MAX_ATTEMPTS} workers died of it, the last: {end.reason}")
            if end is False:
                delayed.append((time.monotonic() + RETRY_DELAY, unit))
                continue
            how = {"how": "failed", "message": end.message} if isinstance(end, Failed) else {"how": "done"}
            on_event({"event": "end", "unit": unit.key, "label": unit.label, **how, **unit.params})
            if isinstance(end, Failed):
                for group in unit.groups:
                    failures.setdefault(group, end)
                schedule.give_up(unit)
            else:
                schedule.finish(unit)
    return failures
