"""Fetch a suite's assets from the Hugging Face hub: files into the hub's cache, images in tables as single files.

An interrupted download continues where it stopped: the hub's client keeps partial files, and a table's images are
written one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from clbench.data.locate import ALTERNATIVE, Asset, AssetPaths, AssetStatus, hub_repo_type, locate_asset
from clbench.errors import ClbenchError, WorkFailed
from clbench.suite import Dataset
from clbench.utils.files import write_atomic


def fetch(asset: Asset, paths: AssetPaths) -> AssetStatus:
    """Fetch an asset, unless it is there and complete; returns its status.

    Raises:
        ClbenchError: the hub does not have it, or it does not come from the hub. WorkFailed: the hub cannot be reached.
    """
    found = locate_asset(asset, paths)
    if found.problem is None:
        return found
    if not asset.from_hub:
        raise ClbenchError(found.problem)
    tables = asset.spec if isinstance(asset.spec, Dataset) and asset.spec.caption is not None else None
    folder = paths.default_folder(asset.source)
    if found.origin == "data root" and not (tables and found.folder == folder):
        raise ClbenchError(f"{found.problem}; {paths.root} takes precedence, so nothing is fetched")
    with _explain_hub_errors(asset):
        if tables:
            _fetch_tables(asset, tables, folder)
        else:
            _fetch_files(asset)
    found = locate_asset(asset, paths)
    if found.problem:
        raise WorkFailed(found.problem)
    return found


@contextmanager
def _explain_hub_errors(asset: Asset) -> Iterator[None]:
    """Turn errors of the hub's client into one sentence."""
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it logs every retry with a traceback
    what = f"{asset.name} ({asset.source})"
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        is_revision = isinstance(error, errors.RevisionNotFoundError)
        missing = f"revision {asset.spec.revision}" if is_revision else "such repository"
        raise ClbenchError(f"cannot fetch {what}: the hub has no {missing}, or not for this user") from None
    except ClbenchError:
        raise
    except Exception as error:  # the client's, its HTTP library's (which depends on its version) or the system's
        raise WorkFailed(
            f"cannot fetch {what}: {hub_reason(error)}; what has arrived is kept, and the same command goes on from "
            f"there"
        ) from error


def hub_reason(error: Exception) -> str:
    """The first sentence of an error of the hub's client, on one line."""
    return " ".join(str(error).split()).split(". ")[0][:300]


def _fetch_files(asset: Asset) -> None:
    from huggingface_hub import snapshot_download

    names = [name for file in asset.files or () for name in file.split(ALTERNATIVE)]
    if isinstance(asset.spec, Dataset):  # some repositories have the files in this folder
        names += [f"dataset/{name}" for name in names]
    snapshot_download(
        asset.source, repo_type=hub_repo_type(asset), revision=asset.spec.revision, allow_patterns=names or None
    )


def _fetch_tables(asset: Asset, dataset: Dataset, folder: Path) -> None:
    from huggingface_hub import HfApi, HfFileSystem

    revision = dataset.revision or "main"
    names = HfApi().list_repo_files(asset.source, repo_type="dataset", revision=revision)
    tables = sorted(name for name in names if name.endswith(".parquet"))
    hub = HfFileSystem()
    opened = (hub.open(f"datasets/{asset.source}@{revision}/{name}", block_size=2**20) for name in tables)
    extract_images(opened, len(tables), dataset, asset.files or (), folder)


def extract_images(tables: Any, count: int, dataset: Dataset, wanted: tuple[str, ...], folder: Path) -> None:
    """Write images `<style>/<object>/<n>.jpg` from parquet tables with the columns `text` and `image`.

    Reads a table's captions and file names, and then only the row groups with a wanted image. The library `datasets`
    cannot read a row's file name without its image: of 20 tables over HTTP it read three to eight times as much.

    Args:
        tables: `count` open binary files.
        wanted: names of the images.
        folder: where to write them.

    Raises:
        ClbenchError: an image is not identified by any row's caption and file name.
    """
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise ClbenchError("pyarrow is not installed; this needs `pip install 'clbench[data]'`") from None
    from rich.progress import track

    missing = {_image_key(file): file for file in wanted if not (folder / file).is_file()}
    pattern = (dataset.caption or "").format("(?P<style>.+?)", "(?P<object>.+?)")
    caption = re.compile(pattern + r"\.?\s*$", re.IGNORECASE)
    for table in track(tables, "reading tables", total=count, transient=True):
        if not missing:
            return
        rows = parquet.ParquetFile(table)
        for group in range(rows.num_row_groups):
            names = rows.read_row_group(group, columns=["text", "image.path"]).to_pylist()
            keys = {index: _row_key(row, caption) for index, row in enumerate(names)}
            hits = {index: missing.pop(key) for index, key in keys.items() if key in missing}
            if hits:
                images = rows.read_row_group(group, columns=["image"])
                for index, file in hits.items():
                    content = images["image"][index].as_py()["bytes"]
                    write_atomic(folder / file, lambda path, content=content: path.write_bytes(content))
    if missing:
        raise ClbenchError(
            f"the tables of {dataset.source.removeprefix('hub:')} do not name {len(missing)} of the pictures, e.g. "
            f"{next(iter(missing.values()))}; get the folder tree <style>/<object>/<n>.jpg from its authors, and give "
            f"it with --data-root"
        )


def _image_key(file: str) -> tuple[str, str, str]:
    """Style, object and file name without suffix, in lower case."""
    style, thing, name = PurePosixPath(file.lower()).parts
    return style, thing, PurePosixPath(name).stem


def _row_key(row: dict[str, Any], caption: re.Pattern[str]) -> tuple[str, str, str] | None:
    """The same from a row's caption and file name; None if they do not say."""
    match, path = caption.match(row["text"] or ""), (row["image"] or {}).get("path")
    if not match or not path:
        return None
    style, thing = (match[name].strip().lower().replace(" ", "_") for name in ("style", "object"))
    return style, thing, PurePosixPath(path.lower()).stem
