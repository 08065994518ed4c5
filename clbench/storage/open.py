"""Open a store at a folder or a URL."""

from __future__ import annotations

from pathlib import Path

from clbench.storage.store import Store


def default_store(output: str | Path) -> str:
    """The store of commands that write to `output`, unless --store names another."""
    return str(Path(output) / "store")


def local_folder(location: str | Path) -> Path | None:
    """The folder of a store's location; None for a URL other than `file://`."""
    name = str(location).removeprefix("file://")
    return None if "://" in name else Path(name)


def open_store(location: str | Path, reuse: bool = True) -> Store:
    """The store in a folder or at an fsspec URL.

    Raises:
        ClbenchError: the URL cannot be opened. WorkFailed: it cannot be reached.
    """
    if folder := local_folder(location):
        return Store(folder, reuse)
    from clbench.storage.remote import RemoteStore

    return RemoteStore(str(location), reuse)
