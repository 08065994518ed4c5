"""Landlock: Linux keeps this process from all files but some, without privileges (`man 7 landlock`, Linux 5.13)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of the system calls, the same on all processors."""
_PATH_BENEATH, _VERSION, _NO_NEW_PRIVS = 1, 1, 38
_OF_FILES = 0b111 | 1 << 14 | 1 << 15
"""Rights that a file can have: execute, write, read; truncate, ioctl."""
_READ = 0b1101
"""Execute, read a file, read a folder."""
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version of the interface -> how many rights of files it knows; later versions know no more."""


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version() -> int:
    """The version of the system's Landlock; less than 1 where it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    return ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Let this process and its children open only these files and what is below these folders, for good.

    Where the kernel can, it also refuses TCP connections, and signals to other processes.

    Returns:
        Whether the system could do it. If not, nothing has changed.
    """
    known = version()
    if known < 1:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    rights = (1 << _RIGHTS[min(known, 5)]) - 1
    ruleset = _Ruleset(rights, 0b11 if known >= 4 else 0, 0b11 if known >= 6 else 0)
    size = 8 if known < 4 else 16 if known < 6 else 24
    rules = libc.syscall(_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    for paths, allowed in ((readable, _READ), (writable, rights)):
        for path in paths:
            with suppress(OSError):  # there is no such file
                _allow(libc, rules, path, allowed & rights)
    done = libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def _allow(libc: ctypes.CDLL, rules: int, path: Path, allowed: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(allowed if path.is_dir() else allowed & _OF_FILES, opened)
        libc.syscall(_ADD, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(opened)
