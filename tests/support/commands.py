"""Real commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import warm

CLBENCH = Path(sys.executable).with_name("clbench")
TELL_MODULES = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
"""Makes a script write the names of its modules to stderr when it ends."""


def execute(
    *command, code: int = 0, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Run a command in a plain, wide terminal; it must exit with `code` and never show a traceback.

    `clbench` runs in a fork of a process that has its libraries loaded, unless its environment forbids that.
    """
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})}
    words = list(map(str, command))
    if command[0] == CLBENCH and warm.usable(environment):
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder)
            ended = warm.start(words[1:], environment, cwd or Path.cwd(), files).wait()
            output = ((files / name).read_text() for name in ("stdout", "stderr"))
            done = subprocess.CompletedProcess(words, ended, *output)
    else:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=3600, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def clbench(*arguments, code: int = 0, **options) -> str:
    """What the command prints on stdout."""
    return execute(CLBENCH, *arguments, code=code, **options).stdout


def refusal(*arguments, code: int = 2, **options) -> str:
    """The one sentence on stderr of a command that fails; stdout stays empty."""
    done = execute(CLBENCH, *arguments, code=code, **options)
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.stderr.splitlines()[-1] == errors[0]
    return errors[0]
