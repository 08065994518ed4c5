"""Messages between the client, the server and a job's process: pickles one way, lines of JSON the other."""

from __future__ import annotations

import json
import pickle
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("Q")
_SENDING = threading.Lock()
"""A job's process may have several threads that print."""


def send_pickle(connection: socket.socket, content: Any, files: tuple[int, ...] = ()) -> None:
    """Send an object, and open files with it; only ever from the client, whom all trust."""
    pickled = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    socket.send_fds(connection, [_LENGTH.pack(len(pickled))], list(files))
    connection.sendall(pickled)


def receive_pickle(connection: socket.socket, most_files: int = 1) -> tuple[Any, list[int]]:
    """The next object, and the files that came with it.

    Raises:
        EOFError: the other end was closed.
    """
    begun, files, _, _ = socket.recv_fds(connection, _LENGTH.size, most_files)
    length = begun + _exactly(connection, _LENGTH.size - len(begun))
    return pickle.loads(_exactly(connection, _LENGTH.unpack(length)[0])), files


def _exactly(connection: socket.socket, size: int) -> bytearray:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return received


def send_line(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a message as one line of JSON."""
    line = json.dumps(message).encode() + b"\n"
    with _SENDING:
        connection.sendall(line)
