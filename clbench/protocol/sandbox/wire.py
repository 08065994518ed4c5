"""Messages between the client, the server and a job's process: pickles one way, lines of JSON the other.

The values of tensors follow a pickle as they are: a state may have gigabytes, which pickling would copy several times.
"""

from __future__ import annotations

import io
import json
import pickle
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("Q")
_SENDING = threading.Lock()
"""A job's process may have several threads that print."""


def send_pickle(connection: socket.socket, content: Any, files: tuple[int, ...] = ()) -> None:
    """Send an object, and open files with it; only ever from the client, whom all trust."""
    pickled, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(pickled, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append).dump(content)
    parts = [pickled.getbuffer(), *(buffer.raw() for buffer in buffers)]
    socket.send_fds(connection, [_LENGTH.pack(len(parts))], list(files))
    for part in parts:
        connection.sendall(_LENGTH.pack(part.nbytes))
        connection.sendall(part)


def receive_pickle(connection: socket.socket, most_files: int = 1) -> tuple[Any, list[int]]:
    """The next object, and the files that came with it.

    Raises:
        EOFError: the other end was closed.
    """
    begun, files, _, _ = socket.recv_fds(connection, _LENGTH.size, most_files)
    rest = bytearray(_LENGTH.size - len(begun))
    _receive_into(connection, rest)
    pickled = bytearray(_length(connection))
    _receive_into(connection, pickled)
    buffers = [_receive_values(connection) for _ in range(_LENGTH.unpack(begun + rest)[0] - 1)]
    return pickle.loads(pickled, buffers=buffers), files


class _Pickler(pickle.Pickler):
    """Leaves the values of ordinary tensors to the caller."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(obj) is not torch.Tensor:
            return NotImplemented
        usual = obj.device.type == "cpu" and obj.is_contiguous() and obj.numel() and not obj.is_complex()
        if not usual or obj.requires_grad:
            return NotImplemented
        values = obj.flatten().view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(values), str(obj.dtype).removeprefix("torch."), tuple(obj.shape))


def _tensor(values: Any, dtype: str, shape: Sequence[int]) -> Any:
    import torch

    return torch.from_numpy(values).view(getattr(torch, dtype)).view(shape)


def _receive_values(connection: socket.socket) -> Any:
    """A tensor's values as bytes, in memory that lies as tensors' memory does: its place may change last bits."""
    import torch

    values = torch.empty(_length(connection), dtype=torch.uint8).numpy()
    _receive_into(connection, values)
    return values


def _length(connection: socket.socket) -> int:
    length = bytearray(_LENGTH.size)
    _receive_into(connection, length)
    return _LENGTH.unpack(length)[0]


def _receive_into(connection: socket.socket, target: Any) -> None:
    view = memoryview(target)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]


def send_line(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a message as one line of JSON."""
    line = json.dumps(message).encode() + b"\n"
    with _SENDING:
        connection.sendall(line)
