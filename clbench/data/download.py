"""Get what a suite needs from the Hugging Face hub: whole files into the hub's own cache, rows of tables as files.

An interrupted download goes on where it stopped: the hub's client keeps parts of files, and a table's pictures are
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


def fetch(item: Asset, places: AssetPaths) -> AssetStatus:
    """Get an item, unless it is there and whole; returns what there is then.

    Raises:
        ClbenchError: the hub does not have it, or it is not the hub's. WorkFailed: the hub cannot be reached.
    """
    found = locate_asset(item, places)
    if found.problem is None:
        return found
    if not item.from_hub:
        raise ClbenchError(found.problem)
    rows = isinstance(item.spec, Dataset) and item.spec.caption is not None
    if found.origin == "data root" and not (rows and found.folder == places.own(item.place)):
        raise ClbenchError(f"{found.problem}; {places.root} takes precedence, so nothing is fetched")
    with _in_one_sentence(item):
        if isinstance(item.spec, Dataset) and rows:
            _fetch_rows(item, item.spec, places.own(item.place))
        else:
            _fetch_files(item)
    found = locate_asset(item, places)
    if found.problem:
        raise WorkFailed(found.problem)
    return found


@contextmanager
def _in_one_sentence(item: Asset) -> Iterator[None]:
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it tells of every retry with a traceback
    where = f"{item.name} ({item.place})"
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        revision = isinstance(error, errors.RevisionNotFoundError)
        what = f"revision {item.spec.revision}" if revision else "such repository"
        raise ClbenchError(f"cannot fetch {where}: the hub has no {what}, or not for this user") from None
    except ClbenchError:
        raise
    except Exception as error:  # the client's own, its HTTP library's (which changes with its version), the system's
        reason = " ".join(str(error).split()).split(". ")[0][:300]
        raise WorkFailed(
            f"cannot fetch {where}: {reason}; what has arrived is kept, and the same command goes on from there"
        ) from error


def _fetch_files(item: Asset) -> None:
    from huggingface_hub import snapshot_download

    names = [name for file in item.files or () for name in file.split(ALTERNATIVE)]
    if isinstance(item.spec, Dataset):  # its checkout and its hub repository put the files into a folder
        names += [f"dataset/{name}" for name in names]
    snapshot_download(
        item.place, repo_type=hub_repo_type(item), revision=item.spec.revision, allow_patterns=names or None
    )


def _fetch_rows(item: Asset, dataset: Dataset, folder: Path) -> None:
    from huggingface_hub import HfApi, HfFileSystem

    revision = dataset.revision or "main"
    names = HfApi().list_repo_files(item.place, repo_type="dataset", revision=revision)
    tables = sorted(name for name in names if name.endswith(".parquet"))
    files = HfFileSystem()
    opened = (files.open(f"datasets/{item.place}@{revision}/{name}", block_size=2**20) for name in tables)
    extract_images(opened, len(tables), dataset, item.files or (), folder)


def extract_images(tables: Any, count: int, dataset: Dataset, wanted: tuple[str, ...], folder: Path) -> None:
    """Write the wanted pictures `<style>/<object>/<n>.jpg` of parquet tables with columns `text` and `image`.

    Only the captions and file names of a table are read, and then the row groups that hold a wanted picture.

    Args:
        tables: open binary files, `count` of them.
        wanted: which pictures.
        folder: where they go.

    Raises:
        ClbenchError: the rows do not say which picture is which.
    """
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise ClbenchError("pyarrow is not installed; this needs `pip install 'clbench[data]'`") from None
    from rich.progress import track

    open_names = {_key(file): file for file in wanted if not (folder / file).is_file()}
    pattern = (dataset.caption or "").format("(?P<style>.+?)", "(?P<object>.+?)")
    caption = re.compile(pattern + r"\.?\s*$", re.IGNORECASE)
    for table in track(tables, "reading tables", total=count, transient=True):
        if not open_names:
            return
        rows = parquet.ParquetFile(table)
        for group in range(rows.num_row_groups):
            names = rows.read_row_group(group, columns=["text", "image.path"]).to_pylist()
            keys = {index: _row_key(row, caption) for index, row in enumerate(names)}
            hits = {index: open_names.pop(key) for index, key in keys.items() if key in open_names}
            if hits:
                images = rows.read_row_group(group, columns=["image"])
                for index, file in hits.items():
                    content = images["image"][index].as_py()["bytes"]
                    write_atomic(folder / file, lambda path, content=content: path.write_bytes(content))
    if open_names:
        raise ClbenchError(
            f"the tables of {dataset.source.removeprefix('hub:')} do not name {len(open_names)} of the pictures, e.g. "
            f"{next(iter(open_names.values()))}; get the folder tree <style>/<object>/<n>.jpg from its authors, and "
            f"give it with --data-root"
        )


def _key(file: str) -> tuple[str, str, str]:
    style, thing, name = PurePosixPath(file.lower()).parts
    return style, thing, PurePosixPath(name).stem


def _row_key(row: dict[str, Any], caption: re.Pattern[str]) -> tuple[str, str, str] | None:
    """The same of a row, if its caption and its picture's file name say so."""
    match, path = caption.match(row["text"] or ""), (row["image"] or {}).get("path")
    if not match or not path:
        return None
    style, thing = (match[name].strip().lower().replace(" ", "_") for name in ("style", "object"))
    return style, thing, PurePosixPath(path.lower()).stem
