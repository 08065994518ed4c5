"""Commands that compute: one run, or many."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.options import (
    RUN,
    SuiteName,
    app,
    complete_track,
    err,
    fork_server,
    fork_workers,
    import_harness,
    out,
    split_list,
    stdout_for_results,
)
from clbench.cli.run_options import RunOptions, with_run_options
from clbench.errors import ClbenchError
from clbench.plugins import list_methods
from clbench.protocol.describe import describe
from clbench.results.tuning import find_search
from clbench.suite import load_suite
from clbench.utils.formatting import format_bytes, format_time
from clbench.variants import Variant, check_distinct, grid, read_variants, settings_of

if TYPE_CHECKING:  # they need torch
    from clbench.results.schema import Result
    from clbench.runner.engine import EventHandler
    from clbench.runner.prepare import ExecutionPlan

Tuned = Annotated[
    bool,
    typer.Option("--tuned", help="Take the settings that `clbench tune` chose, and call the variant `<method>_tuned`."),
]
SHOWN = {"variant", "method", "track", "summary", "partial"}
"""Fields of each result in a sweep's JSON."""


@app.command(
    rich_help_panel=RUN,
    epilog="Examples:\n\n`clbench run --method merge_init --track styles`\n\n"
    "`clbench run --method naive --track objects --quick`\n\n"
    "`clbench run --method mine --plugin mine.py --track styles --set strength=0.5 --variant mine-half`\n\n"
    "`clbench run --method mine --plugin mine.py --track styles --quick --debug`\n\n"
    "`clbench run --method merge_init --track styles --suite sdxl-v1 --data-root ~/data`",
)
@with_run_options
def run(
    method: Annotated[
        str,
        typer.Option(help="A registered method: `clbench list methods`.", autocompletion=lambda: list(list_methods())),
    ],
    track: Annotated[
        str, typer.Option(help="A track of the suite: `clbench list tracks`.", autocompletion=complete_track)
    ],
    options: RunOptions,
    suite: SuiteName = "mini-v2",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter, `key=value`; repeatable.")
    ] = None,
    tuned: Tuned = False,
    variant: Annotated[
        str | None,
        typer.Option(
            help="A name for this configuration and its result; default: the method's name, or `<method>_tuned`."
        ),
    ] = None,
) -> None:
    """Run a method through the ten-task protocol and write a result."""
    tuned = tuned_alone(tuned, settings, options)
    chosen = Variant.of(method, settings_of(settings or []), variant, tuned)
    look_at([chosen], [track], suite, options)
    for result, path in compute([chosen], [track], suite, options):
        if options.as_json:
            typer.echo(path.read_text(), nl=False)
            return
        show(result, path)
        if result.partial:
            out.print(Text("partial: not all runs of the protocol, so it cannot be submitted", style="yellow"))


@app.command(
    rich_help_panel=RUN,
    epilog="Examples:\n\n`clbench sweep --methods naive,merge_init,merge_ortho,magmax --tracks objects,styles`\n\n"
    "`clbench sweep --methods mine --plugin mine.py --tracks styles --set strength=1,10,100 --dry-run`\n\n"
    "`clbench sweep --variants variants.yaml --plugin mine.py --tracks styles`, where the file is a list such as "
    "`- {name: mine-half, method: mine, settings: {strength: 0.5}}`\n\n"
    "`clbench sweep --methods naive,magmax --tracks styles --suite sdxl-v1 --engine ray --store s3://bucket/store`",
)
@with_run_options
def sweep(
    tracks: Annotated[str, typer.Option(help="Tracks of the suite with commas between.")],
    options: RunOptions,
    methods: Annotated[str | None, typer.Option(help="Registered methods with commas between.")] = None,
    variants: Annotated[
        Path | None, typer.Option(help="A YAML file with a list of variants: `name`, `method` and `settings` of each.")
    ] = None,
    suite: SuiteName = "mini-v2",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A hyper-parameter of all `--methods`, `key=value`, or of one, `method.key=value`; several values, "
            "with commas between, make a variant each; repeatable.",
        ),
    ] = None,
    tuned: Tuned = False,
) -> None:
    """Run several variants on several tracks, equal work only once; a second call goes on where the first stopped."""
    named, known = split_list(tracks) or [], split_list(methods) or []
    if tuned_alone(tuned, settings, options):
        chosen = [Variant.of(method, tuned=True) for method in known]
    else:
        chosen = grid(known, settings or [])
    chosen += read_variants(variants) if variants else []
    if not chosen:
        raise ClbenchError("give --methods, --variants or both: no method was named")
    look_at(check_distinct(chosen), named, suite, options)
    done = compute(chosen, named, suite, options, plan_first=True)
    if options.as_json and not options.dry_run:
        rows = [result.model_dump(mode="json", include=SHOWN) for result, _ in done]
        typer.echo(json.dumps(rows, indent=1))
        return
    for result, path in done:
        show(result, path)


def tuned_alone(tuned: bool, settings: list[str] | None, options: RunOptions) -> bool:
    """Whether the settings are those of tuning files, which the path of one says too.

    Raises:
        ClbenchError: others are given beside them.
    """
    tuned = tuned or options.config["tuning"] is not None
    if tuned and settings:
        raise ClbenchError("--tuned takes the settings of a tuning file; give it, or --set, but not both")
    return tuned


def look_at(variants: Sequence[Variant], tracks: list[str], suite: str, options: RunOptions) -> None:
    """Refuse unknown tracks, methods and settings, and missing tuning files, before this process loads torch.

    No suite is held at the end, because `load_libraries` forks this process.
    """
    for track in tracks:
        load_suite(suite).track(track)
    if not options.config["debug"]:
        fork_server()
        for variant in variants:
            describe(variant.method, variant.settings, options.config["plugins"])
    for variant in (variant for variant in variants if variant.tuned):
        for track in tracks:
            find_search(variant.method, load_suite(suite), track, options.config["tuning"])


def compute(
    variants: list[Variant],
    tracks: list[str],
    suite: str,
    options: RunOptions,
    plan_first: bool = False,
) -> list[tuple[Result, Path]]:
    """Plan and do the work; the results and their files, or none after a dry run, which prints the plan.

    Args:
        plan_first: whether the plan is printed before the work too.
    """
    tracker = load_libraries(options)
    from clbench.runner.harness import carry_out, result_path

    plan = planned(variants, tracks, suite, options)
    if options.dry_run and options.as_json:
        typer.echo(json.dumps(plan.summary(), indent=1))
    elif options.dry_run or (plan_first and not options.as_json):
        print_plan(plan)
    if options.dry_run:
        return []
    with shown(plan, options, tracker) as on_event:
        return [(result, result_path(plan.output, result)) for result in carry_out(plan, on_event)]


def load_libraries(options: RunOptions) -> str:
    """Load what the work needs; returns the tracker's name, which is refused here if it cannot be used."""
    import_harness()
    if not options.config["debug"]:
        fork_server(libraries=True)
        if options.config["engine"] == "local" and options.config["workers"] != 1 and not options.dry_run:
            fork_workers()
    from clbench.runner.monitor.trackers import usable

    return usable(options.tracker)


def show(result: Result, path: Path) -> None:
    """A result's table and where its file is."""
    from clbench.results.table import result_table

    out.print(result_table(result))
    out.print(Text(f"result: {path}"), soft_wrap=True)


def planned(
    variants: list[Variant], tracks: list[str], suite: str, options: RunOptions, last_row_only: bool = False
) -> ExecutionPlan:
    """Check and plan the work, and print the estimate."""
    from clbench.runner.config import RunConfig
    from clbench.runner.monitor.events import output_line
    from clbench.runner.prepare import prepare

    config, status = RunConfig.of(**options.config), err.status("looking at models and data")

    def show_stage(event: dict[str, Any]) -> None:
        if event["event"] == "output":
            err.print(Text(output_line(event)), soft_wrap=True)
        elif event["event"] == "expect":
            err.print(Text(event["what"], style="dim"), soft_wrap=not err.is_terminal)
        elif not config.debug:
            status.update(event["what"])

    with nullcontext() if config.debug else status, stdout_for_results(config.debug):
        return prepare(
            variants, tracks, suite, config, show_stage, dry_run=options.dry_run, last_row_only=last_row_only
        )


@contextmanager
def shown(plan: ExecutionPlan, options: RunOptions, tracker: str) -> Iterator[EventHandler]:
    """A live display of the work; events go to the events file and the tracker too."""
    from clbench.runner.monitor.events import event_file
    from clbench.runner.monitor.progress import Display
    from clbench.runner.monitor.trackers import trackers

    debug = options.config["debug"]
    with (
        event_file(options.events) as write,
        trackers(tracker, plan) as track,
        stdout_for_results(debug),
        Display(plan.graph.units, err, live=not debug) as display,
        warnings.catch_warnings(),
    ):

        def on_event(event: dict[str, Any]) -> None:
            for one in (display.on_event, write, track):
                one(event)

        def warn(message: Warning | str, *rest: Any, **more: Any) -> None:
            on_event({"event": "warning", "message": str(message)})

        warnings.showwarning = warn  # as the warnings of workers
        yield on_event


def print_plan(plan: ExecutionPlan) -> None:
    """What a sweep will do."""
    summary = plan.summary()
    table = Table("Units", "All", "To do", title=f"runs: {summary['runs']}, workers: {summary['workers']}")
    for kind, counts in summary["units"].items():
        table.add_row(kind, str(counts["all"]), str(counts["to_do"]))
    shared, cells = summary["shared_units"], summary["repeated_cells"]
    out.print(table)
    if shared:
        out.print(Text(f"shared: {shared} units were asked for more than once, and are done once", "dim"))
    if cells:
        out.print(Text(f"shared: {cells} cells too, if methods that begin alike also end it with equal weights", "dim"))
    if plan.cards:
        cards = Table("One GPU", "Time", "Its memory", title="reckoned from data sheets, not measured")
        for card in plan.cards:
            if card.expected:
                cells: tuple[str, ...] = format_time(card.expected.seconds), format_bytes(card.expected.device_bytes)
            else:
                cells = ("does not fit",)
            cards.add_row(card.card, *cells)
        out.print(cards)
    for sentence in plan.obstacles.sentences():
        out.print(Text(sentence, "yellow"))
