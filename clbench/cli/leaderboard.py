"""Commands that make the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from clbench.cli.options import BOARD, Json, ResultSuite, app, err, out
from clbench.results.find import FOLDER
from clbench.suite import Suite, load_suite

if TYPE_CHECKING:
    from clbench.leaderboard import Board

VERIFIED = "VERIFIED.json"
"""The maintainers' file beside the submissions."""


@app.command(
    rich_help_panel=BOARD, epilog="Example: `clbench submit runs/mini-v2/styles/mine.json --submitter 'A. Lab'`"
)
def submit(
    result: Annotated[Path, typer.Argument(help="A complete, valid result file.")],
    submitter: Annotated[str, typer.Option(help="Who submits it.")],
    submissions: Annotated[Path, typer.Option(help="Folder of all submissions.")] = Path(FOLDER),
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there.")] = False,
    board: Annotated[
        Path | None, typer.Option("--leaderboard", help="Folder of the tables; default beside the submissions.")
    ] = None,
    samples: Annotated[Path, typer.Option(help="Folder of sample grids to embed.")] = Path("docs/samples"),
) -> None:
    """Check a result, file it as `submissions/<suite>/<track>/<variant>.json`, and rebuild the tables."""
    from clbench.leaderboard import write_tables
    from clbench.results import submission

    place, filed = submission.submit(result, submitter, submissions, replace)
    out.print(Text(f"filed as {place}"), soft_wrap=True)
    board = board or submissions.parent / "leaderboard"
    written = write_tables(_boards(submissions, samples), board)
    out.print(Text(f"rebuilt {len(written)} files under {board}"), soft_wrap=True)
    for line in ("", *submission.next_steps(place, filed, written)):
        out.print(Text(line), soft_wrap=True)


@app.command(
    rich_help_panel=BOARD,
    epilog="Examples:\n\n`clbench leaderboard --submissions submissions --output leaderboard`\n\n"
    "`clbench leaderboard --site site`\n\n"
    "`clbench leaderboard --submissions runs --with submissions`",
)
def leaderboard(
    submissions: Annotated[
        Path, typer.Option(help="Folder of submitted results, or one that your own runs wrote, such as `runs`.")
    ] = Path(FOLDER),
    beside: Annotated[
        Path | None, typer.Option("--with", help="Rank your own results among those of this folder of submissions.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the tables; default `leaderboard`, of your own results `<submissions>/leaderboard`."
        ),
    ] = None,
    samples: Annotated[Path, typer.Option(help="Folder of sample grids to embed.")] = Path("docs/samples"),
    site: Annotated[Path | None, typer.Option(help="Also a static site, in this folder: open its index.html.")] = None,
    suite: ResultSuite = None,
    as_json: Json = False,
) -> None:
    """Turn results into ranked tables (a page a suite and track, and the same as data), and into a site.

    A folder that is not called `submissions` holds your own results: partial ones are shown too, without a rank.
    """
    from clbench.leaderboard import write_tables
    from clbench.leaderboard.site import build_site
    from clbench.results.table import result_table

    own = FOLDER not in submissions.parts
    boards = _own_boards(submissions, beside, samples, suite) if own else _boards(submissions, samples)
    paths = write_tables(boards, output or (submissions / "leaderboard" if own else Path("leaderboard")))
    if site is not None:
        build_site(boards, site)
        paths.append(site / "index.html")
    if as_json:
        typer.echo(json.dumps([str(path) for path in paths]))
        return
    for board in boards if own else ():
        out.print(Text(f"{board.suite.name}, {board.track.name}: best first", style="bold"))
        out.print(result_table(*(method.result for method in board.methods)))
    for path in paths:
        out.print(Text(f"wrote {path}"), soft_wrap=True)


def _boards(submissions: Path, samples: Path) -> list[Board]:
    """The boards of all submissions, with what was published and what maintainers found."""
    from clbench.leaderboard import make_boards, read_submissions
    from clbench.leaderboard.published import load_published
    from clbench.results.verification import read_verified

    verified = read_verified(submissions / VERIFIED)
    methods = read_submissions(submissions)
    return make_boards(methods, samples=samples, published=load_published(), verified=verified)


def _own_boards(runs: Path, submissions: Path | None, samples: Path, suite: str | None) -> list[Board]:
    """Boards of one's own results, each among the submissions to the same track, if they are given."""
    from clbench.leaderboard import make_boards, read_own, read_submissions
    from clbench.results.verification import read_verified

    def load(name: str) -> Suite:
        """One's own suite is no registered one."""
        return own if own and own.name == name else load_suite(name)

    own = load_suite(suite) if suite else None
    methods = {method.result.place: method for method in read_own(runs, load)}
    places = {(method.result.suite.name, method.track.name) for method in methods.values()}
    for method in read_submissions(submissions) if submissions else ():
        if method.result.place in methods:
            err.print(Text(f"{runs / method.result.place} stands in place of the submission", "yellow"), soft_wrap=True)
        elif (method.result.suite.name, method.track.name) in places:
            methods[method.result.place] = method
    verified = read_verified(submissions / VERIFIED) if submissions else {}
    boards = make_boards(methods.values(), load=load, samples=samples, verified=verified)
    return [board for board in boards if board.methods]
