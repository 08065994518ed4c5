"""Worker slots: stops a place whose workers die, such as a faulty GPU, from failing every unit it receives."""

from __future__ import annotations

MAX_DEATHS = 2
"""Deaths in a row in one slot, after which it rests until a unit was done in another."""


class WorkerSlots:
    """A pool's slots, by number."""

    def __init__(self, count: int) -> None:
        self._deaths = [0] * count
        self._resting: set[int] = set()

    def record_death(self, slot: int) -> None:
        """A worker died there while it did a unit."""
        self._deaths[slot] += 1
        if self._deaths[slot] >= MAX_DEATHS:
            self._resting.add(slot)

    def record_success(self, slot: int) -> None:
        """A unit was done there."""
        self._deaths[slot] = 0
        self._resting.clear()

    def usable(self, free: list[int], others_work: bool) -> list[int]:
        """Those of the free slots that may be given a unit, the best first; all of them rather than none at all."""
        awake = [slot for slot in free if slot not in self._resting]
        return sorted(awake or ([] if others_work else free), key=self._deaths.__getitem__)
