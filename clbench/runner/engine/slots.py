"""Where a crew's workers are: a place whose workers die, such as a bad GPU, must not use up unit after unit."""

from __future__ import annotations

AGAIN = 2
"""Deaths in a row at one place, after which it rests until a unit was done elsewhere."""


class Places:
    """A crew's places, by number."""

    def __init__(self, count: int) -> None:
        self._deaths = [0] * count
        self._resting: set[int] = set()

    def died(self, place: int) -> None:
        """A worker died there with a unit in its hands."""
        self._deaths[place] += 1
        if self._deaths[place] >= AGAIN:
            self._resting.add(place)

    def did(self, place: int) -> None:
        """A unit was done there."""
        self._deaths[place] = 0
        self._resting.clear()

    def ready(self, free: list[int], others_work: bool) -> list[int]:
        """Those of the free places that may be given a unit, the soundest first; all rather than none at all."""
        awake = [place for place in free if place not in self._resting]
        return sorted(awake or ([] if others_work else free), key=self._deaths.__getitem__)
