"""A worker process: `python -m clbench.runner.engine.worker module:function` (see `clbench.runner.engine.local`)."""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import warnings
from typing import Any

from clbench.errors import ClbenchError, DeviceFailed
from clbench.runner.engine.schedule import Unit
from clbench.utils.files import exit_between_writes


def main(place: str) -> None:
    """The workshop's setup and then units on stdin; events and ends on stdout."""
    said, sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stderr
    os.dup2(2, 1)  # whatever prints, prints to stderr

    def say(what: dict[str, Any]) -> None:
        said.write(json.dumps(what) + "\n")
        said.flush()

    def warn(message: Warning | str, *rest: Any, **more: Any) -> None:
        say({"event": "warning", "message": str(message)})

    warnings.showwarning = warn
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    setup = sys.stdin.readline()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    module, name = place.split(":")
    try:
        workshop = getattr(importlib.import_module(module), name)(json.loads(setup))
    except ClbenchError as error:
        sys.exit(str(error))
    say({"opened": True})
    while True:
        fields = json.loads(lines.get())
        unit = Unit(**{**fields, "needs": tuple(fields["needs"]), "groups": tuple(fields["groups"])})
        try:
            done = workshop.do(unit, lambda event, key=unit.key: say({"unit": key, **event}))
        except DeviceFailed as error:
            sys.exit(str(error))  # another process takes the unit up
        except ClbenchError as error:
            say({"failed": {"message": str(error), "exit_code": error.exit_code}})
        except Exception as error:
            sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])  # the last line is the caller's reason
        else:
            say({"done": done})


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    exit_between_writes()  # the caller closed our stdin, or died


if __name__ == "__main__":
    main(sys.argv[1])
