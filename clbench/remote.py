"""A store at a URL that fsspec opens (`s3://bucket/place`, `hf://datasets/me/place`, ...), for workers far apart.

Each process keeps copies of what it reads and writes in a temporary folder. There are no locks across processes: within
one sweep no unit is given to two workers, but two sweeps on one URL may do the same work, which gives the same
artifacts. Drivers are packages of their own: `s3://` needs `pip install s3fs`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from clbench.errors import ClbenchError, WorkFailed
from clbench.store import Store, checksum_of


class RemoteStore(Store):
    """As `Store`, with its artifacts behind a URL.

    Raises:
        ClbenchError: the URL cannot be opened.
    """

    def __init__(self, url: str, reuse: bool = True) -> None:
        self._copies = tempfile.TemporaryDirectory(prefix="clbench-store-")
        super().__init__(Path(self._copies.name), reuse)
        self.url = url.rstrip("/")
        try:
            self.fs, self.base = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except Exception as error:  # any driver's
            raise ClbenchError(f"the store {url} cannot be opened: {_reason(error)}") from None

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
                self.fs.get_file(self._remote(checksum_of(path)), str(checksum_of(path)))
                self.fs.get_file(self._remote(path), str(path))
            if not path.exists():
                return None
        whole = super().get(key, suffix)
        if whole is None:
            with self._reaching(), suppress(FileNotFoundError):  # another process may have done it
                self.fs.mv(self._remote(path), self._remote(path) + ".damaged")
        return whole

    def put(self, key: str, suffix: str, write: Callable[[Path], object]) -> Path:
        path = super().put(key, suffix, write)
        with self._reaching():
            self.fs.makedirs(self._remote(path.parent), exist_ok=True)
            for file in (checksum_of(path), path):  # in this order: what has no checksum counts as damaged
                self.fs.put_file(str(file), self._remote(file))
        return path

    def drop(self, key: str, suffix: str) -> None:
        super().drop(key, suffix)
        path = self.path(key, suffix)
        with self._reaching():
            for file in (path, checksum_of(path)):
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self._remote(file))

    def _remote(self, path: Path) -> str:
        return f"{self.base}/{path.relative_to(self.root).as_posix()}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Any driver's errors as one sentence."""
        try:
            yield
        except (ClbenchError, FileNotFoundError):
            raise
        except Exception as error:
            raise WorkFailed(
                f"the store {self.url} cannot be reached: {_reason(error)}; what was finished is kept, so run the same "
                f"command again"
            ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
