"""What all commands share: the app, the consoles, common options, and the way to what needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clbench.errors import ClbenchError

app = typer.Typer(
    help="Continual low-rank personalization of diffusion models: a benchmark and its leaderboard.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="CLBENCH_DATA_ROOT", help="Folder of your own copies of models and data sets.")
]
ResultSuite = Annotated[str | None, typer.Option("--suite", help="The folder of your own suite that made the result.")]
SuiteName = Annotated[str, typer.Option("--suite", help="A suite of `clbench list suites`, or your own's folder.")]
Orders = Annotated[str | None, typer.Option(help="Task orders, e.g. `0,5`; default all.")]
Seeds = Annotated[str | None, typer.Option(help="Training seeds, e.g. `0`; default all.")]
Device = Annotated[str | None, typer.Option(help="`cpu` or `cuda`; default: what is there.")]
Precision = Annotated[str | None, typer.Option(help="`fp32` or `bf16`; default what the suite says.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="A part: the first order and seed, unless --orders or --seeds say which.")
]
Memory = Annotated[
    str, typer.Option(help="`low` saves memory for time, `high` time for memory; `auto` is `low` where it must.")
]
Keep = Annotated[str | None, typer.Option(help="`states` of all tasks, all `images`, or `states,images`.")]
Store = Annotated[
    str | None, typer.Option(help="A folder, or a URL such as `s3://bucket/place`; default `<output>/store`.")
]
Events = Annotated[Path | None, typer.Option(help="Also write what happens to this file, as JSON lines.")]
Tracker = Annotated[
    str | None,
    typer.Option(
        help="`tensorboard`, `wandb`, `trackio` or `none`; default TensorBoard where it is installed, under "
        "`<output>/tensorboard`."
    ),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="On a GPU: the same bits every time, at a price; a CPU always does.")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that share the work; default one a GPU, or one a core of a CPU.")
]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with methods; repeatable.")]


def import_harness() -> Any:
    """The part that needs torch, or the sentence that says how to install it."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with explain_missing_extra():
        import transformers

        from clbench.runner import harness
    import logging

    import diffusers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    return harness


@contextmanager
def explain_missing_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClbenchError(f"{error.name} is not installed; this needs `pip install 'clbench[run]'`") from None


def progress_bar(transient: bool = False) -> Any:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=transient)


def split_list(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
