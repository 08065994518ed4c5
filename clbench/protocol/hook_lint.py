"""Warnings about a method's class: functions that look like hooks but are none, and hooks that cannot be called."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from clbench.method import Method

HOOKS = tuple(name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_"))
"""The functions of a method that the engine calls."""


def own_hooks(method: type[Method]) -> list[str]:
    """The hooks that a class, or one that it inherits from, defines itself."""
    return [hook for hook in HOOKS if getattr(method, hook) is not getattr(Method, hook)]


def hook_warnings(method: Method) -> list[str]:
    """What looks wrong about a method's hooks, as sentences with file and line."""
    return [*_misnamed(type(method)), *_uncallable(method)]


def _misnamed(method: type[Method]) -> Iterator[str]:
    """Public functions that nothing calls, named much like a hook that the class does not define."""
    classes = method.__mro__[: method.__mro__.index(Method)]
    functions = {name: found for cls in classes for name, value in vars(cls).items() if (found := _function(value))}
    used = {name for function in functions.values() for name in function.__code__.co_names}
    own = own_hooks(method)
    for name, function in functions.items():
        near = _nearest_hook(name)
        if near and near not in own and name not in used and name not in HOOKS and not name.startswith("_"):
            yield f"{_place(function)}: {name}() is no hook, so it is never called; did you mean {near!r}?"


def _uncallable(method: Method) -> Iterator[str]:
    """Hooks that do not take what the engine gives them."""
    for hook in own_hooks(type(method)):
        parameters = list(inspect.signature(getattr(Method, hook)).parameters)[1:]
        own: Any = getattr(method, hook)
        if not callable(own):
            yield f"method {method.name}: {hook} is {type(own).__name__}, expected a function"
            continue
        try:
            inspect.signature(own).bind(*parameters)
        except TypeError as error:
            place = _place(getattr(own, "__func__", own))
            yield f"{place}: {hook}() is called as {hook}({', '.join(parameters)}), which it does not take: {error}"
        except ValueError:  # a signature that Python does not know
            continue


def _function(value: Any) -> FunctionType | None:
    """The function of a method, class method or static method."""
    value = getattr(value, "__func__", value)
    return value if isinstance(value, FunctionType) else None


def _nearest_hook(name: str) -> str | None:
    """The hook whose name is much like this one, or has its words in another order or among others."""
    words = set(name.split("_"))
    renamed = [hook for hook in HOOKS if "_" in hook and set(hook.split("_")) <= words]
    return next(iter(renamed or difflib.get_close_matches(name, HOOKS, n=1)), None)


def _place(function: Any) -> str:
    code = function.__code__ if isinstance(function, FunctionType) else None
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else repr(function)
