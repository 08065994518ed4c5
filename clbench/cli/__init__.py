"""The command line. Each command reads its arguments, calls the package and prints.

Exit codes: 0 = done, 1 = the work failed, 2 = bad usage or input.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import signal
import sys
import warnings
from bdb import BdbQuit
from importlib.metadata import version
from typing import Annotated

import typer
from rich.text import Text

from clbench.cli.options import app, err, own_process
from clbench.errors import ClbenchError

for name in (
    "run",
    "check",
    "results",
    "verify",
    "leaderboard",
    "export",
    "push",
    "store",
    "catalog",
):  # the order of --help
    importlib.import_module(f"clbench.cli.{name}")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("clbench"))
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of all commands."""


def main() -> None:
    """Entry point: a ClbenchError is printed as one sentence on stderr and sets the exit code."""
    warnings.showwarning = lambda message, *rest, **more: err.print(
        Text(f"warning: {message}", style="yellow"), soft_wrap=True
    )
    if isinstance(sys.stdout, io.TextIOWrapper):  # paths need not be text; stderr is like that already
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # preempted jobs stop as after Ctrl-C
    own_process()
    atexit.register(gc.freeze)  # Python looks for garbage once more at the end, which takes seconds with torch loaded
    try:
        code = app(standalone_mode=False)  # typer.Exit is returned as its exit code
        if code == 130:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except ClbenchError as error:
        fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort, BdbQuit):
        fail("stopped; the same command goes on from here", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # usage errors of click
            message = error.format_message()  # type: ignore[attr-defined]
            if not message:  # without arguments the help was printed
                sys.exit(2)
            context = getattr(error, "ctx", None)
            hint = f" (see `{context.command_path} --help`)" if context else ""
            fail(f"{message}{hint}", getattr(error, "exit_code", 2))
        raise


def fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    sys.exit(code)
