"""Content-addressed artifacts: each lies under the hash of what made it, is written atomically and checked on reading.

    key = recipe_key("cell", {"suite": sha, "task": "winter", ...})
    store.get_json(key) or store.put_json(key, compute())

A killed run finds what it had finished; a damaged artifact is set aside with a warning and made again.
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
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError, safe_open

from clbench.errors import WorkFailed
from clbench.utils.files import cannot_write, file_sha256, write_atomic


def recipe_key(kind: str, recipe: Mapping[str, Any]) -> str:
    """`<kind>-<sha256 of the recipe>`."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()}"


CHECKSUM_SUFFIX, DAMAGED_SUFFIX = ".sha256", ".damaged"
"""What the name of an artifact ends with beside it: its checksum and what it was made for; itself, set aside."""


def checksum_path(path: Path) -> Path:
    """The file beside an artifact that holds its checksum, and what it was made for."""
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def _is_there(path: Path) -> bool:
    """On NFS a client remembers for a minute that a file was not there, unless its folder is opened."""
    if path.exists():
        return True
    with suppress(OSError), os.scandir(path.parent):
        pass
    return path.exists()


def _read_back(path: Path, suffix: str) -> None:
    """Open a file that was just written, by the kind that its suffix names.

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
    except (SafetensorError, ValueError, OSError, SyntaxError) as error:  # Pillow calls a broken PNG a SyntaxError
        raise WorkFailed(f"what was written to {path.parent} cannot be read back: {error}") from error


class StoredFile(NamedTuple):
    """A file of a store."""

    name: str
    """Relative to the store, with `/`."""
    size: int
    modified: float
    """Seconds since 1970."""


class Store:
    """A folder of artifacts.

    Args:
        root: where; made when first written to.
        reuse: whether artifacts of earlier processes count (`--no-resume` says no).
    """

    def __init__(self, root: Path, reuse: bool = True) -> None:
        self.root, self.location = root, str(root)
        self.provenance: dict[str, Any] = {}
        """What is being done, for people: written beside each artifact's checksum, and part of no key."""
        self._made: set[str] | None = None if reuse else set()

    def location_of(self, name: str | Path) -> str:
        """Where a file of the store lies, for people; by its name or its (local copy's) path."""
        return str(self.root / name)

    def path(self, key: str, suffix: str) -> Path:
        kind, sha = key.split("-", 1)
        return self.root / kind / sha[:2] / f"{sha}{suffix}"

    def get(self, key: str, suffix: str) -> Path | None:
        """The artifact's file, or None where it is missing or damaged."""
        path = self.path(key, suffix)
        checksum = checksum_path(path)
        if not self.has(key, suffix):
            return None
        aside = path.with_name(path.name + DAMAGED_SUFFIX)
        try:
            if checksum.exists() and checksum.read_bytes().split(b"\n")[0] == file_sha256(path).encode():
                return path
            path.replace(aside)
        except FileNotFoundError:  # dropped, or set aside, by another process at this moment
            return None
        warnings.warn(
            f"{self.location_of(path)} does not fit its checksum: set aside as {aside.name}; its work is done again",
            stacklevel=2,
        )
        return None

    def has(self, key: str, suffix: str) -> bool:
        """Whether the artifact is there; whether it is whole is seen when it is read."""
        return (self._made is None or key in self._made) and _is_there(self.path(key, suffix))

    @contextmanager
    def try_lock(self, key: str) -> Iterator[bool]:
        """Hold the key's lock, if nobody does, and say whether that is so; the system frees it when its owner dies.

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
        """Whether nobody holds the key's lock, and that can be told."""
        path = self.root / "locks" / key
        try:
            with FileLock(path, timeout=0) if path.exists() else nullcontext():
                return True
        except (Timeout, OSError):
            return False

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the key's lock, however long another process holds it before.

        Who holds one asks only for those of what it is made from, so that nobody waits for each other: a row's for its
        state's and its cells', a state's for the state's before it and the first training's.

        Raises:
            WorkFailed: the folder cannot be written.
        """
        while True:
            with self.try_lock(key) as mine:
                if mine:
                    yield
                    return
            time.sleep(0.02)

    def put(self, key: str, suffix: str, write: Callable[[Path], object]) -> Path:
        """Write an artifact, its checksum first: one without the other is never taken for whole.

        Raises:
            WorkFailed: it cannot be written, or what was written cannot be read; nothing is kept then.
        """
        path = self.path(key, suffix)

        def write_both(temporary: Path) -> None:
            write(temporary)
            _read_back(temporary, suffix)
            text = f"{file_sha256(temporary)}\n{json.dumps(self.provenance)}\n"
            write_atomic(checksum_path(path), lambda target: target.write_text(text))

        write_atomic(path, write_both)
        if self._made is not None:
            self._made.add(key)
        return path

    def drop(self, key: str, suffix: str) -> None:
        path = self.path(key, suffix)
        path.unlink(missing_ok=True)
        checksum_path(path).unlink(missing_ok=True)

    def get_json(self, key: str) -> Any | None:
        path = self.get(key, ".json")
        return None if path is None else json.loads(path.read_text())

    def put_json(self, key: str, value: Any) -> Any:
        text = json.dumps(value, allow_nan=False)
        self.put(key, ".json", lambda path: path.write_text(text))
        return value

    def entries(self) -> list[StoredFile]:
        """All files three levels down, artifacts or not, and the locks."""
        found = []
        for path in sorted((*self.root.glob("*/*/*"), *(self.root / "locks").glob("*"))):
            with suppress(FileNotFoundError):  # dropped at this moment
                told = path.stat()
                found.append(StoredFile(path.relative_to(self.root).as_posix(), told.st_size, told.st_mtime))
        return found

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> content, of those that are there."""
        contents = {}
        for name in names:
            with suppress(OSError):
                contents[name] = (self.root / name).read_bytes()
        return contents

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; a lock that somebody holds stays."""
        kind, _, key = name.partition("/")
        with self.try_lock(key) if kind == "locks" else nullcontext(True) as mine:
            if mine:
                (self.root / name).unlink(missing_ok=True)
