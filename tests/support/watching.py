"""Counting, and disturbing, the calls of a function; and what a failure says."""

from __future__ import annotations

import time
from collections.abc import Callable


def watch(monkeypatch, owner, name: str, before=lambda count: None) -> list[int]:
    """Count the calls of a function, and do something before each."""
    real, calls = getattr(owner, name), []

    def watched(*arguments, **options):
        calls.append(len(calls) + 1)
        before(calls[-1])
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, watched)
    return calls


def raises_at(count: int, error: BaseException):
    def before(now: int) -> None:
        if now == count:
            raise error

    return before


def sentence(caught) -> str:
    """A failure's message, which is one line and names no traceback."""
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for what another process does, for half an hour at most."""
    deadline = time.monotonic() + 1800
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in half an hour"
        time.sleep(0.01)


class Events(list):
    """Events of a run, counted: hand in `append` where something takes an event handler."""

    @property
    def trainings(self) -> int:
        """How many trainings began."""
        return sum(event["event"] == "loss" and event["step"] == 0 for event in self)

    @property
    def drawn(self) -> list[str]:
        """Keys of the cells that were drawn, not found."""
        return [event["cell"] for event in self if event["event"] == "cell" and not event["found"]]
