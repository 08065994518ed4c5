"""What is known of a method without importing it: a process of its own imports it, and says what it found.

description = describe("ewc", {"strength": 10.0}, [Path("ewc.py")])
description.reference, description.own_hooks
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from clbench.errors import ClbenchError, WorkFailed
from clbench.method import BOUND, Method
from clbench.plugins import file_of, get_method, load_plugin, source_of
from clbench.protocol.hook_lint import hook_warnings, own_hooks
from clbench.protocol.sandbox.client import sandbox
from clbench.protocol.sandbox.confine import confine
from clbench.protocol.search_space import search_space
from clbench.results.schema import MethodRef, unprintable
from clbench.results.tuning import Space
from clbench.suite import FrozenModel
from clbench.utils.files import file_sha256


class MethodDescription(FrozenModel):
    """A configured method, as data."""

    reference: MethodRef
    """As a result records it."""
    file: Path | None
    """The plugin file that has it; None where an installed package has it."""
    path: Path
    """The file that defines its class."""
    own_hooks: tuple[str, ...]
    """The hooks that it defines itself."""
    is_bound: bool
    """Whether it is a bound: not continual, and without a rank."""
    warnings: tuple[str, ...]
    """What looks wrong about its hooks."""
    space: Space
    """The settings that `clbench tune` searches, and where."""


@dataclass(frozen=True)
class DescribeJob:
    """Import a method, and say what it is."""

    name: str
    settings: Mapping[str, Any]
    plugins: tuple[Path, ...]

    def run(self, folder: Path, backbone: Any, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        confine(folder, self.plugins, "cpu")
        method = get_method(self.name, self.settings, self.plugins)
        return _described(method, self.plugins)


@dataclass(frozen=True)
class NamesJob:
    """Import a file, and say which methods it has."""

    plugin: Path

    def run(self, folder: Path, backbone: Any, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        confine(folder, [self.plugin], "cpu")
        return {"names": list(load_plugin(self.plugin))}


def methods_in(plugin: Path) -> list[str]:
    """The names of a file's methods.

    Raises:
        ClbenchError: it is no Python file, or defines no method. WorkFailed: it does not load.
    """
    fields = _asked(NamesJob(Path(plugin).resolve()), Path(plugin).stem, (Path(plugin).resolve(),))
    return [str(name) for name in fields.get("names", ())]


def describe(name: str, settings: Mapping[str, Any], plugins: Sequence[Path] = ()) -> MethodDescription:
    """Describe a method; what its file prints when it is imported goes to stderr, once a process.

    Raises:
        ClbenchError: it is unknown, a setting is not its own or has an unusable search range, or it cannot be recorded
            in a result. WorkFailed: a plugin file does not load, or the method cannot be made.
    """
    paths = tuple(Path(path).resolve() for path in plugins)
    key = (name, json.dumps(settings, sort_keys=True, default=repr), _contents(paths))
    if key not in _DESCRIBED:
        _DESCRIBED[key] = _checked(_asked(DescribeJob(name, dict(settings), paths), name, paths))
    return _DESCRIBED[key]


def _asked(job: DescribeJob | NamesJob, name: str, paths: tuple[Path, ...]) -> dict[str, Any]:
    """A job's fields; what the files print is shown once a process."""
    on_event = (lambda event: None) if (shown := _contents(paths)) in _SHOWN else _show
    _SHOWN.add(shown)
    modules = ("torch",) if paths else ()  # which most plugins import, and the training needs later
    with sandbox().ask(job, name, on_event=on_event, modules=modules) as reply:
        return reply.fields


def _contents(paths: Sequence[Path]) -> tuple[tuple[Path, str], ...]:
    return tuple((path, file_sha256(path) if path.is_file() else "") for path in paths)


def describe_here(method: Method, plugins: Sequence[Path] = ()) -> MethodDescription:
    """Describe a method that this process has imported."""
    return _checked(_described(method, plugins))


_DESCRIBED: dict[Any, MethodDescription] = {}
_SHOWN: set[Any] = set()


def _show(event: dict[str, Any]) -> None:
    if event["event"] == "output":
        print(event["text"], file=sys.stderr)  # marked with the plugin's name already
    elif event["event"] == "warning":
        warnings.warn(event["message"], stacklevel=2)


def _described(method: Method, plugins: Sequence[Path]) -> dict[str, Any]:
    """As JSON."""
    source = source_of(method)
    try:
        described = {
            "path": str(source.path),
            "reference": {
                "name": method.name,
                "version": method.version,
                "family": method.family,
                "config": method.config.model_dump(mode="json"),
                "changed": list(_changed(method.config)),
                "source_sha256": source.sha256,
                "distribution": source.distribution,
            },
            "file": _text(file_of(type(method), plugins)),
            "own_hooks": own_hooks(type(method)),
            "is_bound": method.family == BOUND,
            "warnings": hook_warnings(method),
            "space": {name: found.model_dump(mode="json") for name, found in search_space(method).items()},
        }
        json.dumps(described)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise _unrecordable(method.name, source.path, "config", str(error)) from None
    return described


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _changed(config: BaseModel) -> Iterator[str]:
    """The settings that differ from their defaults, or have none."""
    for name, field in type(config).model_fields.items():
        if field.is_required() or getattr(config, name) != field.get_default(call_default_factory=True):
            yield name


def _checked(described: dict[str, Any]) -> MethodDescription:
    """A description that a result can record: made before the work, so that no run ends with an unwritable result."""
    path, raw = described.get("path"), described.get("reference")
    name = raw.get("name") if isinstance(raw, dict) else None
    try:
        reference = MethodRef.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise _unrecordable(name, path, ".".join(map(str, first["loc"])), first["msg"]) from None
    for sentence in unprintable(reference.model_dump(mode="json"), f"method {name!r} ({path})"):
        raise ClbenchError(f"{sentence}, so that it cannot be recorded in a result")
    try:
        return MethodDescription.model_validate({**described, "reference": reference})
    except ValidationError:
        raise WorkFailed(f"method {name!r} ({path}) gave no description of itself") from None


def _unrecordable(name: Any, path: Any, field: str, why: str) -> ClbenchError:
    return ClbenchError(f"method {name!r} ({path}): its {field} cannot be recorded in a result: {why}")
