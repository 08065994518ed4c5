"""A process that has loaded what `clbench` commands load, and forks one for each: they start at once, not in seconds.

A fork runs the command's own `main` in an environment, a folder and with files of its own, and exits.
As a script it reads from stdin, a line each, what to run and for whose end to wait; it writes process ids and exit
codes to stdout.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

AT_START = ("HF_", "LANG", "LC_", "OMP_", "PYTHON")
"""Names of environment variables, or their beginnings, that Python or a library reads once, when it is loaded."""
LIGHT = ("check-submission", "compare", "leaderboard", "list", "show", "submit", "validate")
"""Commands that load no torch."""
LIBRARIES = ("rich.progress", "scipy.stats", "typer", "clbench.leaderboard.submitted", "clbench.results.validation")
HEAVY_LIBRARIES = (
    *("torch._dynamo", "torch.utils.tensorboard", "open_clip", "clbench.miniworld.render", "clbench.runner.harness"),
    *("clbench.runner.plugin_check", "clbench.runner.reopen"),
)


def usable(environment: Mapping[str, str]) -> bool:
    """Whether a command in such an environment would load the libraries as the warm process did."""
    return read_at_start(environment) == read_at_start(_started_with())


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


class Command:
    """A command that runs, as far as a test needs what `subprocess.Popen` offers."""

    def __init__(self, pid: int) -> None:
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("clbench", timeout or 0.0)
            self.returncode = _ask({"wait": self.pid})
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(words: Sequence[str], environment: Mapping[str, str], folder: Path, files: Path) -> Command:
    """Start a command, whose output becomes the files `stdout` and `stderr` in a folder.

    Args:
        files: that folder; or the path of a terminal, which the command gets as its own.
    """
    request = {"words": words, "environment": dict(environment), "folder": str(folder), "files": str(files)}
    return Command(_ask(request))


def _ask(request: Mapping[str, Any]) -> int:
    process = _process()
    assert process.stdin
    assert process.stdout
    print(json.dumps(request), file=process.stdin, flush=True)
    return int(process.stdout.readline())


@functools.cache
def _started_with() -> dict[str, str]:
    return dict(os.environ)


@functools.cache
def _process() -> subprocess.Popen[str]:
    """Started when first needed; it ends with this process, which closes its stdin."""
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_started_with())
    atexit.register(process.communicate)  # closes its stdin, and waits
    return process


def _serve(requests: IO[str]) -> dict[str, Any] | None:
    """Fork for each command. Returns in each fork, with its request, and here when there are no more."""
    for line in iter(requests.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            _load(request["words"][:1])
            answer = os.fork()
            if not answer:
                return request
        print(answer, flush=True)
    return None


def _load(command: Sequence[str]) -> None:
    """Load what a command needs, but none of `clbench.cli`, which looks at the terminal when it is loaded."""
    for name in LIBRARIES if {*command} <= {*LIGHT} else (*LIBRARIES, *HEAVY_LIBRARIES):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # forks share that memory


def _become(request: Mapping[str, Any]) -> None:
    """Take a command's environment, folder, files and words."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    place = request["files"]
    is_terminal = not os.path.isdir(place)
    if is_terminal:
        os.setsid()  # the terminal that is opened next becomes its own
    for number, path in enumerate([place] * 3 if is_terminal else (os.devnull, f"{place}/stdout", f"{place}/stderr")):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if is_terminal:
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    sys.argv = ["clbench", *request["words"]]


def _called() -> int:
    """What the console script does; returns the exit code, and prints the traceback of an error that gets out."""
    from clbench.cli import main

    try:
        sys.exit(main())
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
            return 1
        return exit.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1


def _end(code: int) -> NoReturn:
    """End without taking all modules apart, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which commands do not have
    request = _serve(sys.stdin)
    if request:
        _become(request)
        _end(_called())
