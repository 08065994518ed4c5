"""Which plugin files a store's runs were made with, so that their methods are found again without `--plugin`.

A result names no code to load: it has a checksum, and a file is loaded only if a run here used it, and it still has the
content that it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clbench.results.schema import MethodRef
from clbench.runner.config import SweepSpec
from clbench.storage.open import local_folder, open_store
from clbench.storage.store import Store, recipe_key
from clbench.utils.files import file_sha256


def remember_plugins(store: Store, sweep: SweepSpec) -> None:
    """Note in the store which file has each method that came from a plugin file."""
    for spec in sweep.specs:
        path = spec.method.file
        if path in sweep.plugins:
            store.put_json(_key(spec.reference), {"path": str(path), "sha256": file_sha256(path)})


def recall_plugin(method: MethodRef, stores: Iterable[str | Path]) -> tuple[Path, ...]:
    """The plugin file of a result's method, from the first of the stores that remembers it; () where none does."""
    for place in stores:
        folder = local_folder(str(place))
        if folder is not None and not folder.is_dir():
            continue
        known = open_store(place).get_json(_key(method))
        if known and Path(known["path"]).is_file() and file_sha256(Path(known["path"])) == known["sha256"]:
            return (Path(known["path"]),)
    return ()


def _key(method: MethodRef) -> str:
    return recipe_key("plugin", {"method": method.name, "source": method.source_sha256})
