"""Find, load and identify methods in `methods/`, in installed packages and in single files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from clbench.errors import ClbenchError, UnknownMethod, WorkFailed, did_you_mean
from clbench.method import REGISTRY, Method
from clbench.suite import content_root
from clbench.utils.output import captured, captures

_MODULES = "clbench_plugin_"
"""The beginning of the names under which plugin files are imported."""


@dataclass(frozen=True)
class MethodSource:
    """The file that defines a method."""

    path: Path
    sha256: str
    """Checksum of all files that define the method (see `source_of`)."""
    distribution: str | None
    """Name and version of the installed package, if it comes from one."""


_EXECUTED_SHA256: dict[Path, str] = {}
"""Plugin file -> sha256 of the content that this process executed; the file may have been edited since."""


def list_methods(plugins: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name, from `methods/`, entry points and the given files; later ones replace earlier ones."""
    for path in _own_files():
        load_plugin(path)
    for message in _load_installed():
        warnings.warn(message, stacklevel=2)
    for path in plugins:
        load_plugin(path)
    return dict(sorted(REGISTRY.items()))


def _own_files() -> list[Path]:
    return sorted((content_root() / "methods").glob("*.py"))


def _load_installed() -> Iterator[str]:
    """Register the methods of installed packages; yields a sentence for each that does not load."""
    for point in importlib.metadata.entry_points(group="clbench.methods"):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # a broken package must not stop the other methods
            yield f"the installed plugin {point.name!r} ({point.value}) does not load: {error!r}"


def get_method(name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[Path] = ()) -> Method:
    """An instance of a registered method.

    Raises:
        ClbenchError: the name is unknown (suggests one), or its Config rejects a setting.
        WorkFailed: a plugin file does not load, or the method cannot be made.
    """
    return _make(list_methods(plugins), name, settings)


def open_method(name: str, settings: Mapping[str, Any], file: Path | None) -> Method:
    """As `get_method`, but only the file that has the method is executed; None: the installed packages."""
    if file is not None:
        return _make(load_plugin(file), name, settings)
    for _ in _load_installed():
        pass
    return _make(REGISTRY, name, settings)


def file_of(method: type[Method], plugins: Sequence[Path]) -> Path | None:
    """The file in `methods/` or among the given ones that defines a method; None: an installed package does."""
    registered = dict(REGISTRY)
    files = [path for path in (*_own_files(), *plugins) if load_plugin(path).get(method.name) is method]
    REGISTRY.update(registered)  # as it was: loading a file registers its methods
    return files[-1].resolve() if files else None


def _make(methods: Mapping[str, type[Method]], name: str, settings: Mapping[str, Any] | None) -> Method:
    if name not in methods:
        raise UnknownMethod(f"there is no method {name!r}{did_you_mean(name, list(methods))}")
    try:
        with captured(_printer(name)):
            return methods[name](**(settings or {}))
    except ClbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise WorkFailed(f"method {name} cannot be made: {describe_error(error, files_of(methods[name]))}") from error


def source_of(method: Method) -> MethodSource:
    """The file that defines a method, its checksum, and the installed distribution that contains it, if any.

    The checksum also covers the files of all classes that the method inherits from and, if it is part of a package, all
    of the package's Python files.
    """
    files = files_of(type(method))
    module = type(method).__module__.split(".")[0]
    installed = None if module.startswith(_MODULES) else _distributions().get(module)
    distribution = f"{installed[0]} {importlib.metadata.version(installed[0])}" if installed else None
    return MethodSource(files[0], _sha256({*files, *_package_files(module)}), distribution)


def files_of(method: type[Method]) -> list[Path]:
    """The files of a class and of all classes that it inherits from.

    Raises:
        ClbenchError: one is not defined in a file.
    """
    own = [cls for cls in method.__mro__ if issubclass(cls, Method) and cls is not Method]
    try:
        return [Path(inspect.getfile(cls)) for cls in own]
    except (TypeError, OSError):
        raise ClbenchError(
            f"method {method.name} is not defined in a file; save it in one and pass that as a plugin"
        ) from None


def describe_error(error: BaseException, files: Sequence[Path]) -> str:
    """`mine.py, line 12, in end_task: ValueError: why`: the innermost line in one of the plugin's files, and the error.

    Only the first file where the error passed through none of them.
    """
    names = [str(file) for file in files]
    place, message = names[0], str(error)
    if frames := [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]:
        place = f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}"
    elif isinstance(error, SyntaxError) and error.filename in names:
        place, message = f"{error.filename}, line {error.lineno}", error.msg
    hint = "; --debug shows the traceback" if captures() else ""
    return " ".join(f"{place}: {type(error).__name__}: {message}{hint}".split())


def _package_files(module: str) -> list[Path]:
    """All Python files of a package; nothing for a module that is a single file."""
    return [path for folder in getattr(sys.modules[module], "__path__", ()) for path in Path(folder).rglob("*.py")]


def _sha256(files: Iterable[Path]) -> str:
    """One file's checksum; for several files the checksum of their sorted checksums, so that paths do not matter."""
    each = sorted(_EXECUTED_SHA256.get(path) or hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Importable name -> distributions that install it; cached, because reading them takes a third of a second."""
    return importlib.metadata.packages_distributions()


def load_plugin(path: Path) -> dict[str, type[Method]]:
    """Register a file's methods, and return them by name.

    It is executed once a process but registered each time, so that the last file wins.

    Raises:
        ClbenchError: it is no Python file, or defines no method. WorkFailed: it does not load.
    """
    path = Path(path).resolve()
    name = f"{_MODULES}{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    module = sys.modules.get(name) or _execute(path, name)
    defined = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, Method) and cls.name]
    if not defined:
        raise ClbenchError(f"{path} defines no Method with a name")
    methods = {cls.name: cls for cls in defined}
    REGISTRY.update(methods)
    return methods


def _printer(name: str) -> Callable[[str], None]:
    """Prints a line of a method's output to stderr, marked with its name."""
    return lambda line: print(f"[{name}] {line}", file=sys.stderr)


def _execute(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ClbenchError(f"there is no plugin file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ClbenchError(f"{path} is not a Python file; a plugin is a .py file that defines a Method")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        content = path.read_bytes()  # read once, without bytecode caches: the checksum is that of the executed code
        with captured(_printer(path.stem)):
            exec(compile(content, path, "exec"), module.__dict__)
        _EXECUTED_SHA256[path] = hashlib.sha256(content).hexdigest()
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise WorkFailed(f"the plugin does not load: {describe_error(error, [path])}") from error
    return module
