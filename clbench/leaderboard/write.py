"""The boards as files: for every track a markdown page, and the same in each of `data.FORMATS`; a page for a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import pairs_table, published_table, study_table
from clbench.leaderboard.data import FORMATS
from clbench.leaderboard.overall import by_suite, overall, overall_table
from clbench.leaderboard.page import board_page, overall_page, study_page
from clbench.leaderboard.tables import to_csv
from clbench.scores import RANKED_BY
from clbench.utils.files import write_text


def write_tables(boards: Sequence[Board], out: Path) -> list[Path]:
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
        if board.published and board.printed:
            printed = published_table(board.published, board.track.name, board.methods)
            texts[folder / f"{board.track.name}.published.csv"] = to_csv(printed)
        if board.published:
            texts[folder / "prompt-study.csv"] = to_csv(study_table(board.published.prompt_study))
            texts[folder / "prompt-study.md"] = study_page(board.suite.name, board.published)
    for suite in by_suite(boards):
        if found := overall(suite):
            texts[out / found.suite.name / "overall.md"] = overall_page(found)
            texts[out / found.suite.name / "overall.csv"] = to_csv(overall_table(found))
            texts[out / found.suite.name / "overall.pairs.csv"] = to_csv(pairs_table(found.ranking, RANKED_BY))
    for path, text in texts.items():
        write_text(path, text)
    return sorted(texts, key=lambda path: path.with_suffix(""))
