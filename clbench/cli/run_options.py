"""The options that all commands have which compute: how the work is done, and what is shown of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from clbench.cli.options import DataRoot, Debug, Json, Plugins, Store, debugging, split_list
from clbench.errors import ClbenchError


@dataclass(frozen=True)
class RunOptions:
    """What was given on the command line."""

    config: dict[str, Any]
    """Fields of `clbench.runner.config.RunConfig`, which needs torch."""
    dry_run: bool
    events: Path | None
    tracker: str | None
    as_json: bool


def run_options(
    orders: Annotated[str | None, typer.Option(help="Task orders, e.g. `0,5`; default all.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, e.g. `0`; default all.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the first order and seed, unless --orders or --seeds are given.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for results.")] = Path("runs"),
    store: Store = None,
    plugin: Plugins = None,
    tuning: Annotated[
        Path | None,
        typer.Option(help="For --tuned: a tuning file, or a folder of them; default: the project's `tuning/`."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="`cpu` or `cuda`; default: a GPU if there is one.")] = None,
    precision: Annotated[str | None, typer.Option(help="`fp32`, `bf16` or `fp16`; default: as the suite says.")] = None,
    memory: Annotated[
        str,
        typer.Option(help="`low` needs less memory and more time than `high`; `auto` is `low` if `high` does not fit."),
    ] = "auto",
    keep: Annotated[
        str | None, typer.Option(help="Optional artifacts to retain: `states`, `images` or `states,images`.")
    ] = None,
    data_root: DataRoot = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="On a GPU: reproduce results bit by bit, but slower; on a CPU this is always so."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use what earlier runs left in the store.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Number of worker processes; default: one for each GPU, or for each CPU core.")
    ] = None,
    engine: Annotated[str, typer.Option(help="`local`: processes of this machine; `ray`: a Ray cluster.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Address of the Ray cluster; default: the one this machine belongs to, else a new one."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Try methods of plugin files on a toy model first, in a few seconds."),
    ] = True,
    debug: Debug = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    events: Annotated[Path | None, typer.Option(help="Also write events to this file, as JSON lines.")] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            help="An experiment tracker, such as `tensorboard` or `wandb`, or `none`; default: TensorBoard, if it is "
            "installed, under `<output>/tensorboard`."
        ),
    ] = None,
    as_json: Json = False,
) -> RunOptions:
    """Read the options.

    Raises:
        ClbenchError: a seed is no number.
    """
    config = {
        "orders": split_list(orders),
        "seeds": _numbers(seeds),
        "quick": quick,
        "output": output,
        "store": store,
        "plugins": tuple(plugin or ()),
        "tuning": tuning,
        "device": device,
        "precision": precision,
        "memory": memory,
        "keep": split_list(keep) or (),
        "data_root": data_root,
        "deterministic": deterministic,
        "resume": resume,
        "workers": workers,
        "engine": engine,
        "address": address,
        "check": check,
        "debug": debug,
    }
    return RunOptions(config, dry_run, events, tracker, as_json)


def with_run_options(command: Callable[..., None], leave_out: Collection[str] = ()) -> Callable[..., None]:
    """Add the parameters of `run_options` to a command, which gets what they say as `options`.

    Args:
        leave_out: parameters that the command does not have; their options keep their defaults.
    """
    own = inspect.signature(command, eval_str=True).parameters
    known = inspect.signature(run_options, eval_str=True).parameters
    added = {name: one for name, one in known.items() if name not in leave_out}
    parameters = [one for name, one in own.items() if name != "options"] + list(added.values())

    @wraps(command)
    def wrapped(**given: Any) -> None:
        options = run_options(**{name: given.pop(name) for name in added})
        with debugging(options.config["debug"]):
            command(**given, options=options)

    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapped


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(word) for word in split_list(text) or []]
    except ValueError:
        raise ClbenchError(f"--seeds takes whole numbers with commas between, e.g. 0,5, not {text!r}") from None
