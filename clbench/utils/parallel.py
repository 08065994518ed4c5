"""Many small pieces of work on all cores; few stay in this process, because starting others takes longer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

SERIAL_LIMIT = 64
"""So many items are done here."""
CHUNK_SIZE = 8
"""Items that a process takes at a time."""


def parallel_map(work: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """[work(item) for item in items], by as many processes as there are cores if there are more than `SERIAL_LIMIT`.

    Where processes are not forked, `work` is pickled once for each of them; items and what is returned always are.

    Raises:
        Exception: what `work` raises for the first item that it fails for.
    """
    processes = os.cpu_count() or 1
    if len(items) <= SERIAL_LIMIT or processes == 1:
        return [work(item) for item in items]
    from concurrent.futures import ProcessPoolExecutor  # it takes longer to import than few items take

    with ProcessPoolExecutor(processes, initializer=_set_work, initargs=(work,)) as pool:
        try:
            return list(pool.map(_call_work, items, chunksize=CHUNK_SIZE))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_work: Callable[[Any], Any]
"""In a process of the pool: what it does to every item. Handed over once, because it may know whole boards."""


def _set_work(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _call_work(item: Any) -> Any:
    return _work(item)
