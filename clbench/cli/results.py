"""Commands about result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from clbench.cli.options import (
    BOARD,
    RESULTS,
    Json,
    ResultSuite,
    app,
    complete_track,
    out,
)
from clbench.errors import ClbenchError
from clbench.results.find import find_result, known_names

if TYPE_CHECKING:
    from clbench.results.analysis import Analysis


NAMED = "A result file, or a variant's name, looked up in runs/ and then in submissions/."
TrackOfResult = Annotated[
    str | None,
    typer.Option("--track", help="The track, where a name was run on several.", autocompletion=complete_track),
]


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:\n\n`clbench show merge_init --track styles`\n\n"
    "`clbench show submissions/mini-v2/styles/merge_init.json --run 1`",
)
def show(
    results: Annotated[list[str], typer.Argument(help=NAMED, autocompletion=known_names)],
    run: Annotated[int | None, typer.Option(help="One run, counted from 1; default the mean over runs.")] = None,
    track: TrackOfResult = None,
    suite: ResultSuite = None,
    as_json: Json = False,
) -> None:
    """Show results: score matrices as heatmaps and the summary of each."""
    from clbench.cli.render import render_result
    from clbench.results.validation import known_suite

    found = _load(results, track, suite)
    if as_json:
        shown = {"variant", "method", "track", "summary", "partial"}
        records = [method.result.model_dump(mode="json", include=shown) for method in found]
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=1))
        return
    for method in found:
        render_result(method, known_suite(suite or method.result.suite.name), out, run=run)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:\n\n`clbench compare merge_init magmax naive --track styles`\n\n"
    "`clbench compare submissions/mini-v2/styles/magmax.json runs/mini-v2/styles/merge_init.json`",
)
def compare(
    results: Annotated[list[str], typer.Argument(help=NAMED, autocompletion=known_names)],
    track: TrackOfResult = None,
    suite: ResultSuite = None,
    as_json: Json = False,
) -> None:
    """Compare the first result with each other one, on the runs they share: every statistic, and the paired test.

    For two results, the difference of the score matrices too.
    """
    from clbench.cli.render import render_comparison
    from clbench.results.compare import compare_results

    if len(results) < 2:
        raise ClbenchError("compare takes two results or more, of one track")
    first, *others = _load(results, track, suite)
    comparisons = [compare_results(first, other) for other in others]
    if as_json:
        records = [comparison.as_json() for comparison in comparisons]
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=1))
        return
    for comparison in comparisons:
        render_comparison(comparison, out, matrices=len(comparisons) == 1)


def _load(names: list[str], track: str | None, suite: str | None) -> list[Analysis]:
    """Valid results, partial ones too."""
    from clbench.results.validation import known_suite, load_valid

    named = known_suite(suite).name if suite else None
    return [load_valid(find_result(name, track, named), suite, allow_partial=True) for name in names]


@app.command(rich_help_panel=BOARD, epilog="Example: `clbench validate submissions/mini-v2/*/*.json`")
def validate(
    files: Annotated[list[Path], typer.Argument(help="Result files.")],
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept a part of the protocol's runs.")
    ] = False,
    suite: ResultSuite = None,
    as_json: Json = False,
) -> None:
    """Check result files; exit 0 only if every one is valid."""
    from clbench.results.validation import check_files

    found_in = check_files(files, suite, allow_partial=allow_partial)
    verdicts = dict(zip(map(str, files), found_in, strict=True))
    invalid = sum(bool(found) for found in verdicts.values())
    if as_json:
        rows = {name: [vars(finding) for finding in found] for name, found in verdicts.items()}
        typer.echo(json.dumps(rows, indent=1))
    else:
        for name, found in verdicts.items():
            for finding in found:
                out.print(Text(f"{name}: {finding.code} {finding.message}"), soft_wrap=True)
            if len(files) == 1 or found:
                out.print(Text(f"{name}: {'invalid' if found else 'valid'}"), soft_wrap=True)
        if len(files) > 1:
            out.print(Text(f"{len(files) - invalid} of {len(files)} files are valid", "red" if invalid else "green"))
    if invalid:
        raise typer.Exit(2)
