"""Commands that compute: one run, or many."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.options import (
    DataRoot,
    Deterministic,
    Device,
    Events,
    Json,
    Keep,
    Memory,
    Orders,
    Plugins,
    Precision,
    Quick,
    Seeds,
    Store,
    SuiteName,
    Tracker,
    Workers,
    app,
    err,
    import_harness,
    out,
    split_list,
)
from clbench.errors import ClbenchError
from clbench.suite import load_suite

if TYPE_CHECKING:  # they need torch
    from clbench.results.schema import Result
    from clbench.runner.prepare import ExecutionPlan

SHOWN = {"method", "track", "summary", "partial"}
"""Of a result, where there are many."""


@app.command(
    epilog="Examples:\n\n`clbench run --method merge_init --track styles`\n\n"
    "`clbench run --method naive --track objects --quick`\n\n"
    "`clbench run --method mine --plugin mine.py --track styles --set strength=0.5`\n\n"
    "`clbench run --method merge_init --track styles --suite sdxl-v1 --data-root ~/data`"
)
def run(
    method: Annotated[str, typer.Option(help="A registered method: `clbench list methods`.")],
    track: Annotated[str, typer.Option(help="A track of the suite: `clbench list tracks`.")],
    suite: SuiteName = "mini-v2",
    orders: Orders = None,
    seeds: Seeds = None,
    quick: Quick = False,
    output: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs"),
    store: Store = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter, `key=value`; repeatable.")
    ] = None,
    plugin: Plugins = None,
    device: Device = None,
    precision: Precision = None,
    memory: Memory = "auto",
    keep: Keep = None,
    data_root: DataRoot = None,
    deterministic: Deterministic = False,
    workers: Workers = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use what earlier runs left in the store.")
    ] = True,
    events: Events = None,
    tracker: Tracker = None,
    as_json: Json = False,
) -> None:
    """Run a method through the ten-task protocol and write a result."""
    load_suite(suite).track(track)  # bad input is told before torch is loaded
    from clbench.plugins import get_method

    plugins = tuple(plugin or ())
    chosen = settings_of(settings or [])
    get_method(method, chosen, plugins)
    harness = import_harness()
    from clbench.cli.render import result_table
    from clbench.runner.monitor.trackers import usable

    chosen_tracker = usable(tracker)  # or it is refused before any work
    options = {
        "orders": split_list(orders),
        "seeds": numbers(seeds),
        "quick": quick,
        "output": output,
        "store": store,
        "plugins": plugins,
        "device": device,
        "precision": precision,
        "memory": memory,
        "keep": split_list(keep) or (),
        "data_root": data_root,
        "deterministic": deterministic,
        "workers": workers,
        "resume": resume,
    }
    plan = planned([method], [track], suite, {method: chosen}, options)
    (result,) = carry_out(plan, events, chosen_tracker)
    path = harness.result_path(output, result)
    if as_json:
        typer.echo(path.read_text(), nl=False)
        return
    out.print(result_table(result))
    if result.partial:
        out.print(Text("partial: not all runs of the protocol, so it cannot be submitted", style="yellow"))
    out.print(Text(f"result: {path}"), soft_wrap=True)


@app.command(
    epilog="Examples:\n\n`clbench sweep --methods naive,merge_init,merge_ortho,magmax --tracks objects,styles`\n\n"
    "`clbench sweep --methods naive,mine --plugin mine.py --tracks styles --set mine.strength=0.5 --dry-run`\n\n"
    "`clbench sweep --methods naive,magmax --tracks styles --suite sdxl-v1 --engine ray --store s3://bucket/store`"
)
def sweep(
    methods: Annotated[str, typer.Option(help="Registered methods with commas between.")],
    tracks: Annotated[str, typer.Option(help="Tracks of the suite with commas between.")],
    suite: SuiteName = "mini-v2",
    engine: Annotated[str, typer.Option(help="`local`: processes of this machine; `ray`: a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster; default the one this machine belongs to, else a new one.")
    ] = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    orders: Orders = None,
    seeds: Seeds = None,
    quick: Quick = False,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs"),
    store: Store = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter, `method.key=value`; repeatable.")
    ] = None,
    plugin: Plugins = None,
    device: Device = None,
    precision: Precision = None,
    memory: Memory = "auto",
    keep: Keep = None,
    data_root: DataRoot = None,
    deterministic: Deterministic = False,
    events: Events = None,
    tracker: Tracker = None,
    as_json: Json = False,
) -> None:
    """Run several methods on several tracks, equal work only once; a second call goes on where the first stopped."""
    names, chosen = split_list(methods) or [], by_method(settings or [])
    definition = load_suite(suite)
    for track in split_list(tracks) or []:
        definition.track(track)
    result_path = import_harness().result_path
    from clbench.cli.render import result_table
    from clbench.runner.monitor.trackers import usable

    chosen_tracker = usable(tracker)  # or it is refused before any work
    options = {
        "orders": split_list(orders),
        "seeds": numbers(seeds),
        "quick": quick,
        "output": output,
        "store": store,
        "plugins": tuple(plugin or ()),
        "device": device,
        "precision": precision,
        "memory": memory,
        "keep": split_list(keep) or (),
        "data_root": data_root,
        "deterministic": deterministic,
        "workers": workers,
        "engine": engine,
        "address": address,
    }
    plan = planned(names, split_list(tracks) or [], suite, chosen, options)
    if dry_run and as_json:
        typer.echo(json.dumps(plan.summary(), indent=1))
        return
    if not as_json:
        print_plan(plan)
    if dry_run:
        return
    results = carry_out(plan, events, chosen_tracker)
    if as_json:
        typer.echo(json.dumps([result.model_dump(mode="json", include=SHOWN) for result in results], indent=1))
        return
    for result in results:
        out.print(result_table(result))
        out.print(Text(f"result: {result_path(output, result)}"), soft_wrap=True)


def planned(
    methods: list[str], tracks: list[str], suite: str, settings: dict[str, Any], options: dict[str, Any]
) -> ExecutionPlan:
    """Checked and planned; says what it will take."""
    from clbench.runner.config import RunConfig
    from clbench.runner.prepare import prepare

    with err.status("looking at models and data") as status:

        def told(event: dict[str, Any]) -> None:
            status.update(event["what"])
            if event["event"] == "expect":
                err.print(Text(event["what"], style="dim"), soft_wrap=True)

        return prepare(methods, tracks, suite, settings, RunConfig.of(**options), told)


def carry_out(plan: ExecutionPlan, events: Path | None, tracker: str) -> list[Result]:
    """Work under a live display, and tell whoever else is to know."""
    from clbench.runner import harness
    from clbench.runner.monitor.events import event_file
    from clbench.runner.monitor.progress import Display
    from clbench.runner.monitor.trackers import trackers

    with (
        event_file(events) as write,
        trackers(tracker, plan) as track,
        Display(plan.graph.units, err) as display,
        warnings.catch_warnings(),
    ):

        def on_event(event: dict[str, Any]) -> None:
            for one in (display.on_event, write, track):
                one(event)

        def warn(message: Warning | str, *rest: Any, **more: Any) -> None:
            on_event({"event": "warning", "message": str(message)})

        warnings.showwarning = warn  # as the warnings of workers
        return harness.carry_out(plan, on_event)


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


def by_method(pairs: list[str]) -> dict[str, dict[str, Any]]:
    """`method.key=value` pairs, method by method."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        method, dot, rest = pair.partition(".")
        if not dot or "=" in method:
            raise ClbenchError(f"--set of a sweep takes method.key=value, not {pair!r}")
        found.setdefault(method, {}).update(settings_of([rest]))
    return found


def numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(word) for word in split_list(text) or []]
    except ValueError:
        raise ClbenchError(f"--seeds takes whole numbers with commas between, e.g. 0,5, not {text!r}") from None


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is read as JSON where it is JSON, else as text."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ClbenchError(f"--set takes key=value, not {pair!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings
