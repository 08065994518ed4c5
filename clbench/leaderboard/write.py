"""The boards as files: for every track a markdown page, and the same in each of `data.FORMATS`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clbench.leaderboard.board import Board
from clbench.leaderboard.data import FORMATS
from clbench.leaderboard.page import board_page, study_page
from clbench.utils.files import write_text


def write_tables(boards: Iterable[Board], out: Path) -> list[Path]:
    """Write <out>/<suite>/<track>.md, and the same in every format; for a track without results, what was published.

    The same boards give the same bytes.

    Returns:
        The files written, by track.

    Raises:
        WorkFailed: a file cannot be written.
    """
    texts: dict[Path, str] = {}
    for board in boards:
        folder = out / board.suite.name
        if board.methods or board.printed:
            page = folder / f"{board.track.name}.md"
            texts[page] = board_page(board, page)
        if board.methods:
            texts |= {folder / f"{board.track.name}{suffix}": one.render(board) for suffix, one in FORMATS.items()}
        if board.published:
            texts[folder / "prompt-study.md"] = study_page(board.suite.name, board.published)
    for path, text in texts.items():
        write_text(path, text)
    return sorted(texts, key=lambda path: path.with_suffix(""))
