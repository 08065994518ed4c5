"""Shared by all commands: the app, the consoles, common options, and the import of modules that need torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from clbench.errors import ClbenchError
from clbench.suite import list_suites, load_suite

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    help="Continual low-rank personalization of diffusion models: a benchmark and its leaderboard.\n\n"
    "Exit codes: 0 = done, 1 = the work failed, 2 = bad usage or input, 130 = stopped.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
RUN, RESULTS, BOARD, SETUP = "Run methods", "Look at results", "Submit and build boards", "Look up and set up"
"""The groups of commands in `clbench --help`."""
out = Console()
# A log gets no control codes, not even where colours are asked for: they would be those of moving bars too.
err = Console(stderr=True, force_terminal=None if sys.stderr.isatty() else False)


def complete_track(context: typer.Context) -> list[str]:
    """The tracks of the suite that is named on the command line."""
    return list(load_suite(context.params.get("suite") or "mini-v2").tracks)


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="CLBENCH_DATA_ROOT", help="Folder of your own copies of models and data sets.")
]
ResultSuite = Annotated[
    str | None, typer.Option("--suite", help="The folder of the result's suite, if it is your own.")
]
SuiteName = Annotated[
    str,
    typer.Option(
        "--suite", help="A suite of `clbench list suites`, or the folder of your own.", autocompletion=list_suites
    ),
]
Store = Annotated[
    str | None, typer.Option(help="A folder, or a URL such as `s3://bucket/folder`; default `<output>/store`.")
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Work in this process alone, show a plugin's error with its traceback, and let `breakpoint()` in a plugin "
        "have the terminal.",
    ),
]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with methods; repeatable.")]


def import_harness() -> Any:
    """The module `clbench.runner.harness`, which needs torch; raises ClbenchError if that is not installed."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    gc.disable()  # it would find nothing among the modules, and take a third of the time
    # Refreshing would need a thread, which forks of this process could not have; libraries keep the streams they find.
    told = Live(
        Text("loading torch and the libraries"),
        console=err,
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        with told, explain_missing_extra():
            from clbench.runner import harness
            from clbench.utils.pretrained import silence
    finally:
        gc.enable()
    silence()
    return harness


def fork_server(libraries: bool = False) -> None:
    """Let the processes of plugins be forks of this one: with the libraries they start at once.

    Call it where no definition of a suite and no result is held. Elsewhere than in a command's own process on Linux
    nothing is done, and the processes are forks of a server that is started afresh.
    """
    if _own_process and sys.platform.startswith("linux"):
        from clbench.protocol.sandbox import client

        client.fork_server(client.server.LIBRARIES if libraries else ())


def fork_workers() -> None:
    """Let worker processes be forks of this one, as `fork_server` does with those of plugins.

    What they score images with is loaded first, once for all of them.
    """
    if _own_process and sys.platform.startswith("linux"):
        from clbench.encoders import clip, csd, dino  # noqa: F401
        from clbench.runner.engine import processes

        processes.fork_workers()


_own_process = False


def own_process() -> None:
    """Say that this process is a command's own: that it has no other threads and has computed nothing."""
    global _own_process
    _own_process = True


@contextmanager
def debugging(on: bool) -> Iterator[None]:
    """With --debug: leave what plugins print where they print it, and print an error's traceback."""
    if not on:
        yield
        return
    from clbench.utils.output import uncaptured

    with uncaptured():
        try:
            yield
        except ClbenchError as error:
            print_traceback(error)
            raise


def print_traceback(error: ClbenchError) -> None:
    """Print the traceback of what a plugin raised, if an error is of a plugin."""
    if error.__cause__:
        import traceback

        traceback.print_exception(error.__cause__)


def stdout_for_results(debug: bool) -> AbstractContextManager[Any]:
    """What a plugin prints where it is not captured goes to stderr, unless a debugger needs the terminal."""
    return nullcontext() if debug else redirect_stdout(sys.stderr)


@contextmanager
def explain_missing_extra() -> Iterator[None]:
    """Turn the failed import of an optional package into the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClbenchError(f"{error.name} is not installed; this needs `pip install 'clbench[run]'`") from None


def progress_bar(transient: bool = False) -> Progress:
    """A progress bar on stderr; `transient` removes it at the end."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=transient)


def store_of(result: Path, output: Path | None = None, store: str | None = None) -> str:
    """The store of a result's run: as `--store` or `--output` say, else that of the folder that the result lies in."""
    from clbench.storage.open import default_store

    return store or default_store(output or result.absolute().parent.parent.parent)


def split_list(text: str | None) -> list[str] | None:
    """The items of a comma-separated option."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
