"""Commands on a terminal of a given width, and what they wrote to it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import warm
from commands import CLBENCH

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[^\[]")


def on_terminal(*command, width: int, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed on a terminal, and return all that it wrote, control codes included."""
    screen, its_screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
    ended = []

    def run() -> None:
        words, path = list(map(str, command)), Path(os.ttyname(its_screen))
        if command[0] == CLBENCH and warm.usable(environment):
            ended.append(warm.start(words[1:], environment, cwd, path).wait())
        else:
            files = dict.fromkeys(("stdin", "stdout", "stderr"), its_screen)
            ended.append(subprocess.run(words, env=environment, cwd=cwd, check=False, **files).returncode)
        os.close(its_screen)

    running = threading.Thread(target=run)
    running.start()
    written = bytearray()
    with suppress(OSError), os.fdopen(screen, "rb", buffering=0) as reader:  # OSError: the command has ended
        while some := reader.read(1 << 16):
            written += some
    running.join()
    assert ended == [0], written.decode(errors="replace")
    return written.decode()


def lines_of(text: str) -> list[str]:
    """The lines that were written, without control codes, each as long as it was before the terminal wrapped it."""
    return re.split(r"[\r\n]+", CONTROL.sub("", text))


def check_fits(text: str, width: int) -> None:
    """No line is wider than the terminal, and no number is cut."""
    lines = lines_of(text)
    assert [line for line in lines if len(line) > width] == []
    assert [line for line in lines if re.search(r"[0-9.]…", line)] == []
