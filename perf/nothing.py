"""An executor of units that do nothing but take their lock, as real ones do."""

from __future__ import annotations

from pathlib import Path

from clbench.runner.engine import EventHandler, Unit
from clbench.storage.store import Store


class Nothing:
    def __init__(self, store: Store) -> None:
        self.store = store

    def do(self, unit: Unit, emit: EventHandler) -> bool:
        with self.store.try_lock(unit.key) as mine:
            return mine


def open_nothing(folder: str) -> Nothing:
    return Nothing(Store(Path(folder)))
