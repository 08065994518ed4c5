"""What lies in a store: looking through it, checking it, and clearing away what nothing needs.

for artifact in artifacts(store):
    ...
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from clbench.errors import ClbenchError
from clbench.storage.store import CHECKSUM_SUFFIX, DAMAGED_SUFFIX, Store, StoredFile
from clbench.utils.software import software_versions

HOUR, DAY = 3600.0, 86400.0
NAME = re.compile(r"[a-z]+/([0-9a-f]{2})/\.?\1[0-9a-f]{62}\..+")
"""Of an artifact in its store, and of what lies beside it."""


@dataclass(frozen=True)
class Artifact:
    """One file of a store."""

    key: str
    suffix: str
    file: StoredFile

    @property
    def kind(self) -> str:
        return self.key.split("-")[0]


@dataclass(frozen=True)
class Garbage:
    """A file that nothing needs, and why."""

    file: StoredFile
    why: str


def artifacts(store: Store) -> list[Artifact]:
    """All artifacts, in the order of their names.

    Raises:
        ClbenchError: there is no store.
    """
    return list(_artifacts(_entries(store)))


def _entries(store: Store) -> list[StoredFile]:
    entries = store.entries()
    if not any(NAME.fullmatch(entry.name) for entry in entries):
        raise ClbenchError(f"there is no store at {store.location}; runs make one at <output>/store")
    return entries


def _artifacts(entries: Iterable[StoredFile]) -> Iterator[Artifact]:
    """Of all that is named as a store names its files; whatever else lies in a folder is not ours to touch."""
    for file in entries:
        if not NAME.fullmatch(file.name):
            continue
        kind, _, name = file.name.split("/")
        sha, suffix = name.split(".", 1)
        if sha and not suffix.endswith((CHECKSUM_SUFFIX, DAMAGED_SUFFIX)):
            yield Artifact(f"{kind}-{sha}", f".{suffix}", file)


def read_provenance(store: Store, found: Iterable[Artifact]) -> dict[str, dict[str, Any]]:
    """Artifact's file -> what it was made for, and by which software; empty where that is not told."""
    names = [artifact.file.name for artifact in found]
    told = store.read(name + CHECKSUM_SUFFIX for name in names)
    return {name: _story(told.get(name + CHECKSUM_SUFFIX, b"")) for name in names}


def _story(checksum: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(checksum.splitlines()[1]))
    except (IndexError, ValueError, TypeError):
        return {}


def is_damaged(store: Store, artifact: Artifact) -> bool:
    """Whether an artifact does not fit its checksum; such a one is set aside, and made again when needed."""
    return store.get(artifact.key, artifact.suffix) is None and store.has(
        artifact.key, artifact.suffix + DAMAGED_SUFFIX
    )


def find_garbage(store: Store, *, stale: bool = False, older_than: float | None = None) -> list[Garbage]:
    """What can go: leftovers of killed processes, what was set aside, locks that nobody holds.

    Args:
        stale: also artifacts of other versions of the software than are installed, which no run here finds again.
        older_than: also all artifacts not written for so many days.

    Raises:
        ClbenchError: there is no store.
    """
    now, here = time.time(), software_versions() if stale else {}
    entries = {entry.name: entry for entry in _entries(store)}
    found = list(_artifacts(entries.values()))
    told = read_provenance(store, found) if stale else {}
    reasons = {name: _why_left_over(store, entry, entries, now) for name, entry in entries.items()}
    for artifact in found:
        name = artifact.file.name
        reasons[name] = reasons[name + CHECKSUM_SUFFIX] = _why_spent(
            store, artifact, now - artifact.file.modified, told.get(name, {}), here, older_than
        )
    return [Garbage(entries[name], why) for name, why in reasons.items() if why and name in entries]


def _why_left_over(store: Store, file: StoredFile, entries: Mapping[str, StoredFile], now: float) -> str | None:
    """Why a file is no artifact; what may still be in somebody's hands is none."""
    age, path = now - file.modified, PurePosixPath(file.name)
    if path.parts[0] == "locks":
        return "a lock that nobody holds" if age > DAY and store.is_unlocked(path.name) else None
    if not NAME.fullmatch(file.name):
        return None
    if path.suffix == ".tmp":
        return "half written" if age > HOUR else None
    if path.suffix == DAMAGED_SUFFIX:
        return "damaged, and set aside"
    if path.suffix == CHECKSUM_SUFFIX and file.name.removesuffix(CHECKSUM_SUFFIX) not in entries:
        return "the checksum of nothing" if age > HOUR else None
    return None


def _why_spent(
    store: Store,
    artifact: Artifact,
    age: float,
    told: Mapping[str, Any],
    here: Mapping[str, str],
    older_than: float | None,
) -> str | None:
    """Why a whole artifact can go."""
    if artifact.kind == "sign":
        return "the sign of a killed sweep" if store.is_unlocked(artifact.key) else None
    if any(told.get(name, known) != known for name, known in here.items()):
        return "made by another version"
    if older_than is not None and age > older_than * DAY:
        return f"older than {older_than:g} days"
    return None
