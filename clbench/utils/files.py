"""Write files atomically, and compute their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from clbench.errors import ClbenchError, WorkFailed
from clbench.utils.formatting import format_bytes

_WRITING = threading.RLock()
"""Held by a thread while it writes a file, so that `exit_between_writes` can wait for it."""


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a stranger's file.

    Raises:
        ValueError: it is no regular file (a pipe would block for ever), or larger than `limit` bytes. OSError: it
            cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {format_bytes(limit)}")
    return content


def folder_sha256(folder: Path) -> str:
    """Checksum of all files below a folder: their relative names and contents, in sorted order."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return sha.hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and move it into place.

    Without `sync`, a file may be empty after a loss of power: enough for what is easily made again.

    Raises:
        WorkFailed: the file cannot be written (names it, the reason and the remedy); no partial file is left.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # other hosts may write the same file
    with _WRITING:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            if sync:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":  # which wraps an OSError
                raise cannot_write(path, error) from error
            raise


def free_path(path: Path) -> Path:
    """A path where there is nothing yet, so that what is written there deletes nothing.

    Raises:
        ClbenchError: there is something.
    """
    if path.exists() or path.is_symlink():
        raise ClbenchError(f"{path} exists, and may be of another run; remove it, or give another place with --to")
    return path


def write_new(path: Path, content: bytes) -> None:
    """Write a file where there is none; one with the same content stays.

    Raises:
        ClbenchError: there is something else. WorkFailed: as `write_atomic`.
    """
    if not (path.is_file() and path.read_bytes() == content):
        write_atomic(free_path(path), lambda temporary: temporary.write_bytes(content))


def exit_between_writes() -> NoReturn:
    """End this process at once from another thread, but not while it writes a file."""
    with _WRITING:
        os._exit(0)


_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def is_device_name(name: str) -> bool:
    """Whether Windows keeps a name for a device, so that a checkout with such a file fails there."""
    return _DEVICE.match(name) is not None


def cache_folder() -> Path:
    """The folder `clbench` in the user's cache folder.

    Raises:
        ClbenchError: the user has no home folder, and `XDG_CACHE_HOME` names no other.
    """
    return expand_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "clbench"


def expand_user(path: str) -> Path:
    """A path whose `~` or `~name` at the beginning is replaced by that user's folder.

    Raises:
        ClbenchError: there is no such user, or no folder of theirs.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ClbenchError(f"there is no folder of a user for {Path(path).parts[0]} in {path}") from None


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def cannot_write(path: Path, error: BaseException) -> WorkFailed:
    """The error for a full disk, a missing permission and the like."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return WorkFailed(
        f"cannot write {path}: {reason}; finished work is kept, so fix this and run the same command again"
    )


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with the same bytes on every system.

    Raises:
        WorkFailed: as `write_atomic`.
    """
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))
