"""Find, load and identify methods: those of the registry, of installed packages, and of single files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from clbench.errors import ClbenchError, WorkFailed, did_you_mean
from clbench.method import REGISTRY, Method
from clbench.suite import content_root


@dataclass(frozen=True)
class MethodSource:
    """Where a method came from."""

    path: Path
    sha256: str
    distribution: str | None


_EXECUTED: dict[Path, str] = {}
"""Plugin file -> sha256 of what this process ran of it; the file may have been edited since."""


def list_methods(plugins: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name: `methods/`, entry points, and the given files (later ones win)."""
    for path in sorted((content_root() / "methods").glob("*.py")):
        _load(path)
    for point in importlib.metadata.entry_points(group="clbench.methods"):
        try:
            point.load()
        except Exception as error:  # somebody else's package must not stop the methods that are whole
            warnings.warn(f"the installed plugin {point.name!r} ({point.value}) does not load: {error!r}", stacklevel=2)
    for path in plugins:
        _load(Path(path))
    return dict(sorted(REGISTRY.items()))


def get_method(name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[Path] = ()) -> Method:
    """An instance of a registered method.

    Raises:
        ClbenchError: unknown name (with a suggestion) or a setting its Config refuses.
        WorkFailed: a plugin file that does not load.
    """
    methods = list_methods(plugins)
    if name not in methods:
        raise ClbenchError(f"there is no method {name!r}{did_you_mean(name, list(methods))}")
    return methods[name](**(settings or {}))


def source_of(method: Method) -> MethodSource:
    """The file that defines a method, its checksum, and the distribution that installed it, if one did.

    The checksum is of that file alone; where the method inherits from classes in other files, or is a part of a
    package, of all those files and of all that package's.
    """
    own = [cls for cls in type(method).__mro__ if issubclass(cls, Method) and cls is not Method]
    try:
        files = [Path(inspect.getfile(cls)) for cls in own]
    except (TypeError, OSError):
        raise ClbenchError(
            f"method {method.name} is not defined in a file; write it into one and give it as a plugin"
        ) from None
    module = type(method).__module__.split(".")[0]
    installed = _distributions().get(module)
    distribution = f"{installed[0]} {importlib.metadata.version(installed[0])}" if installed else None
    return MethodSource(files[0], _sha256({*files, *_package_files(module)}), distribution)


def _package_files(module: str) -> list[Path]:
    """All Python files of a package; none of a module that is a file."""
    return [path for folder in getattr(sys.modules[module], "__path__", ()) for path in Path(folder).rglob("*.py")]


def _sha256(files: Iterable[Path]) -> str:
    """Of one file's content; of several the checksum of their sorted checksums, wherever they lie."""
    each = sorted(_EXECUTED.get(path) or hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Importable name -> the distributions that install it; reading all of them takes a third of a second."""
    return importlib.metadata.packages_distributions()


def _load(path: Path) -> None:
    """Register the methods of a file: run once a process, registered every time, so that the file named last wins."""
    path = path.resolve()
    name = f"clbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = sys.modules.get(name) or _execute(path, name)
    defined = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, Method) and cls.name]
    if not defined:
        raise ClbenchError(f"{path} defines no Method with a name")
    REGISTRY.update({cls.name: cls for cls in defined})


def _execute(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ClbenchError(f"there is no plugin file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ClbenchError(f"{path} is not a Python file; a plugin is a .py file that defines a Method")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        content = path.read_bytes()  # once, and past all caches: what runs is what the checksum is of
        exec(compile(content, path, "exec"), module.__dict__)
        _EXECUTED[path] = hashlib.sha256(content).hexdigest()
    except Exception as error:
        del sys.modules[name]
        raise WorkFailed(f"the plugin {path} does not load: {type(error).__name__}: {error}") from error
    return module
