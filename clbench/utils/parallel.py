"""Apply a function to many items on all CPU cores; for few items this process alone is faster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

SERIAL_LIMIT = 64
"""Up to this many items are processed in this process."""
CHUNK_SIZE = 8
"""Items sent to a process at a time."""


def parallel_map(work: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """[work(item) for item in items], computed by one process for each core if there are more than `SERIAL_LIMIT`.

    Items and results must be picklable; on systems that do not fork, `work` too, which is sent to each process once.

    Raises:
        Exception: the error of the first item for which `work` fails.
    """
    processes = os.cpu_count() or 1
    if len(items) <= SERIAL_LIMIT or processes == 1:
        return [work(item) for item in items]
    from concurrent.futures import ProcessPoolExecutor  # imported here, because it takes longer than few items

    with ProcessPoolExecutor(processes, initializer=_set_work, initargs=(work,)) as pool:
        try:
            return list(pool.map(_call_work, items, chunksize=CHUNK_SIZE))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_work: Callable[[Any], Any]
"""The function of a process in the pool. It is sent once, because it may contain much data."""


def _set_work(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _call_work(item: Any) -> Any:
    return _work(item)
