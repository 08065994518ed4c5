"""What lies in a store: looking through it, checking it, and clearing away what nothing needs.

for artifact in artifacts(store):
    ...
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clbench.environment import software
from clbench.errors import ClbenchError
from clbench.store import Store, checksum_of

HOUR, DAY = 3600.0, 86400.0
NAME = re.compile(r"[a-z]+/([0-9a-f]{2})/\.?\1[0-9a-f]{62}\..+")
"""Of an artifact in its store, and of what lies beside it."""


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


def open_store(place: str) -> Store:
    """A store that exists.

    Raises:
        ClbenchError: there is none, or it is no folder.
    """
    store = Store.at(place)
    if type(store) is not Store:
        raise ClbenchError(f"{place} is no folder, and only a store in a folder can be looked into")
    if not _files(store):
        raise ClbenchError(f"there is no store at {store.root}; runs make one at <output>/store")
    return store


def _files(store: Store) -> list[Path]:
    """All that is named as a store names its files; whatever else lies in a folder is not ours to touch."""
    return sorted(path for path in store.root.glob("*/*/*") if NAME.fullmatch(path.relative_to(store.root).as_posix()))


def artifacts(store: Store) -> Iterator[Artifact]:
    """All artifacts, in the order of their names."""
    for path in _files(store):
        sha, suffix = path.name.split(".", 1)
        if sha and path.suffix not in (".sha256", ".damaged"):
            with suppress(FileNotFoundError):  # dropped at this moment
                found, key = path.stat(), f"{path.parent.parent.name}-{sha}"
                yield Artifact(key, f".{suffix}", path, found.st_size, found.st_mtime, _about(path))


def _about(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(checksum_of(path).read_text().splitlines()[1]))
    except (OSError, IndexError, ValueError, TypeError):
        return {}


def damaged(store: Store) -> Iterator[tuple[Artifact, bool]]:
    """Each artifact, and whether it does not fit its checksum; such a one is set aside, and made again when needed."""
    for artifact in artifacts(store):
        whole = store.get(artifact.key, artifact.suffix)
        yield artifact, whole is None and artifact.path.with_name(artifact.path.name + ".damaged").exists()


def waste(store: Store, *, stale: bool = False, older_than: float | None = None) -> list[Waste]:
    """What can go: leftovers of killed processes, what was set aside, locks that nobody holds.

    Args:
        stale: also artifacts of other versions of the software than are installed, which no run here finds again.
        older_than: also all artifacts not written for so many days.
    """
    now, here = time.time(), software() if stale else {}
    reasons = {path: _why_left_over(path, now) for path in (*_files(store), *(store.root / "locks").glob("*"))}
    for artifact in artifacts(store):
        why = reasons[artifact.path] = _why_spent(store, artifact, now, here, older_than)
        reasons[checksum_of(artifact.path)] = why
    found = []
    for path, why in reasons.items():
        with suppress(FileNotFoundError):  # dropped at this moment
            found += [Waste(path, path.stat().st_size, why)] if why else []
    return found


def _why_left_over(path: Path, now: float) -> str | None:
    """Why a file is no artifact; what may still be in somebody's hands is none."""
    try:
        age = now - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if path.parent.name == "locks":
        return "a lock that nobody holds" if age > DAY and _is_free(path) else None
    if path.suffix == ".tmp":
        return "half written" if age > HOUR else None
    if path.suffix == ".damaged":
        return "damaged, and set aside"
    if path.suffix == ".sha256" and not path.with_suffix("").exists():
        return "the checksum of nothing" if age > HOUR else None
    return None


def _why_spent(
    store: Store, artifact: Artifact, now: float, here: Mapping[str, str], older_than: float | None
) -> str | None:
    """Why a whole artifact can go."""
    if artifact.kind == "sign" and _is_free(store.root / "locks" / artifact.key):
        return "the sign of a killed sweep"
    if any(artifact.about.get(name, known) != known for name, known in here.items()):
        return "made by another version"
    if older_than is not None and now - artifact.modified > older_than * DAY:
        return f"older than {older_than:g} days"
    return None


def _is_free(path: Path) -> bool:
    """Whether nobody holds a lock."""
    try:
        with FileLock(path, timeout=0) if path.exists() else nullcontext():
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
