"""A track's board in the formats that other programs read: CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import ranked_table
from clbench.leaderboard.tables import to_latex
from clbench.scores import RANKED_BY


def board_csv(board: Board) -> str:
    """Comma-separated values with a heading; text that a spreadsheet would take for a formula is quoted."""
    text = io.StringIO()
    names = list(dict.fromkeys(key for record in board.records for key in record))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for record in board.records:
        writer.writerow({key: _no_formula(value) for key, value in record.items()})
    return text.getvalue()


_FORMULA = re.compile(r"""(^|[;\t])(?=["'\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r])""")
"""Where a spreadsheet would see a formula begin, with full-width signs too, and where `;` or tab separates cells."""


def _no_formula(value: Any) -> Any:
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def board_json(board: Board) -> str:
    """The records, and how sure their ranks are."""
    suite, ranking = board.suite, board.ranking
    content = {
        "suite": {"name": suite.name, "version": suite.version, "sha256": suite.sha256},
        "track": board.track.name,
        "ranked_by": f"{board.metrics[0].name}.{RANKED_BY}",
        "orders": ranking.orders,
        "test": ranking.test,
        "margin": ranking.margin,
        "methods": board.records,
        "pairs": [
            {
                "better": pair.better,
                "worse": pair.worse,
                "difference": pair.difference,
                "interval_95": pair.interval,
                "p": pair.p,
                "p_corrected": pair.p_corrected,
                "better_on_a_new_order": pair.chance,
                "verdict": pair.verdict,
            }
            for pair in ranking.pairs
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def board_latex(board: Board) -> str:
    """The ranked table."""
    return to_latex(ranked_table(board))


@dataclass(frozen=True)
class Format:
    """One format of a board's file."""

    label: str
    """What links to such files are called."""
    render: Callable[[Board], str]
    """Makes the content of the file; the board has methods."""


FORMATS: dict[str, Format] = {
    ".csv": Format("CSV", board_csv),
    ".json": Format("JSON", board_json),
    ".tex": Format("LaTeX", board_latex),
}
"""Suffix -> format. A new format is one more entry here: `write_tables` and the site write and link to each of them."""
