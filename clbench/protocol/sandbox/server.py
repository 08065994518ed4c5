"""The server: a process with the libraries and the backbone loaded, which forks a process for each job.

    python -P -m clbench.protocol.sandbox.server FILENO

It never sees a job: the process that it forks reads it, does it, sends events, and ends. What that process has in
memory is what this module imports, the backbone's weights, and the job.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from clbench.errors import ClbenchError
from clbench.protocol.sandbox.wire import receive_pickle, send_line
from clbench.utils.output import Lines

LIBRARIES = ("torch", "clbench.protocol.requests")
"""The modules that import all that a training needs."""
STATUS = struct.Struct("i")
"""A process's exit code, or -signal, as the server sends it."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Job(Protocol):
    """What a process is forked for."""

    def run(self, folder: Path, backbone: Any, emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Do it; returns the reply's fields, as JSON.

        Args:
            folder: empty, and the process's alone; tensors of the reply are left there as files.
            backbone: loaded on the CPU, or None.
            emit: called with events.
        """
        ...


@dataclass(frozen=True)
class Announced:
    """What the server is told of a job."""

    folder: Path
    source: Any = None
    """Loads the backbone, if the job needs one."""
    modules: tuple[str, ...] = LIBRARIES
    """What is imported first, to be there in all later processes too."""


def serve(control: socket.socket) -> None:
    """Fork a process for each job that is announced, one at a time, until the other end is closed."""
    _use_one_thread()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a job leaves behind becomes a child of this process, and is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then closes the other end
    backbones: dict[Any, Any] = {}
    folder: Path | None = None
    with suppress(EOFError, ConnectionError):
        while True:
            announced, files = receive_pickle(control)
            folder = announced.folder
            load(announced.modules)
            _use_one_thread()
            for fileno in files:
                with socket.socket(fileno=fileno) as connection:
                    control.sendall(STATUS.pack(_fork(announced, backbones, connection, control)))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)  # a caller that was killed left it


def load(modules: Iterable[str] = LIBRARIES) -> None:
    """Import modules in a process that is to be forked."""
    for module in modules:
        importlib.import_module(module)
    if LIBRARIES[-1] in sys.modules:
        importlib.import_module("clbench.utils.pretrained").silence()


def _use_one_thread() -> None:
    """A process whose thread pool has run cannot be forked safely."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _fork(announced: Announced, backbones: dict[Any, Any], connection: socket.socket, control: socket.socket) -> int:
    """Let a process do a job, to its end; its exit code, or -signal."""
    source = announced.source
    if source is not None and source not in backbones:
        try:
            backbones[source] = source.load("cpu")
        except ClbenchError as error:
            send_line(connection, _failure(error))
            return 0
        gc.freeze()  # collections in the forked processes would copy these pages
    process = os.fork()
    if not process:
        control.close()
        _work(connection, announced.folder, backbones.get(source))
    connection.close()
    if hasattr(os, "pidfd_open"):  # elsewhere a process whose caller is gone ends at its next event
        watched = os.pidfd_open(process)
        if control in select.select([watched, control], [], [])[0]:  # the caller has left
            os.kill(process, signal.SIGKILL)
        os.close(watched)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    _kill_children()
    return status


def _kill_children() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with suppress(OSError):
        while found := children.read_text().split():
            for child in map(int, found):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


# --- the forked process ---


def _work(connection: socket.socket, folder: Path, backbone: Any) -> NoReturn:
    """Do the job that comes over the connection, and end."""

    def send(message: dict[str, Any]) -> None:
        send_line(connection, message)

    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stdout = sys.stderr = Lines(lambda line: send({"event": "printed", "text": line}))
        warnings.showwarning = lambda message, *rest, **more: send({"event": "warning", "message": str(message)})
        job: Job = receive_pickle(connection)[0]
        try:
            message = {"reply": job.run(folder, backbone, send)}
        except BaseException as error:
            message = _failure(error)
        send(message)
    finally:
        os._exit(0)


def _failure(error: BaseException) -> dict[str, Any]:
    """An error, as a message."""
    return {"failed": type(error).__name__, "message": str(error)}


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
