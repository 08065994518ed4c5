"""What lies in a store: looking through it, checking it, and clearing away what nothing needs.

for artifact in artifacts(store):
    ...
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clbench.errors import ClbenchError
from clbench.store import Store

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Artifact:
    """One file of a store."""

    key: str
    suffix: str
    path: Path
    size: int
    modified: float
    """Seconds since 1970."""
    about: Mapping[str, Any]
    """What it was made for, and by which software; empty where that is not told."""

    @property
    def kind(self) -> str:
        return self.key.split("-")[0]

    def as_json(self) -> dict[str, Any]:
        return {"key": self.key, "file": str(self.path), "bytes": self.size, "modified": self.modified, **self.about}


@dataclass(frozen=True)
class Waste:
    """A file that nothing needs, and why."""

    path: Path
    size: int
    why: str


def open_store(folder: Path) -> Store:
    """A store that exists.

    Raises:
        ClbenchError: there is none.
    """
    if not folder.is_dir():
        raise ClbenchError(f"there is no store at {folder}; runs make one at <output>/store")
    return Store(folder)


def artifacts(store: Store) -> Iterator[Artifact]:
    """All artifacts that have a checksum, in the order of their names."""
    for checksum in sorted(store.root.glob("*/*/*.sha256")):
        path = checksum.with_suffix("")
        try:
            found, told = path.stat(), checksum.read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):  # dropped at this moment, or left over
            continue
        sha, suffix = path.name.split(".", 1)
        yield Artifact(
            f"{path.parent.parent.name}-{sha}", f".{suffix}", path, found.st_size, found.st_mtime, _about(told)
        )


def _about(told: list[str]) -> dict[str, Any]:
    try:
        return dict(json.loads(told[1]))
    except (IndexError, ValueError, TypeError):
        return {}


def damaged(store: Store) -> Iterator[tuple[Artifact, bool]]:
    """Each artifact, and whether it does not fit its checksum; such a one is set aside, and made again when needed."""
    for artifact in artifacts(store):
        yield artifact, store.get(artifact.key, artifact.suffix) is None


def waste(store: Store, *, stale: bool = False, older_than: float | None = None) -> list[Waste]:
    """What can go: leftovers of killed processes, what was set aside, locks that nobody holds.

    Args:
        stale: also artifacts of other versions of the software than are installed, which no run here finds again.
        older_than: also all artifacts not written for so many days.
    """
    now, found = time.time(), []
    for path in sorted(store.root.rglob("*")):
        why = _why_left_over(path, now, store.root)
        if why:
            found.append(Waste(path, path.stat().st_size, why))
    for artifact in artifacts(store):
        why = None
        if stale and any(artifact.about.get(name) != version(name) for name in ("clbench", "torch")):
            why = "made by another version"
        if older_than is not None and now - artifact.modified > older_than * DAY:
            why = f"older than {older_than:g} days"
        if why:
            found.append(Waste(artifact.path, artifact.size, why))
            checksum = artifact.path.with_name(artifact.path.name + ".sha256")
            found.append(Waste(checksum, checksum.stat().st_size, why))
    return found


def _why_left_over(path: Path, now: float, root: Path) -> str | None:
    """Why a file is no artifact; what may still be in somebody's hands is none."""
    if not path.is_file():
        return None
    age = now - path.stat().st_mtime
    if path.parent == root / "locks":
        return "a lock that nobody holds" if age > DAY and _is_free(path) else None
    if path.suffix == ".tmp":
        return "half written" if age > HOUR else None
    if path.suffix == ".damaged":
        return "damaged, and set aside"
    if path.suffix == ".sha256" and not path.with_suffix("").exists():
        return "the checksum of nothing" if age > HOUR else None
    return None


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except (Timeout, OSError):
        return False


def clear(found: list[Waste]) -> int:
    """Remove files, and return how many bytes that freed."""
    freed = 0
    for one in found:
        one.path.unlink(missing_ok=True)
        freed += one.size
    return freed
