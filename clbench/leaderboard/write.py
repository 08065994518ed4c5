"""The boards as files: a page and the same as data for every track."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import ranked_table
from clbench.leaderboard.data import board_csv, board_json
from clbench.leaderboard.page import board_page, study_page
from clbench.leaderboard.tables import to_latex
from clbench.utils.files import write_text

FORMATS: dict[str, Callable[[Board, Path], str]] = {
    ".md": board_page,
    ".csv": lambda board, path: board_csv(board),
    ".json": lambda board, path: board_json(board),
    ".tex": lambda board, path: to_latex(ranked_table(board)),
}
"""Suffix -> function that renders a board as the content of that file. A new format is one more entry here; the site,
which has many pages a track, is `clbench.leaderboard.site`."""


def write_tables(boards: Iterable[Board], out: Path) -> list[Path]:
    """Write <out>/<suite>/<track> in every format for every track with results; for one without, what was published.

    The same boards give the same bytes.

    Returns:
        The files written, by track.

    Raises:
        WorkFailed: a file cannot be written.
    """
    texts: dict[Path, str] = {}
    for board in boards:
        folder = out / board.suite.name
        for suffix, render in FORMATS.items():
            path = folder / f"{board.track.name}{suffix}"
            if board.methods or (suffix == ".md" and board.printed):
                texts[path] = render(board, path)
        if board.published:
            texts[folder / "prompt-study.md"] = study_page(board.suite.name, board.published)
    for path, text in texts.items():
        write_text(path, text)
    return sorted(texts, key=lambda path: path.with_suffix(""))
