"""The command that searches methods' settings, the same number of trials for each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.options import RUN, SuiteName, app, complete_track, out, split_list
from clbench.cli.run import load_libraries, look_at, planned, print_plan, shown
from clbench.cli.run_options import RunOptions, with_run_options
from clbench.errors import ClbenchError
from clbench.plugins import list_methods
from clbench.protocol.describe import MethodDescription, describe
from clbench.results.tuning import Search, SettingValues, Space, Trial, best, save_search, search_path, tuning_folder
from clbench.suite import load_suite
from clbench.utils.formatting import format_percent
from clbench.variants import Variant

if TYPE_CHECKING:  # they need torch
    from clbench.runner.prepare import ExecutionPlan

LEFT_OUT = ("orders", "seeds", "quick", "output", "tuning", "keep", "check", "debug")
"""Options of runs that a search has not, or describes otherwise."""


@app.command(
    rich_help_panel=RUN,
    epilog="Examples:\n\n`clbench tune --method ewc --track styles`\n\n"
    "`clbench tune --methods ewc,mas,si --track styles --trials 16 --dry-run`\n\n"
    "`clbench tune --method mine --plugin mine.py --track styles --output my-tuning`\n\n"
    "What was chosen is then taken by `run` and `sweep`: with --tuned, or --tuning my-tuning for another folder.",
)
@partial(with_run_options, leave_out=LEFT_OUT)
def tune(
    track: Annotated[str, typer.Option(help="A track of the suite.", autocompletion=complete_track)],
    options: RunOptions,
    method: Annotated[
        str | None,
        typer.Option(help="A registered method: `clbench list methods`.", autocompletion=lambda: list(list_methods())),
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Several, with commas between: one sweep tunes them all.")] = None,
    trials: Annotated[int, typer.Option(min=1, max=1024, help="Settings to try, the method's defaults included.")] = 8,
    orders: Annotated[
        str | None, typer.Option(help="Task orders of each trial, e.g. `0,5`; default: the suite's first.")
    ] = None,
    suite: SuiteName = "mini-v2-dev",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tuning files, `<suite>/<track>/<method>.json`; default: the project's `tuning/`."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for what the trials leave.")] = Path("runs"),
) -> None:
    """Search a method's settings on a development suite; `run --tuned` takes those that kept most.

    Which settings are searched, and where, the method's `Config` says (`SearchRange`). The first trial has the
    defaults; a longer search begins like a shorter one, so that it does only what is new.
    """
    names = list(dict.fromkeys(filter(None, [method, *(split_list(methods) or [])])))
    if not names:
        raise ClbenchError("give --method or --methods: no method was named")
    if not load_suite(suite).for_development:
        raise ClbenchError(
            f"suite {suite} is none to tune on: it is not marked `for_development: true`, and nothing is tuned on the "
            f"tasks that results are measured on"
        )
    options = _as_trials(options, orders, runs)
    look_at([Variant.of(name) for name in names], [track], suite, options)
    tracker = load_libraries(options)
    from clbench.runner.harness import attempt, refuse_failures
    from clbench.runner.prepare import check_writable
    from clbench.runner.tuning import conclude, mean_kept, trial_variants

    folder = output or tuning_folder()
    check_writable(folder, "--output")
    training = load_suite(suite).training
    described = [describe(name, {}, options.config["plugins"]) for name in names]
    variants = [trial_variants(one, training, trials) for one in described]
    plan = planned([variant for own in variants for variant in own], [track], suite, options, last_row_only=True)
    if options.dry_run:
        _show_plan(plan, described, variants, options)
        return
    with shown(plan, options, tracker) as on_event:
        kept, failures = attempt(plan, on_event, partial(mean_kept, plan))
    refuse_failures({name: failure for name, failure in failures.items() if not failure.by_method})
    searches = []
    for description, own in zip(described, variants, strict=True):
        name = description.reference.name
        command = _command(name, track, suite, trials, options)
        search = conclude(plan, description, own, kept, failures, command)
        path = search_path(folder, plan.sweep.suite.name, track, name)
        save_search(search, path)
        searches.append(search)
        if not options.as_json:
            _show(search, path)
    if options.as_json:
        records = [search.model_dump(mode="json") for search in searches]
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=1))


def _as_trials(options: RunOptions, orders: str | None, runs: Path) -> RunOptions:
    """One seed an order, and one order unless more are given; results go where no table of runs shows them.

    The trials themselves tell whether a method works, so that its hooks are not checked for each of its settings.
    """
    from clbench.storage.open import default_store

    store = options.config["store"] or default_store(runs)
    own = {"orders": split_list(orders), "quick": True, "check": False, "output": runs / "tuning", "store": store}
    return replace(options, config={**options.config, **own})


def _command(method: str, track: str, suite: str, trials: int, options: RunOptions) -> str:
    """The command line that makes the same search again."""
    words = ["clbench", "tune", "--method", method, "--track", track, "--suite", suite, "--trials", str(trials)]
    words += ["--orders", ",".join(orders)] if (orders := options.config["orders"]) else []
    for plugin in options.config["plugins"]:
        words += ["--plugin", plugin.name]
    return shlex.join(words)


def _show_plan(
    plan: ExecutionPlan,
    described: Sequence[MethodDescription],
    variants: Sequence[Sequence[Variant]],
    options: RunOptions,
) -> None:
    """What a search will try, and what that takes."""
    settings = {
        one.reference.name: [variant.settings for variant in own] for one, own in zip(described, variants, strict=True)
    }
    if options.as_json:
        typer.echo(json.dumps({"trials": settings, **plan.summary()}, indent=1))
        return
    for one in described:
        tried = settings[one.reference.name]
        out.print(_table(one.reference.name, one.space, [(own, "") for own in tried], chosen=None))
    print_plan(plan)


def _show(search: Search, path: Path) -> None:
    """A search's table, and where its file is."""
    rows = [(trial.settings, _outcome(trial)) for trial in search.trials]
    out.print(_table(search.method, search.space, rows, best(search.trials)))
    out.print(Text(f"tuning: {path}"), soft_wrap=True)


def _outcome(trial: Trial) -> str:
    return f"failed: {trial.failed}" if trial.kept is None else format_percent(trial.kept)


def _table(method: str, space: Space, rows: Sequence[tuple[SettingValues, str]], chosen: int | None) -> Table:
    """A row for each trial."""
    told = any(outcome for _, outcome in rows)
    table = Table("Trial", *space, *(["Kept", ""] if told else []), title=method)
    for number, (settings, outcome) in enumerate(rows):
        values = [settings.get(name, given.default) for name, given in space.items()]
        texts = ["the suite's" if value is None else f"{value:g}" for value in values]
        own = [outcome, "chosen" if number == chosen else ""] if told else []
        table.add_row(*map(Text, (str(number), *texts, *own)), style="bold" if number == chosen else None)
    return table
