"""A store at a URL that fsspec opens (`s3://bucket/place`, `hf://datasets/me/place`, ...), for workers far apart.

Each process keeps copies of the last few files that it read or wrote in a temporary folder. There are no locks across
processes: within one sweep no unit is given to two workers, but two sweeps on one URL may do the same work, which gives
the same artifacts. Drivers are packages of their own: `s3://` needs `pip install s3fs`.
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
"""Of the temporary folders with copies."""
MAX_COPIES = 8
"""Local copies at a time; a state of SDXL may take gigabytes."""
BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
"""Drivers whose places begin with a bucket, which some of them would make where its name is misspelt."""
MODIFIED = ("LastModified", "last_modified", "modified", "updated", "mtime", "created")
"""What drivers call the time when a file was written."""


class RemoteStore(Store):
    """As `Store`, with its artifacts behind a URL.

    Raises:
        ClbenchError: the URL cannot be opened.
    """

    def __init__(self, url: str, reuse: bool = True) -> None:
        self._copies, self._in_use = _own_folder()
        super().__init__(Path(self._copies.name), reuse)
        self.location = url.rstrip("/")
        try:
            self.fs, self.base = fsspec.url_to_fs(self.location, use_listings_cache=False)
        except Exception as error:  # any driver's
            raise ClbenchError(f"the store {url} cannot be opened: {_reason(error)}") from None
        if not BUCKETS.isdisjoint({self.fs.protocol} if isinstance(self.fs.protocol, str) else self.fs.protocol):
            bucket = self.base.split("/")[0]
            with self._reaching():
                if not self.fs.exists(bucket):
                    raise ClbenchError(
                        f"the store {url} cannot be opened: there is no bucket {bucket!r} that you can see"
                    )
        self._latest: list[Path] = []

    def location_of(self, name: str | Path) -> str:
        return f"{self.location}/{self._name(name)}"

    def is_unlocked(self, key: str) -> bool:
        return False  # who can tell

    def has(self, key: str, suffix: str) -> bool:
        with self._reaching():
            return (self._made is None or key in self._made) and self.fs.exists(self._remote(self.path(key, suffix)))

    def get(self, key: str, suffix: str) -> Path | None:
        path = self.path(key, suffix)
        if not self.has(key, suffix):
            return None
        if not path.exists():
            with self._reaching(), suppress(FileNotFoundError):  # without its checksum it is not taken for whole
                path.parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(self._remote(checksum_path(path)), str(checksum_path(path)))
                part = path.with_name(path.name + ".part")  # an interrupted download is no damaged artifact
                self.fs.get_file(self._remote(path), str(part))
                part.replace(path)
            if not path.exists():
                return None
        self._copied(path)
        whole = super().get(key, suffix)
        if whole is None:
            with self._reaching(), suppress(FileNotFoundError):  # another process may have done it
                self.fs.mv(self._remote(path), self._remote(path) + DAMAGED_SUFFIX)
        return whole

    def put(self, key: str, suffix: str, write: Callable[[Path], object]) -> Path:
        path = super().put(key, suffix, write)
        with self._reaching():
            self.fs.makedirs(self._remote(path.parent), exist_ok=True)
            for file in (checksum_path(path), path):  # in this order: what has no checksum counts as damaged
                self.fs.put_file(str(file), self._remote(file))
        self._copied(path)
        return path

    def drop(self, key: str, suffix: str) -> None:
        super().drop(key, suffix)
        path = self.path(key, suffix)
        for file in (path, checksum_path(path)):
            self.remove(self._name(file))

    def entries(self) -> list[StoredFile]:
        with self._reaching(), suppress(FileNotFoundError):  # some drivers' word for an empty place
            found: dict[str, dict[str, Any]] = self.fs.find(self.base, maxdepth=3, detail=True)  # type: ignore[assignment]
            return [
                StoredFile("/".join(name.split("/")[-3:]), told["size"], modification_time(told))
                for name, told in found.items()
            ]
        return []

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        places = {self._remote(name): name for name in names}
        if not places:
            return {}
        with self._reaching():
            contents: dict[str, bytes] = self.fs.cat(list(places), on_error="omit")  # type: ignore[assignment]
        return {places[place]: content for place, content in contents.items()}

    def remove(self, name: str) -> None:
        with self._reaching(), suppress(FileNotFoundError):
            self.fs.rm_file(self._remote(name))

    def _copied(self, path: Path) -> None:
        """Remember a local copy, and let the oldest go."""
        self._latest = [*(one for one in self._latest if one != path), path]
        for old in self._latest[:-MAX_COPIES]:
            old.unlink(missing_ok=True)
            checksum_path(old).unlink(missing_ok=True)
        self._latest = self._latest[-MAX_COPIES:]

    def _name(self, name: str | Path) -> str:
        """Of a file in the store, or of its local copy."""
        return (self.root / name).relative_to(self.root).as_posix()

    def _remote(self, name: str | Path) -> str:
        return f"{self.base}/{self._name(name)}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Any driver's errors as one sentence."""
        try:
            yield
        except (ClbenchError, FileNotFoundError):
            raise
        except Exception as error:
            raise WorkFailed(
                f"the store {self.location} cannot be reached: {_reason(error)}; what was finished is kept, so run the "
                f"same command again"
            ) from error


def _own_folder() -> tuple[tempfile.TemporaryDirectory[str], FileLock]:
    """A folder for copies, and the lock that keeps it; those that killed processes left go."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            if time.time() - left.stat().st_mtime > 60:  # else it may not have its lock yet
                with FileLock(left / "in-use", timeout=0):
                    shutil.rmtree(left)
    folder = tempfile.TemporaryDirectory(prefix=PREFIX)
    lock = FileLock(Path(folder.name, "in-use"))
    lock.acquire()
    return folder, lock


def modification_time(told: Mapping[str, Any]) -> float:
    """Seconds since 1970; now, where the driver does not say, so that nothing seems old."""
    moment = next((told[name] for name in MODIFIED if told.get(name)), None)
    if isinstance(moment, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return moment.timestamp()
    return float(moment) if isinstance(moment, int | float) else time.time()


def _reason(error: Exception) -> str:
    says_it_all = isinstance(error, ImportError | ValueError)  # what fsspec says of drivers that it lacks
    return " ".join((str(error) if says_it_all else f"{type(error).__name__}: {error}").split())[:300]
