"""Artifacts stored by the hash of the recipe that made them, written atomically and verified by checksum on reading.

    key = recipe_key("cell", {"suite": sha, "task": "winter", ...})
    store.get_json(key) or store.put_json(key, compute())

A run that was killed finds what it had finished. A damaged artifact is renamed with a warning, and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError, safe_open

from clbench.errors import WorkFailed
from clbench.utils.files import cannot_write, file_sha256, write_atomic

Value = TypeVar("Value")


def recipe_key(kind: str, recipe: Mapping[str, Any]) -> str:
    """`<kind>-<sha256 of the recipe>`."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()}"


CHECKSUM_SUFFIX, DAMAGED_SUFFIX = ".sha256", ".damaged"
"""Suffixes added to an artifact's name: for the file with its checksum and provenance, and for a damaged artifact."""


def checksum_path(path: Path) -> Path:
    """The file beside an artifact that holds its checksum and its provenance."""
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def _exists(path: Path) -> bool:
    """True if a file exists. Listing its folder refreshes an NFS client's cache, which may say "no" for a minute."""
    if path.exists():
        return True
    with suppress(OSError), os.scandir(path.parent):
        pass
    return path.exists()


def _check_readable(path: Path, suffix: str) -> None:
    """Open a file that was just written, as its suffix says.

    Raises:
        WorkFailed: it cannot be read.
    """
    try:
        if suffix == ".safetensors":
            with safe_open(path, "np"):
                pass
        elif suffix == ".json":
            json.loads(path.read_text())
        elif suffix.endswith(".png"):
            with Image.open(path) as image:
                image.verify()
    except (SafetensorError, ValueError, OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise WorkFailed(f"the file written to {path.parent} cannot be read back: {error}") from error


class StoredFile(NamedTuple):
    """A file in a store."""

    name: str
    """Path relative to the store, with `/`."""
    size: int
    modified: float
    """Seconds since 1970."""


class Store:
    """A folder of artifacts.

    Args:
        root: the folder; created on the first write.
        reuse: whether to use artifacts of earlier processes (False with `--no-resume`).

    Attributes:
        location: the folder or URL, for messages.
        provenance: what the current work is for, for people; saved beside each artifact, and part of no key.
    """

    def __init__(self, root: Path, reuse: bool = True) -> None:
        self.root, self.location = root, str(root)
        self.provenance: dict[str, Any] = {}
        self._reuse, self._written = reuse, set[str]()

    def _may_use(self, key: str) -> bool:
        return self._reuse or key in self._written

    def location_of(self, name: str | Path) -> str:
        """The path or URL of a file in the store, for messages; from its name, or from its (local copy's) path."""
        return str(self.root / name)

    def path(self, key: str, suffix: str) -> Path:
        kind, sha = key.split("-", 1)
        return self.root / kind / sha[:2] / f"{sha}{suffix}"

    def get(self, key: str, suffix: str) -> Path | None:
        """The artifact's file, or None if it is missing or damaged."""
        path = self.path(key, suffix)
        checksum = checksum_path(path)
        if not self.has(key, suffix):
            return None
        try:
            if checksum.exists() and checksum.read_bytes().split(b"\n")[0] == file_sha256(path).encode():
                return path
        except FileNotFoundError:  # another process has just removed or renamed it
            return None
        self._set_aside(path, "does not fit its checksum")
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        """Rename a file that cannot be used, so that its work is done again."""
        damaged = path.with_name(path.name + DAMAGED_SUFFIX)
        try:
            path.replace(damaged)
        except FileNotFoundError:  # another process has just removed or renamed it
            return
        warnings.warn(
            f"{self.location_of(path)} {reason}: set aside as {damaged.name}; its work is done again", stacklevel=2
        )

    def has(self, key: str, suffix: str) -> bool:
        """True if the artifact exists; `get` verifies it."""
        return self._may_use(key) and _exists(self.path(key, suffix))

    @contextmanager
    def try_lock(self, key: str) -> Iterator[bool]:
        """Take the key's lock if it is free, and yield whether it was; the system frees it if this process dies.

        Raises:
            WorkFailed: the folder cannot be written.
        """
        path = self.root / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield True
        finally:
            lock.release()

    def is_unlocked(self, key: str) -> bool:
        """True if it is certain that nobody holds the key's lock."""
        path = self.root / "locks" / key
        try:
            with FileLock(path, timeout=0) if path.exists() else nullcontext():
                return True
        except (Timeout, OSError):
            return False

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Wait for the key's lock and hold it.

        A holder may lock only its artifact's inputs, which rules out deadlock: with a row's lock, its state's and its
        cells'; with a state's lock, the previous state's and the first training's.

        Raises:
            WorkFailed: the folder cannot be written.
        """
        while True:
            with self.try_lock(key) as acquired:
                if acquired:
                    yield
                    return
            time.sleep(0.02)

    def put(self, key: str, suffix: str, write: Callable[[Path], object]) -> Path:
        """Write an artifact, its checksum first: an artifact without its checksum counts as damaged.

        Raises:
            WorkFailed: it cannot be written or read back; nothing is kept then.
        """
        path = self.path(key, suffix)

        def write_both(temporary: Path) -> None:
            write(temporary)
            _check_readable(temporary, suffix)
            text = f"{file_sha256(temporary)}\n{json.dumps(self.provenance)}\n"
            write_atomic(checksum_path(path), lambda target: target.write_text(text))

        write_atomic(path, write_both)
        self._written.add(key)
        return path

    def drop(self, key: str, suffix: str) -> None:
        path = self.path(key, suffix)
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)

    def get_json(self, key: str, read: Callable[[Any], Value] = lambda content: content) -> Value | None:
        """What `read` makes of the artifact's content; None if it is missing or damaged.

        Args:
            read: raises ValueError (as pydantic does) where the content is not what belongs under the key, although it
                fits its checksum; it is set aside then.
        """
        path = self.get(key, ".json")
        if path is None:
            return None
        try:
            return read(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            self._set_aside(path, "fits its checksum, but is not what belongs there")
            return None

    def put_json(self, key: str, value: Any) -> Any:
        text = json.dumps(value, allow_nan=False)
        self.put(key, ".json", lambda path: path.write_text(text))
        return value

    def entries(self) -> list[StoredFile]:
        """All files that lie as deep as artifacts do, artifacts or not, and the locks."""
        found = []
        for path in sorted((*self.root.glob("*/*/*"), *(self.root / "locks").glob("*"))):
            with suppress(FileNotFoundError):  # removed meanwhile
                stat = path.stat()
                found.append(StoredFile(path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime))
        return found

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> content of the files that exist."""
        contents = {}
        for name in names:
            with suppress(OSError):
                contents[name] = (self.root / name).read_bytes()
        return contents

    def remove(self, name: str) -> None:
        """Remove a file if it exists, unless it is a lock that somebody holds."""
        kind, _, key = name.partition("/")
        with self.try_lock(key) if kind == "locks" else nullcontext(True) as acquired:
            if acquired:
                (self.root / name).unlink(missing_ok=True)
