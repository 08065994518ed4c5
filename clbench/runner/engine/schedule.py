"""Which unit is next: a graph of units, done in the order in which they were planned."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Unit:
    """A piece of work that is never seen half done."""

    key: str
    """Its artifact's name in the store, and its lock's."""
    label: str
    """Its name, for people."""
    work: float
    """Expected U-Net passes of one image; a backward pass counts as two."""
    needs: tuple[str, ...] = ()
    """Keys of the units whose artifacts it reads."""
    groups: tuple[str, ...] = ()
    """The results it is for: one is given up when one of its units fails."""
    wanted: bool = True
    """Whether it is wanted for itself, not only by those that need it."""
    params: dict[str, Any] = field(default_factory=dict, hash=False)
    """What the executor needs to know to do it, as JSON: it is sent to other processes and is part of events."""


def needed(units: Sequence[Unit], done: Callable[[Unit], bool]) -> list[Unit]:
    """The units that are not done but wanted, for themselves or by one that is needed.

    Args:
        units: each after those that it needs.
    """
    wanted, kept = set(), []
    for unit in reversed(units):
        if (unit.wanted or unit.key in wanted) and not done(unit):
            wanted.update(unit.needs)
            kept.append(unit)
    return kept[::-1]


class Schedule:
    """Units that are open, ready or being done.

    Args:
        units: all that is to be done, in the order in which it is wanted; what a unit needs and is not among them is
            there already.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = {unit.key: unit for unit in units}
        self._rank = {key: number for number, key in enumerate(self.units)}
        self._missing = {key: {need for need in unit.needs if need in self.units} for key, unit in self.units.items()}
        self._followers: dict[str, list[str]] = defaultdict(list)
        for key, missing in self._missing.items():
            for need in missing:
                self._followers[need].append(key)
        self._ready = [self._rank[key] for key, missing in self._missing.items() if not missing]
        heapq.heapify(self._ready)
        self._keys = list(self.units)
        self._open = set(self.units)
        self._living = {group for unit in self.units.values() for group in unit.groups}

    @property
    def finished(self) -> bool:
        """True if no unit is left to do or to wait for."""
        return not self._open

    def take(self) -> Unit | None:
        """The first unit that is ready; the caller now does it. None where there is none."""
        while self._ready:
            key = self._keys[heapq.heappop(self._ready)]
            if key in self._open:
                return self.units[key]
        return None

    def put_back(self, unit: Unit) -> None:
        """Let a unit that was not done be taken again."""
        heapq.heappush(self._ready, self._rank[unit.key])

    def finish(self, unit: Unit) -> None:
        """Note that a unit is done: those that waited for it may be ready."""
        self._open.discard(unit.key)
        for key in self._followers[unit.key]:
            self._missing[key].discard(unit.key)
            if not self._missing[key] and key in self._open:
                heapq.heappush(self._ready, self._rank[key])

    def give_up(self, unit: Unit) -> None:
        """Note that a unit failed: leave out the results that it is for, and whatever only they need."""
        self._living -= set(unit.groups)
        self._open.discard(unit.key)
        self._open = {key for key in self._open if self._living.intersection(self.units[key].groups)}
