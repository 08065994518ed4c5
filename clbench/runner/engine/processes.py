"""Worker processes of this machine, started afresh, or forked from a process that has the libraries loaded.

A fork starts at once and shares the libraries' memory. Only a command can prepare them, before it has computed
anything; a worker on a GPU is always started afresh, because CUDA does not survive a fork.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn, Protocol

from clbench.protocol.sandbox.wire import receive_pickle, send_pickle
from clbench.runner.engine import worker

_NUMBER = struct.Struct("i")


class WorkerProcess(Protocol):
    """What a pool does with a worker's process; `subprocess.Popen` is one."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or -signal.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.
        """
        ...

    def kill(self) -> None: ...


def start_worker(words: Sequence[str], environment: Mapping[str, str], device: str, stderr: IO[bytes]) -> WorkerProcess:
    """Start a worker.

    Args:
        words: the arguments of `clbench.runner.engine.worker`.
        environment: all of its environment.
        stderr: the file that its standard error goes to.
    """
    if _nursery is not None and device == "cpu":
        with suppress(ConnectionError, EOFError):  # somebody killed it
            return _nursery.start(words, environment, stderr)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", worker.__name__, *words],  # no modules of this folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=dict(environment),
        start_new_session=True,  # Ctrl-C is for the caller, who then closes our stdin
    )


def fork_workers() -> None:
    """Let this process's workers on the CPU be forks of it as it is now.

    The caller must have no other threads, must have computed nothing, and must be on Linux.
    """
    global _nursery
    _nursery = Nursery()


class Nursery:
    """A fork of this process that does nothing but fork workers; it ends with this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._process = os.fork()
        if not self._process:
            self._control.close()
            _serve(theirs)
        theirs.close()

    def start(self, words: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes]) -> ForkedProcess:
        (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
        try:
            pid = self._ask((words, dict(environment)), (their_in, their_out, stderr.fileno()))
        except BaseException:
            os.close(our_in)
            os.close(our_out)
            raise
        finally:
            os.close(their_in)
            os.close(their_out)
        return ForkedProcess(pid, os.fdopen(our_in, "wb"), os.fdopen(our_out, "rb"), self, os.pidfd_open(pid))

    def exit_code(self, pid: int) -> int:
        """How an ended worker ended."""
        try:
            return self._ask(pid)
        except (ConnectionError, EOFError):
            return -signal.SIGKILL  # nobody knows any more

    def _ask(self, request: object, files: tuple[int, ...] = ()) -> int:
        with self._lock:
            send_pickle(self._control, request, files)
            answer = self._control.recv(_NUMBER.size, socket.MSG_WAITALL)
        if len(answer) < _NUMBER.size:
            raise EOFError
        return _NUMBER.unpack(answer)[0]


_nursery: Nursery | None = None


@dataclass
class ForkedProcess:
    """A worker that a nursery forked."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    nursery: Nursery
    pidfd: int
    code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            if not select.select([self.pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            self.code = self.nursery.exit_code(self.pid)
            os.close(self.pidfd)
        return self.code

    def kill(self) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


# --- the nursery's own process ---


def _serve(control: socket.socket) -> NoReturn:
    """Fork a worker, or tell how one ended, until the other end is closed."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.freeze()  # collections in the workers would copy these pages
        with suppress(EOFError, ConnectionError):
            while True:
                request, files = receive_pickle(control, most_files=3)
                if isinstance(request, int):
                    answer = os.waitstatus_to_exitcode(os.waitpid(request, 0)[1])
                else:
                    answer = os.fork()
                    if not answer:
                        control.detach()
                        _work(request, files)
                    for file in files:
                        os.close(file)
                control.sendall(_NUMBER.pack(answer))
    finally:
        os._exit(0)


def _work(request: tuple[Sequence[str], Mapping[str, str]], files: Sequence[int]) -> NoReturn:
    """Become a worker, with none of the caller's files but these."""
    (words, environment), code = request, 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        worker.main(*words)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType]
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
