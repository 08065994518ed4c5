"""A state's way to the process that trains, beside pickling it as it is.

    python perf/sending.py                # a state of a gigabyte
    python perf/sending.py --gigabytes 6  # about a merged SDXL; plain pickling takes several times as much memory

Both go over a socket to a forked process, which answers when it has the state; alternately, three times each.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import socket
import statistics
import time
from typing import Any

import torch

from clbench.lora import Delta
from clbench.protocol.sandbox.wire import receive_pickle, send_pickle
from clbench.state import State


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    chosen = parser.parse_args()
    layers = max(1, round(chosen.gigabytes * 1e9 / (4 * 1280 * 1280)))
    state = State(Delta({f"layer {number}": torch.randn(1280, 1280) for number in range(layers)}))
    found: dict[str, list[tuple[float, float]]] = {"plain pickle": [], "values beside it": []}
    for _ in range(3):
        found["plain pickle"].append(measure(state, plain=True))
        found["values beside it"].append(measure(state, plain=False))
    print(f"{state.nbytes / 1e9:.2f} GB")
    for name, measured in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{name}: {seconds:.2f} s, {memory:.2f} GB more at the receiver's peak")
    ratio = statistics.median(one / other for (one, _), (other, _) in zip(*found.values(), strict=True))
    print(f"ratio of the seconds: {ratio:.1f}")


def measure(state: State, plain: bool) -> tuple[float, float]:
    """Seconds until the other process has the state, and how much its peak memory grew, in GB."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if not process:
        ours.close()
        before = peak()
        received: Any = plain_receive(theirs) if plain else receive_pickle(theirs)[0]
        assert received.merged.keys()
        theirs.sendall(f"{peak() - before:020.3f}".encode())
        os._exit(0)
    theirs.close()
    began = time.perf_counter()
    if plain:
        pickled = pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL)
        ours.sendall(len(pickled).to_bytes(8, "little"))
        ours.sendall(pickled)
    else:
        send_pickle(ours, state)
    memory = float(ours.recv(20, socket.MSG_WAITALL))
    seconds = time.perf_counter() - began
    os.waitpid(process, 0)
    ours.close()
    return seconds, memory


def plain_receive(connection: socket.socket) -> Any:
    received = bytearray(int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little"))
    view = memoryview(received)
    while view:
        view = view[connection.recv_into(view) :]
    return pickle.loads(received)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
