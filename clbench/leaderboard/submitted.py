"""The boards of all submissions, and whether boards can be built at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from clbench.errors import ClbenchError
from clbench.leaderboard.board import Board, make_boards
from clbench.leaderboard.published import load_published
from clbench.leaderboard.read import read_submissions
from clbench.leaderboard.site import build_site
from clbench.leaderboard.write import write_tables
from clbench.results.analysis import Analysis
from clbench.results.verification import read_verified

VERIFIED = "VERIFIED.json"
"""The maintainers' file beside the submissions."""


def submitted_boards(submissions: Path, samples: Path, new: tuple[Path, Analysis] | None = None) -> list[Board]:
    """The boards of all submissions, with what was published and what maintainers found.

    Where there is a maintainers' file, only the results that it says are verified are ranked.

    Args:
        submissions, samples: the folders of results and of sample grids.
        new: a result and its place, which it takes among the submissions before it is filed.

    Raises:
        ClbenchError: a submission or the maintainers' file is invalid, or `new` is a copy of a submission.
    """
    verified = read_verified(submissions / VERIFIED)
    methods = read_submissions(submissions, new=new)
    alone = (submissions / VERIFIED).is_file()
    published = load_published()
    return make_boards(methods, samples=samples, published=published, verified=verified, verified_alone=alone)


def try_boards(boards: Sequence[Board]) -> None:
    """Build tables and site in a temporary folder.

    Raises:
        ClbenchError: they cannot be built.
    """
    with TemporaryDirectory() as folder:
        try:
            write_tables(boards, Path(folder) / "leaderboard")
            build_site(boards, Path(folder) / "site")
        except Exception as error:  # a result that was valid must not stop every later board
            raise ClbenchError(f"the board cannot be built with it: {type(error).__name__}: {error}") from error
