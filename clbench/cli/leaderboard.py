"""Commands that make the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from clbench.cli.options import BOARD, Json, app, out

if TYPE_CHECKING:
    from clbench.leaderboard import Board


@app.command(
    rich_help_panel=BOARD, epilog="Example: `clbench submit runs/mini-v2/styles/mine.json --submitter 'A. Lab'`"
)
def submit(
    result: Annotated[Path, typer.Argument(help="A complete, valid result file.")],
    submitter: Annotated[str, typer.Option(help="Who submits it.")],
    submissions: Annotated[Path, typer.Option(help="Folder of all submissions.")] = Path("submissions"),
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
    "`clbench leaderboard --site site`",
)
def leaderboard(
    submissions: Annotated[Path, typer.Option(help="Folder of submitted results.")] = Path("submissions"),
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("leaderboard"),
    samples: Annotated[Path, typer.Option(help="Folder of sample grids to embed.")] = Path("docs/samples"),
    site: Annotated[Path | None, typer.Option(help="Also a static site, in this folder: open its index.html.")] = None,
    as_json: Json = False,
) -> None:
    """Turn submissions into ranked tables (a page a suite and track, and the same as data), and into a site."""
    from clbench.leaderboard import write_tables
    from clbench.leaderboard.site import build_site

    boards = _boards(submissions, samples)
    paths = write_tables(boards, output)
    if site is not None:
        build_site(boards, site)
        paths.append(site / "index.html")
    if as_json:
        typer.echo(json.dumps([str(path) for path in paths]))
        return
    for path in paths:
        out.print(Text(f"wrote {path}"), soft_wrap=True)


def _boards(submissions: Path, samples: Path) -> list[Board]:
    """The boards of all submissions, with what was published and what maintainers found."""
    from clbench.leaderboard import make_boards, read_submissions
    from clbench.leaderboard.published import load_published
    from clbench.results.verification import read_verified

    verified = read_verified(submissions / "VERIFIED.json")
    methods = read_submissions(submissions)
    return make_boards(methods, samples=samples, published=load_published(), verified=verified)
