"""Pass on what a plugin prints, line by line, instead of letting it into the streams that others use.

    with captured(lambda line: emit({"event": "output", "text": line})):
        plugin_code()

The streams belong to the process, not to a thread: one thread at a time runs plugins.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

_CAPTURES: ContextVar[bool] = ContextVar("captures", default=True)


class _Streams(NamedTuple):
    """Where this process writes."""

    stdout: Any
    stderr: Any
    showwarning: Any

    @classmethod
    def now(cls) -> _Streams:
        return cls(sys.stdout, sys.stderr, warnings.showwarning)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the process write here for a while."""
        before = _Streams.now()
        self._use()
        try:
            yield
        finally:
            before._use()

    def _use(self) -> None:
        sys.stdout, sys.stderr, warnings.showwarning = self


_OUTSIDE: ContextVar[_Streams | None] = ContextVar("outside", default=None)
"""The streams outside the innermost `captured`."""


class Lines(io.TextIOBase):
    """A stream that calls a function with each line."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._begun = on_line, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, begun = (self._begun + text).split("\n")
        for line in lines:
            self._on_line(_last_state(line))
        self._begun = _last_state(begun)
        return len(text)

    def close(self) -> None:
        """Pass on a last line without an end; print() may still be called later, by a thread that goes on."""
        if self._begun:
            self.write("\n")


def _last_state(line: str) -> str:
    """What a terminal shows at last of a line that is written over, as by a progress bar."""
    return line.rstrip("\r").rpartition("\r")[2]


@contextmanager
def captured(on_line: Callable[[str], None]) -> Iterator[None]:
    """Call `on_line` with each line that is printed to stdout or stderr inside, and with each warning.

    Event handlers that are called inside print outside, if they are made by `outside`; so does `on_line`.
    """
    if not captures():
        yield
        return
    before = _Streams.now()
    token = _OUTSIDE.set(before)

    def show(line: str) -> None:
        with before.used():
            on_line(line)

    def showwarning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        show(f"{category.__name__}: {message} ({filename}, line {lineno})")

    stdout, stderr = Lines(show), Lines(show)
    # rich writes to this one: a live display, whose thread writes at any time, is not what the plugin prints
    stderr.rich_proxied_file = getattr(before.stderr, "rich_proxied_file", before.stderr)  # type: ignore[attr-defined]
    try:
        with _Streams(stdout, stderr, showwarning).used():
            yield
    finally:
        stdout.close()
        stderr.close()
        _OUTSIDE.reset(token)


def outside(handler: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same handler of events; what it prints is not captured where it is called inside `captured`."""

    def handle(event: Any) -> None:
        before = _OUTSIDE.get()
        if before is None:
            handler(event)
            return
        with before.used():
            handler(event)

    return handle


def captures() -> bool:
    """False inside `uncaptured`."""
    return _CAPTURES.get()


@contextmanager
def uncaptured() -> Iterator[None]:
    """Inside, `captured` does nothing, so that a debugger has the terminal."""
    token = _CAPTURES.set(False)
    try:
        yield
    finally:
        _CAPTURES.reset(token)
