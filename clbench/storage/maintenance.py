"""List a store's artifacts, verify them, and find the files that can be deleted.

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
STORE_FILE = re.compile(r"[a-z]+/([0-9a-f]{2})/\.?\1[0-9a-f]{62}\..+")
"""Names of artifacts and of the files that a store writes beside them; other files in the folder are left alone."""


@dataclass(frozen=True)
class Artifact:
    """One artifact of a store."""

    key: str
    suffix: str
    file: StoredFile

    @property
    def kind(self) -> str:
        return self.key.split("-")[0]


@dataclass(frozen=True)
class Garbage:
    """A file that is not needed any more, and the reason."""

    file: StoredFile
    reason: str


def artifacts(store: Store) -> list[Artifact]:
    """All artifacts, sorted by name.

    Raises:
        ClbenchError: there is no store.
    """
    return list(_artifacts(_files(store)))


def _files(store: Store) -> list[StoredFile]:
    files = store.entries()
    if not any(STORE_FILE.fullmatch(file.name) for file in files):
        raise ClbenchError(f"there is no store at {store.location}; runs make one at <output>/store")
    return files


def _artifacts(files: Iterable[StoredFile]) -> Iterator[Artifact]:
    for file in files:
        if not STORE_FILE.fullmatch(file.name):
            continue
        kind, _, name = file.name.split("/")
        sha, suffix = name.split(".", 1)
        if sha and not suffix.endswith((CHECKSUM_SUFFIX, DAMAGED_SUFFIX)):
            yield Artifact(f"{kind}-{sha}", f".{suffix}", file)


def read_provenance(store: Store, found: Iterable[Artifact]) -> dict[str, dict[str, Any]]:
    """Name of an artifact's file -> what it was made for, and by which software; empty if that was not saved."""
    names = [artifact.file.name for artifact in found]
    contents = store.read(name + CHECKSUM_SUFFIX for name in names)
    return {name: _parse_provenance(contents.get(name + CHECKSUM_SUFFIX, b"")) for name in names}


def _parse_provenance(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content.splitlines()[1]))
    except (IndexError, ValueError, TypeError):
        return {}


def is_damaged(store: Store, artifact: Artifact) -> bool:
    """True if an artifact does not match its checksum; it is then set aside, and made again when it is needed."""
    key, suffix = artifact.key, artifact.suffix
    return store.get(key, suffix) is None and store.has(key, suffix + DAMAGED_SUFFIX)


def find_garbage(store: Store, *, stale: bool = False, older_than: float | None = None) -> list[Garbage]:
    """Files that can be deleted: leftovers of killed processes, damaged artifacts, and locks that nobody holds.

    Args:
        stale: also artifacts made by other software versions than the installed ones, which no run here would use.
        older_than: also all artifacts last written more than this number of days ago.

    Raises:
        ClbenchError: there is no store.
    """
    now, installed = time.time(), software_versions() if stale else {}
    files = {file.name: file for file in _files(store)}
    found = list(_artifacts(files.values()))
    provenance = read_provenance(store, found) if stale else {}
    reasons = {name: _why_leftover(store, file, files, now) for name, file in files.items()}
    for artifact in found:
        name = artifact.file.name
        made_by, days = provenance.get(name, {}), (now - artifact.file.modified) / DAY
        reason = None
        if artifact.kind == "sign":
            reason = "the sign of a killed sweep" if store.is_unlocked(artifact.key) else None
        elif any(made_by.get(package, version) != version for package, version in installed.items()):
            reason = "made by another version"
        elif older_than is not None and days > older_than:
            reason = f"older than {older_than:g} days"
        reasons[name] = reasons[name + CHECKSUM_SUFFIX] = reason
    return [Garbage(files[name], reason) for name, reason in reasons.items() if reason and name in files]


def _why_leftover(store: Store, file: StoredFile, files: Mapping[str, StoredFile], now: float) -> str | None:
    """Why a file that is no artifact can go; None for one that may still be in use."""
    age, path = now - file.modified, PurePosixPath(file.name)
    if path.parts[0] == "locks":
        return "a lock that nobody holds" if age > DAY and store.is_unlocked(path.name) else None
    if not STORE_FILE.fullmatch(file.name):
        return None
    if path.suffix == ".tmp":
        return "half written" if age > HOUR else None
    if path.suffix == DAMAGED_SUFFIX:
        return "damaged, and set aside"
    if path.suffix == CHECKSUM_SUFFIX and file.name.removesuffix(CHECKSUM_SUFFIX) not in files:
        return "a checksum without its artifact" if age > HOUR else None
    return None
