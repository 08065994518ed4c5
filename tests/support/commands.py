"""Real commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CLBENCH = Path(sys.executable).with_name("clbench")


def execute(*command, code: int = 0, env: Mapping[str, str] | None = None, **options) -> subprocess.CompletedProcess:
    """Run a command in a plain, wide terminal; it must exit with `code` and never show a traceback."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=3600, **options
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def clbench(*arguments, code: int = 0, **options) -> str:
    """What the command prints on stdout."""
    return execute(CLBENCH, *arguments, code=code, **options).stdout


def refusal(*arguments, code: int = 2) -> str:
    """The one sentence on stderr of a command that fails; stdout stays empty."""
    done = execute(CLBENCH, *arguments, code=code)
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.stderr.splitlines()[-1] == errors[0]
    return errors[0]
