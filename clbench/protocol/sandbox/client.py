"""Ask for a job to be done in a process of its own.

    with sandbox().ask(job, "merge_init", source) as reply:
        reply.fields, reply.folder

The client announces a job to the server, with one end of a connection. Over it the process gets the job, and sends
lines of JSON: events, and at last `reply` or `failed`. When it has ended, the server sends its exit code. Nothing that
a process sends is unpickled.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clbench.errors import ClbenchError, DeviceFailed, MethodFailed, UnknownMethod, WorkFailed
from clbench.protocol.sandbox import server
from clbench.protocol.sandbox.confine import kept_environment
from clbench.protocol.sandbox.wire import send_pickle

MAX_ATTEMPTS = 3
"""Attempts at a job whose process is killed."""
MAX_LINE = 1 << 24
"""Bytes of a message."""
CLOSING_SECONDS = 2.0
"""Seconds that the server has to end, before it is killed."""
EVENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "loss": {"step": (int,), "steps": (int,), "loss": (int, float)},
    "work": {"made": (int, float)},
    "output": {"method": (str,), "text": (str,)},
    "printed": {"text": (str,)},
    "warning": {"message": (str,)},
}
"""Events that a process may send -> their fields."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class JobReply:
    """What a job gave."""

    fields: dict[str, Any]
    folder: Path
    """With the files that it left; removed at the end."""


class Sandbox:
    """A server, started when it is first needed, which does one job at a time."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._kill: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a fork of this process: the server stays this process's alone."""
        if self._control is not None:
            self._control.close()
        self._control, self._kill, self._lock = None, lambda: None, threading.RLock()

    def fork(self, modules: tuple[str, ...] = server.LIBRARIES) -> None:
        """Let the server be a fork of this process, with whose memory it shares what is imported.

        The caller must have no other threads, must have computed nothing, and must hold no suite and no result.
        """
        self.close()
        server.load(modules)
        ours, theirs = socket.socketpair()
        process = os.fork()
        if not process:
            _become_server(theirs.detach())
        theirs.close()

        def kill() -> None:
            deadline = time.monotonic() + CLOSING_SECONDS
            while not os.waitpid(process, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(process, signal.SIGKILL)
                time.sleep(0.01)

        self._control, self._kill = ours, kill

    @contextmanager
    def ask(
        self,
        job: server.Job,
        name: str,
        source: Any = None,
        on_event: OnEvent = lambda event: None,
        modules: tuple[str, ...] = server.LIBRARIES,
    ) -> Iterator[JobReply]:
        """Let a process do a job; it has ended when the reply is here.

        Args:
            name: the method's.
            source: loads the backbone, if the job needs one.
            on_event: called with the process's events; `printed` ones are `output` of the method.
            modules: what the server imports first.

        Raises:
            ClbenchError: the job failed. WorkFailed: its process ended early, or was killed time and again.
        """
        status = 0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            with TemporaryDirectory(prefix="clbench-", ignore_cleanup_errors=True) as folder:
                announced = server.Announced(Path(folder), source, modules)
                with self._lock:
                    try:
                        message, status = self._do(job, announced, name, on_event)
                    except BaseException:
                        self.close()  # which ends the process too
                        raise
                if message is not None:
                    if "failed" in message:
                        raise _error(name, str(message["failed"]), str(message.get("message")))
                    yield JobReply(dict(message["reply"]), Path(folder))
                    return
            if status >= 0:
                raise WorkFailed(f"method {name} ended its process with code {status}, in the middle of the work")
            if attempt < MAX_ATTEMPTS:
                message = f"the process of method {name} was killed by signal {-status}, and is tried again"
                on_event({"event": "warning", "message": message})
        raise WorkFailed(
            f"method {name}: {MAX_ATTEMPTS} processes were killed, the last by signal {-status}"
            f"{' (is there enough memory?)' if status == -9 else ''}"
        )

    def _do(
        self, job: server.Job, announced: server.Announced, name: str, on_event: OnEvent
    ) -> tuple[dict[str, Any] | None, int]:
        """The last message, if there is one, and how the process ended."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._announce(announced, theirs.fileno())
            with suppress(ConnectionError):  # it is dead, which its status tells
                send_pickle(ours, job)
            last = _read(ours, name, on_event)
        assert self._control is not None
        status = self._control.recv(server.STATUS.size, socket.MSG_WAITALL)
        if len(status) < server.STATUS.size:  # the server was killed
            self.close()
            return last, -9
        return last, server.STATUS.unpack(status)[0]

    def _announce(self, announced: server.Announced, *files: int) -> None:
        if self._control is None:
            self._spawn()
        assert self._control is not None
        try:
            send_pickle(self._control, announced, files)
        except ConnectionError:  # somebody killed it
            self.close()
            self._spawn()
            send_pickle(self._control, announced, files)

    def _spawn(self) -> None:
        """Start the server afresh: nothing of this process is in its memory, its environment or its files."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", server.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env={**kept_environment(os.environ), **_python_path(), "HF_HUB_OFFLINE": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

        def kill() -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(CLOSING_SECONDS)
            process.kill()
            process.wait()

        self._control, self._kill = ours, kill

    def close(self) -> None:
        """End the server, and the process that does a job."""
        if self._control is not None:
            self._control.close()
            self._kill()
            self._control = None


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def _become_server(fileno: int) -> None:
    """Serve in a process that was just forked, with none of its files but this socket and stderr."""
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.closerange(3, fileno)
        os.closerange(fileno + 1, os.sysconf("SC_OPEN_MAX"))
        server.serve(socket.socket(fileno=fileno))
    finally:
        os._exit(0)


def _read(connection: socket.socket, name: str, on_event: OnEvent) -> dict[str, Any] | None:
    """Pass events on until the process has ended; its reply or failure, if it sent one."""
    unread, last = bytearray(), None
    while True:
        try:
            received = connection.recv(1 << 16)
        except ConnectionError:
            received = b""
        if not received:
            return last
        *lines, unread = (unread + received).split(b"\n")
        if len(unread) > MAX_LINE:
            raise WorkFailed(f"method {name}: its process sent a message of more than {MAX_LINE} bytes")
        for line in lines:
            message = _parsed(bytes(line))
            if "reply" in message or "failed" in message:
                last = message
            elif message.get("event") == "printed":
                on_event({"event": "output", "method": name, "text": message["text"]})
            elif message:
                on_event(message)


def _parsed(line: bytes) -> dict[str, Any]:
    """A message; {} where it is none that a process may send."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(message, dict):
        return {}
    if isinstance(message.get("reply"), dict) or "failed" in message:
        return message
    fields = EVENTS.get(str(message.get("event")))
    if fields is None or not all(isinstance(message.get(field), kind) for field, kind in fields.items()):
        return {}
    return {"event": message["event"], **{field: message[field] for field in fields}}


def _error(name: str, kind: str, message: str) -> Exception:
    """The error that a job failed with."""
    if kind in ("OutOfMemoryError", "AcceleratorError"):
        import torch

        return getattr(torch, kind)(message)
    message = " ".join(message.split())
    errors = (ClbenchError, UnknownMethod, WorkFailed, MethodFailed, DeviceFailed)
    known = {error.__name__: error for error in errors}
    return known[kind](message) if kind in known else WorkFailed(f"method {name} failed: {kind}: {message}")


_SANDBOX = Sandbox()


def sandbox() -> Sandbox:
    """This process's own."""
    return _SANDBOX


def fork_server(modules: tuple[str, ...] = server.LIBRARIES) -> None:
    """Let this process's server be a fork of it, with these modules."""
    _SANDBOX.fork(modules)
