"""The command that checks a plugin."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from clbench.cli.options import (
    RUN,
    DataRoot,
    Debug,
    Json,
    SuiteName,
    app,
    complete_track,
    debugging,
    err,
    fork_server,
    import_harness,
    out,
    print_traceback,
    stdout_for_results,
)
from clbench.plugins import get_method, load_plugin
from clbench.protocol.describe import describe, methods_in
from clbench.suite import load_suite
from clbench.utils.formatting import format_bytes
from clbench.variants import settings_of

if TYPE_CHECKING:  # it needs torch
    from clbench.runner.plugin_check import MethodCheck


@app.command(
    rich_help_panel=RUN,
    epilog="Examples:\n\n`clbench check mine.py`\n\n`clbench check mine.py --set strength=0.5 --json`\n\n"
    "`clbench check mine.py --debug`",
)
def check(
    plugin: Annotated[Path, typer.Argument(help="A Python file with methods.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter, `key=value`; repeatable.")
    ] = None,
    suite: SuiteName = "mini-v2",
    track: Annotated[
        str | None, typer.Option(help="A track of the suite; default its first.", autocompletion=complete_track)
    ] = None,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`.")] = "cpu",
    data_root: DataRoot = None,
    debug: Debug = False,
    as_json: Json = False,
) -> None:
    """Run every hook of a plugin's methods on a toy model, in seconds; exit 1 if one fails.

    Three tasks are trained for two steps each, handed on through a file, and drawn in one step, by the code that runs
    the benchmark. Functions that look like hooks but are none are warned of. `run` and `sweep` make the same check.
    """
    if not debug:
        fork_server()
    definition, chosen = load_suite(suite), settings_of(settings or [])
    if track:  # bad input is refused before the work
        definition.track(track)
    with debugging(debug), stdout_for_results(debug):
        names = list(load_plugin(plugin)) if debug else methods_in(plugin)
        for name in names:  # bad settings are refused before this process loads torch
            (get_method if debug else describe)(name, chosen, [plugin])
        import_harness()
        if not debug:
            fork_server(libraries=True)
        from clbench.runner import plugin_check
        from clbench.runner.monitor.events import output_line

        def show(event: dict[str, Any]) -> None:
            err.print(Text(output_line(event)), soft_wrap=True)

        with nullcontext() if debug else err.status("checking"):
            where: dict[str, Any] = {"suite": suite, "track": track, "device": device, "data_root": data_root}
            checks = [plugin_check.check(name, [plugin], settings=chosen, on_event=show, **where) for name in names]
    for one in checks:
        for warning in one.warnings:
            err.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
        if debug and one.error:
            print_traceback(one.error)
        if not as_json:
            out.print(Text(_verdict(one)), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([_row(one) for one in checks], indent=1))
    if any(one.error for one in checks):
        raise typer.Exit(1)


def _verdict(check: MethodCheck) -> str:
    """The line about a method."""
    if check.error:
        return f"{check.method}: fails: {check.error}"
    own = f"its own {', '.join(check.hooks)} and the inherited hooks" if check.hooks else "the inherited hooks"
    state = f"regime {check.regime}, {format_bytes(check.state_bytes[-1])} of state after task {check.tasks}"
    return f"{check.method}: passes: {own} on {check.tasks} tasks trained, handed on and drawn; {state}"


def _row(check: MethodCheck) -> dict[str, Any]:
    return {
        "method": check.method,
        "passes": check.error is None,
        "error": str(check.error) if check.error else None,
        "warnings": check.warnings,
        "own_hooks": check.hooks,
        "tasks": check.tasks,
        "regime": check.regime,
        "state_bytes": check.state_bytes,
        "state_sha256": check.state_sha256,
        "seconds": round(check.seconds, 2),
    }
