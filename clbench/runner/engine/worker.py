"""A worker process: `python -m clbench.runner.engine.worker module:function` (see `clbench.runner.engine.local`)."""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import sys
import threading
import warnings
from typing import Any

from clbench.errors import ClbenchError, DeviceFailed, MethodFailed
from clbench.runner.engine.schedule import Unit
from clbench.utils.files import exit_between_writes


def main(place: str, at_start: str = "") -> None:
    """Read the setup and then units from stdin; write events and ends to stdout.

    Args:
        place: `module:function`, which opens the executor.
        at_start: `module:function`, which is called before anything else is known.
    """
    if at_start:
        _function(at_start)()
    messages, sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stderr
    os.dup2(2, 1)  # whatever prints, prints to stderr

    def send(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    def warn(message: Warning | str, *rest: Any, **more: Any) -> None:
        send({"event": "warning", "message": str(message)})

    warnings.showwarning = warn
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    setup = sys.stdin.readline()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        gc.disable()  # it would find nothing among the modules, and take a third of the time
        open_executor = _function(place)
        gc.freeze()
        gc.enable()
        executor = open_executor(json.loads(setup))
    except ClbenchError as error:
        sys.exit(str(error))
    send({"opened": True})
    while True:
        fields = json.loads(lines.get())
        unit = Unit(**{**fields, "needs": tuple(fields["needs"]), "groups": tuple(fields["groups"])})
        try:
            done = executor.do(unit, lambda event, key=unit.key: send({"unit": key, **event}))
        except DeviceFailed as error:
            sys.exit(str(error))  # another process takes the unit up
        except ClbenchError as error:
            by_method = isinstance(error, MethodFailed)
            send({"failed": {"message": str(error), "exit_code": error.exit_code, "by_method": by_method}})
        except Exception as error:
            sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])  # the caller quotes the last line
        else:
            send({"done": done})


def _function(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    exit_between_writes()  # the caller closed our stdin, or died


if __name__ == "__main__":
    main(*sys.argv[1:])
