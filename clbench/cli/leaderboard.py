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


@app.command(
    rich_help_panel=BOARD,
    epilog="Example: `clbench submit runs/mini-v2/styles/merge_init.json --submitter 'A. Lab'`",
)
def submit(
    result: Annotated[Path, typer.Argument(help="A complete, valid result file.")],
    submitter: Annotated[str, typer.Option(help="Who submits it.")],
    paper: Annotated[str | None, typer.Option(help="Page that describes the method, https://...")] = None,
    code: Annotated[str | None, typer.Option(help="Where the method's source is, https://...")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of that source, such as `Apache-2.0`.")] = None,
    contact: Annotated[str | None, typer.Option(help="Whom to ask; it is published.")] = None,
    submissions: Annotated[Path, typer.Option(help="Folder of all submissions.")] = Path(FOLDER),
    samples: Annotated[Path, typer.Option(help="Folder of sample grids.")] = Path("docs/samples"),
) -> None:
    """Check a result, file it as `submissions/<suite>/<track>/<variant>.json`, and say how to send it.

    Where that variant was submitted before, with the same source and settings, the result is filed beside it, and the
    boards show the mean. Another source or other settings are another variant, with a name of its own.

    Methods that are not in `methods/` need --paper, --code, --licence and --contact. The tables are rebuilt after the
    merge; `clbench leaderboard --output build/board` shows them with the result in them.
    """
    from clbench.leaderboard.submitted import submitted_boards, try_boards
    from clbench.results import submission
    from clbench.results.io import save_result

    by = submission.submission_of(submitter=submitter, paper=paper, code=code, licence=licence, contact=contact)
    place, new = submission.prepare(result, by, submissions)
    boards = submitted_boards(submissions, samples, (place, new))
    try_boards([board for board in boards if (board.suite.name, board.track) == (new.result.suite.name, new.track)])
    save_result(new.result, place)
    out.print(Text(f"filed as {place}"), soft_wrap=True)
    for line in ("", *submission.next_steps(new.result, place, submissions, samples)):
        out.print(Text(line), soft_wrap=True)


@app.command("check-submission", rich_help_panel=BOARD, epilog="Example: `clbench check-submission origin/main HEAD`")
def check_submission(
    base: Annotated[str, typer.Argument(help="The branch or commit that is merged into.")],
    head: Annotated[str, typer.Argument(help="The branch or commit of the request.")],
    repository: Annotated[Path, typer.Option(help="The git repository.")] = Path("."),
) -> None:
    """Check what a pull request would merge: results and their sample grids, and nothing else; exit 0 if it may be.

    Nothing of the request is checked out or run. The project's workflow runs this with the base branch's code.
    """
    from clbench.leaderboard.request import MOST_LISTED, check_request

    verdict = check_request(repository, base, head)
    for problem in verdict.problems[:MOST_LISTED]:
        out.print(Text(f"- {problem}"), soft_wrap=True)
    if verdict.problems:
        if more := len(verdict.problems[MOST_LISTED:]):
            out.print(f"- and {more} more")
        out.print(Text("the request is refused", "red"))
        raise typer.Exit(2)
    for place in verdict.results:
        out.print(Text(f"- {place}"), soft_wrap=True)
    out.print(Text("the request brings valid results and nothing else", "green"))


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
    from clbench.leaderboard.submitted import submitted_boards
    from clbench.results.table import result_table

    own = FOLDER not in submissions.parts
    boards = _own_boards(submissions, beside, samples, suite) if own else submitted_boards(submissions, samples)
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


def _own_boards(runs: Path, submissions: Path | None, samples: Path, suite: str | None) -> list[Board]:
    """Boards of one's own results, each among the submissions to the same track, if they are given."""
    from clbench.leaderboard import make_boards, read_own, read_submissions
    from clbench.leaderboard.submitted import VERIFIED
    from clbench.results.verification import read_verified

    def load(name: str) -> Suite:
        """One's own suite is no registered one."""
        return own if own and own.name == name else load_suite(name)

    own = load_suite(suite) if suite else None
    methods = read_own(runs, load)
    taken = {method.result.place for method in methods}
    tracks = {(method.result.suite.name, method.track.name) for method in methods}
    for method in read_submissions(submissions) if submissions else ():
        if method.result.place in taken:
            err.print(Text(f"{runs / method.result.place} stands in place of the submission", "yellow"), soft_wrap=True)
        elif (method.result.suite.name, method.track.name) in tracks:
            methods.append(method)
    verified = read_verified(submissions / VERIFIED) if submissions else {}
    boards = make_boards(methods, load=load, samples=samples, verified=verified)
    return [board for board in boards if board.methods]
