"""Open a store by its place: a folder or a URL."""

from __future__ import annotations

from pathlib import Path

from clbench.storage.store import Store


def default_store(output: str | Path) -> str:
    """Where commands that write to `output` keep their artifacts, unless told otherwise."""
    return str(Path(output) / "store")


def local_folder(place: str | Path) -> Path | None:
    """The folder that a store's place names; None where it is another URL than `file://`."""
    name = str(place).removeprefix("file://")
    return None if "://" in name else Path(name)


def open_store(place: str | Path, reuse: bool = True) -> Store:
    """The store in a folder, or at an fsspec URL.

    Raises:
        ClbenchError: there is nothing that can be reached at the URL.
    """
    if folder := local_folder(place):
        return Store(folder, reuse)
    from clbench.storage.remote import RemoteStore

    return RemoteStore(str(place), reuse)
