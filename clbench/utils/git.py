"""Read a git repository's objects. No file of it is checked out, and nothing of it is run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from clbench.errors import ClbenchError

REGULAR = "100644"
"""The mode of a plain file: no symlink, no submodule, not executable."""


class Entry(NamedTuple):
    """A file of a tree."""

    mode: str
    oid: str
    size: int
    """In bytes; 0 for a submodule."""


def resolve_commit(repository: Path, name: str) -> str:
    """The id of a commit.

    Raises:
        ClbenchError: there is no such commit, or no repository.
    """
    # Without --end-of-options a name such as `--git-dir` would be an option.
    return _git(repository, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()


def merge_tree(repository: Path, base: str, head: str) -> str:
    """The id of the tree that merging `head` into `base` gives; both are ids of commits.

    Raises:
        ClbenchError: they conflict, or have no common history.
    """
    done = _run(repository, "merge-tree", "--write-tree", base, head)
    if done.returncode == 1:
        raise ClbenchError("the request conflicts with the base branch: merge that into the request's branch first")
    return _output(done).decode().split()[0]


def list_entries(repository: Path, tree: str) -> dict[str, Entry]:
    """Path -> entry of all files of a tree."""
    entries = {}
    for line in _git(repository, "ls-tree", "-r", "-z", "-l", "--full-tree", tree).split(b"\0")[:-1]:
        about, _, path = line.partition(b"\t")
        mode, _, oid, size = about.decode().split()
        entries[os.fsdecode(path)] = Entry(mode, oid, 0 if size == "-" else int(size))
    return entries


def read_blobs(repository: Path, oids: Iterable[str]) -> Iterator[bytes]:
    """The contents of files, in the order of their ids."""
    wanted = list(oids)
    found = _git(repository, "cat-file", "--batch", input="".join(f"{oid}\n" for oid in wanted).encode())
    place = 0
    for _ in wanted:
        start = found.index(b"\n", place) + 1
        size = int(found[place:start].split()[2])
        yield found[start : start + size]
        place = start + size + 1


def _git(repository: Path, *arguments: str, input: bytes = b"") -> bytes:
    return _output(_run(repository, *arguments, input=input))


def _run(repository: Path, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", repository, *arguments], input=input, capture_output=True)
    except OSError as error:
        raise ClbenchError(f"git cannot be run: {error.strerror}") from None


def _output(done: subprocess.CompletedProcess[bytes]) -> bytes:
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise ClbenchError(f"git {done.args[3]} failed: {said[-1]}")
    return done.stdout
