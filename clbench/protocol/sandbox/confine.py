"""Take from a process, before it runs a plugin, what a training has no need of: environment, modules, files."""

from __future__ import annotations

import importlib.abc
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from clbench.protocol.sandbox.landlock import restrict
from clbench.suite import content_root

_PACKAGE = sys.modules["clbench"]

_HIDDEN: list[ModuleType] = []
"""Hidden modules, whose functions are still in use: to take them apart would take time."""

KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT")
KEPT_BEGINNINGS = ("OMP_", "MKL_", "OPENBLAS_", "CUBLAS_", "NVIDIA_")
"""Environment variables on which libraries' results or their working depends."""
PUBLIC = ("clbench", *(f"clbench.{name}" for name in ("errors", "lora", "method", "replay", "state", "subspace")))
"""The modules of this package that a method may import."""
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/sys", "/proc/self", "/proc/cpuinfo", "/proc/meminfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
ACCELERATOR = ("/dev", "/proc", "/sys")
"""What a GPU's driver opens."""


def confine(folder: Path, readable: Iterable[Path], device: str) -> bool:
    """Leave this process an empty folder, the libraries, and no knowledge of the benchmark.

    Args:
        folder: where it may write.
        readable: files that it may read besides the libraries.

    Returns:
        Whether the system enforces what concerns files.
    """
    os.chdir(folder)
    kept = kept_environment(os.environ)
    os.environ.clear()
    os.environ.update(kept, HOME=str(folder), TMPDIR=str(folder), HF_HUB_OFFLINE="1")
    tempfile.tempdir = str(folder)
    _hide_modules()
    accelerator = [] if device == "cpu" else [Path(path) for path in ACCELERATOR]
    return restrict([*map(Path, SYSTEM), *_libraries(), *readable], [folder, *map(Path, DEVICES), *accelerator])


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a training process gets."""
    return {
        name: value for name, value in environment.items() if name in KEPT_VARIABLES or name.startswith(KEPT_BEGINNINGS)
    }


def _libraries() -> list[Path]:
    """The folders of Python and its packages, without the benchmark's definitions, which may lie among them."""
    roots = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path}
    package = Path(str(_PACKAGE.__file__)).resolve().parent
    hidden = [content_root().resolve() / name for name in ("benchmark", "tasks", "submissions", "leaderboard")]
    checkout = package.parent if (package.parent / "benchmark").is_dir() else None
    found = [package] if checkout else []
    for root in sorted(roots):
        path = Path(root).resolve()
        if root and path.is_dir() and path != checkout:
            found += [path]
    return [part for path in found for part in _without(path, hidden)] + [content_root() / "methods"]


def _without(folder: Path, hidden: list[Path]) -> Iterator[Path]:
    """A folder, or all that is in it but the hidden folders."""
    if folder in hidden:
        return
    if any(path.is_relative_to(folder) for path in hidden):
        for inner in folder.iterdir():
            yield from _without(inner, hidden)
    else:
        yield folder


def _hide_modules() -> None:
    """Let nothing import the parts of this package that read suites, references or results."""
    for name in [name for name in sys.modules if name.startswith("clbench.") and name not in PUBLIC]:
        _HIDDEN.append(sys.modules.pop(name))
        parent, _, last = name.rpartition(".")
        if parent == "clbench" and hasattr(_PACKAGE, last):
            delattr(_PACKAGE, last)
    for name in ("get_method", "list_methods", "load_result", "load_suite", "Result"):
        if name in vars(_PACKAGE):
            delattr(_PACKAGE, name)
    sys.meta_path.insert(0, _Refuse())


class _Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.startswith("clbench.") and fullname not in PUBLIC:
            known = ", ".join(name for name in PUBLIC[2:])
            raise ModuleNotFoundError(f"{fullname} is not a method's to import: it knows {known}")
