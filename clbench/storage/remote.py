"""A store at a URL that fsspec can open (`s3://bucket/folder`, `hf://datasets/me/folder`, ...).

Each process keeps copies of the last few files that it read or wrote in a temporary folder. Other processes do not see
its locks: one sweep never gives a unit to two workers, but two sweeps on one URL may do the same work, with the same
result. Drivers are packages of their own: `s3://` needs `pip install s3fs`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from clbench.errors import ClbenchError, WorkFailed
from clbench.storage.store import DAMAGED_SUFFIX, Store, StoredFile, checksum_path

PREFIX = "clbench-store-"
"""Prefix of the temporary folders with local copies."""
MAX_COPIES = 8
"""Number of local copies; one state of SDXL may take gigabytes."""
BUCKET_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
"""Protocols whose paths begin with a bucket, which some drivers would create if its name is misspelt."""
TIME_FIELDS = ("LastModified", "last_modified", "modified", "updated", "mtime", "created")
"""Names that drivers give to the time of a file's last modification."""


class RemoteStore(Store):
    """A store whose artifacts are at a URL.

    Raises:
        ClbenchError: the URL cannot be opened. WorkFailed: it cannot be reached.
    """

    def __init__(self, url: str, reuse: bool = True) -> None:
        self._copies, self._in_use = _copies_folder()
        super().__init__(Path(self._copies.name), reuse)
        self.location = url.rstrip("/")
        try:
            self.fs, self.base = fsspec.url_to_fs(self.location, use_listings_cache=False)
        except Exception as error:  # each driver has its own errors
            raise ClbenchError(f"the store {url} cannot be opened: {_reason(error)}") from None
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else self.fs.protocol
        if not BUCKET_PROTOCOLS.isdisjoint(protocols):
            bucket = self.base.split("/")[0]
            with self._reaching():
                if not self.fs.exists(bucket):
                    raise ClbenchError(
                        f"the store {url} cannot be opened: there is no bucket {bucket!r} that you can see"
                    )
        self._recent: list[Path] = []

    def location_of(self, name: str | Path) -> str:
        return f"{self.location}/{self._name(name)}"

    def is_unlocked(self, key: str) -> bool:
        return False  # other processes may hold it, and there is no way to know

    def has(self, key: str, suffix: str) -> bool:
        with self._reaching():
            return self._may_use(key) and self.fs.exists(self._remote(self.path(key, suffix)))

    def get(self, key: str, suffix: str) -> Path | None:
        path = self.path(key, suffix)
        if not self.has(key, suffix):
            return None
        if not path.exists():
            with self._reaching(), suppress(FileNotFoundError):  # a missing checksum is noticed below
                path.parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(self._remote(checksum_path(path)), str(checksum_path(path)))
                part = path.with_name(path.name + ".part")  # an interrupted download must not count as damaged
                self.fs.get_file(self._remote(path), str(part))
                part.replace(path)
            if not path.exists():
                return None
        self._remember_copy(path)
        return super().get(key, suffix)

    def _set_aside(self, path: Path, reason: str) -> None:
        super()._set_aside(path, reason)
        with self._reaching(), suppress(FileNotFoundError):  # another process may have renamed it
            self.fs.mv(self._remote(path), self._remote(path) + DAMAGED_SUFFIX)

    def put(self, key: str, suffix: str, write: Callable[[Path], object]) -> Path:
        path = super().put(key, suffix, write)
        with self._reaching():
            self.fs.makedirs(self._remote(path.parent), exist_ok=True)
            for file in (checksum_path(path), path):  # in this order: without a checksum it counts as damaged
                self.fs.put_file(str(file), self._remote(file))
        self._remember_copy(path)
        return path

    def drop(self, key: str, suffix: str) -> None:
        super().drop(key, suffix)
        path = self.path(key, suffix)
        for file in (path, checksum_path(path)):
            self.remove(self._name(file))

    def entries(self) -> list[StoredFile]:
        with self._reaching(), suppress(FileNotFoundError):  # some drivers raise it for an empty store
            found: dict[str, dict[str, Any]] = self.fs.find(self.base, maxdepth=3, detail=True)  # type: ignore[assignment]
            return [
                StoredFile("/".join(name.split("/")[-3:]), info["size"], modification_time(info))
                for name, info in found.items()
            ]
        return []

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = {self._remote(name): name for name in names}
        if not paths:
            return {}
        with self._reaching():
            contents: dict[str, bytes] = self.fs.cat(list(paths), on_error="omit")  # type: ignore[assignment]
        return {paths[path]: content for path, content in contents.items()}

    def remove(self, name: str) -> None:
        with self._reaching(), suppress(FileNotFoundError):
            self.fs.rm_file(self._remote(name))

    def _remember_copy(self, path: Path) -> None:
        """Note that a local copy was used, and delete the least recently used ones."""
        self._recent = [*(one for one in self._recent if one != path), path]
        for old in self._recent[:-MAX_COPIES]:
            old.unlink(missing_ok=True)
            checksum_path(old).unlink(missing_ok=True)
        self._recent = self._recent[-MAX_COPIES:]

    def _name(self, name: str | Path) -> str:
        """A file's name in the store, from that name or from its local copy's path."""
        return (self.root / name).relative_to(self.root).as_posix()

    def _remote(self, name: str | Path) -> str:
        return f"{self.base}/{self._name(name)}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn any driver's error into one sentence."""
        try:
            yield
        except (ClbenchError, FileNotFoundError):
            raise
        except Exception as error:
            raise WorkFailed(
                f"the store {self.location} cannot be reached: {_reason(error)}; finished work is kept, so run the "
                f"same command again"
            ) from error


def _copies_folder() -> tuple[tempfile.TemporaryDirectory[str], FileLock]:
    """A new folder for copies and the lock that marks it as in use; deletes folders that killed processes left."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            if time.time() - left.stat().st_mtime > 60:  # a younger one may not have its lock yet
                with FileLock(left / "in-use", timeout=0):
                    shutil.rmtree(left)
    folder = tempfile.TemporaryDirectory(prefix=PREFIX)
    lock = FileLock(Path(folder.name, "in-use"))
    lock.acquire()
    return folder, lock


def modification_time(info: Mapping[str, Any]) -> float:
    """Seconds since 1970 from fsspec's file information; now if it has no time, so that the file does not seem old."""
    moment = next((info[name] for name in TIME_FIELDS if info.get(name)), None)
    if isinstance(moment, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return moment.timestamp()
    return float(moment) if isinstance(moment, int | float) else time.time()


def _reason(error: Exception) -> str:
    is_clear = isinstance(error, ImportError | ValueError)  # as fsspec raises for a missing driver
    return " ".join((str(error) if is_clear else f"{type(error).__name__}: {error}").split())[:300]
