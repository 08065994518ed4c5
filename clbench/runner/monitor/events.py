"""What happens, as JSON lines for machines: one event a line, each with its time.

    {"time": 1764000000.1, "event": "loss", "unit": "fit-...", "variant": "naive", ..., "step": 3, "steps": 40,
     "loss": 0.21}

Kinds: `plan`, `begin` and `end` of each unit, `loss` of each training step, `cell` with its scores, `memory`,
`warning`, `output` with a line (`text`) that a method's hook printed, `result` with its path. What a unit belongs to
(suite, track, variant, method, order, seed, position, task) is told with each of its events.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clbench.runner.engine import Event, EventHandler
from clbench.utils.files import cannot_write

UNWRITTEN = ("work", "stage", "wait", "load", "loaded")
"""Events that only a display needs."""


def print_output(event: Event) -> None:
    """Print what methods print to stderr, marked with the method's name; other events are ignored."""
    if event["event"] == "output":
        print(output_line(event), file=sys.stderr)


def output_line(event: Event) -> str:
    """A line of a method's output, marked with the method's name."""
    return f"[{event['method']}] {event['text']}"


class WithUnitParams:
    """Adds to each event the parameters of its unit, which its `begin` had."""

    def __init__(self, on_event: EventHandler) -> None:
        self._on_event, self._params = on_event, dict[str, Event]()

    def __call__(self, event: Event) -> None:
        if event["event"] == "begin":
            self._params[event["unit"]] = {
                k: v for k, v in event.items() if k not in ("event", "unit", "label", "spec")
            }
        # An event's own fields win: a cell is of the task it shows, not of the one just learned.
        self._on_event({**self._params.get(event.get("unit", ""), {}), **event})
        if event["event"] == "end":
            self._params.pop(event["unit"], None)


@contextmanager
def event_file(path: Path | None) -> Iterator[EventHandler]:
    """An event handler that appends to a file, or to none.

    Raises:
        WorkFailed: the file cannot be written.
    """
    if path is None:
        yield lambda event: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)  # unbuffered: a line at once, or not at all
    except OSError as error:
        raise cannot_write(path, error) from error

    def write(event: Event) -> None:
        if event["event"] in UNWRITTEN:
            return
        try:
            os.write(file, json.dumps({"time": round(time.time(), 3), **event}).encode() + b"\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    try:
        yield WithUnitParams(write)
    finally:
        os.close(file)
