"""A track's board in the formats that other programs read: CSV, JSON and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import ranked_table
from clbench.leaderboard.tables import csv_text, to_latex
from clbench.results.analysis import Analysis
from clbench.results.per_task import error_over_orders, error_over_tasks, per_task


def board_csv(board: Board) -> str:
    """The records, then the control rows, which have scores only."""
    records = [*board.records, *board.control_records]
    names = list(dict.fromkeys(key for record in records for key in record))
    return csv_text(names, [[record.get(name) for name in names] for record in records])


def pairs_csv(board: Board) -> str:
    """The listed pairs of methods in every metric, with their differences, intervals and p values."""
    rows = []
    for metric, ranking in board.rankings.items():
        for pair in ranking.pairs:
            low, high = pair.interval or (None, None)
            tested = (pair.difference, low, high, pair.p, pair.p_corrected, pair.chance, pair.verdict)
            rows.append((metric, board.compared_by(metric), pair.better, pair.worse, *tested))
    names = "metric,statistic,better,worse,difference,ci_low,ci_high,p,p_corrected,better_on_a_new_order,verdict"
    return csv_text(names.split(","), rows)


def method_csv(method: Analysis) -> str:
    """Every figure of one method's page, a row each: statistics over the runs, their parts by task, mean scores.

    `task` is a task's name in the parts, and a place in the run's order in the mean scores.
    """
    rows: list[tuple[Any, ...]] = []
    for metric, summary in method.summary.items():
        for name in summary:
            estimate = method.estimate(metric, name)
            low, high = (estimate and estimate.interval) or (None, None)
            mean, std = (estimate.spread.mean, estimate.spread.std) if estimate else (None, None)
            errors = [error(method, metric, name) for error in (error_over_orders, error_over_tasks)]
            rows.append((metric, name, None, None, mean, std, low, high, *errors))
    for metric, matrix in method.means.items():
        for name, values in per_task(method, metric).items():
            rows += [
                (metric, name, None, task, value)
                for task, value in zip(method.track.task_names, values.tolist(), strict=True)
                if math.isfinite(value)
            ]
        rows += [
            (metric, "score", after, place + 1, float(matrix[after, place]))
            for after, place in zip(*np.nonzero(np.isfinite(matrix)), strict=True)
        ]
    names = ["metric", "figure", "after", "task", "mean", "std", "ci_low", "ci_high", "se_orders", "se_tasks"]
    return csv_text(names, [(*row, *[None] * (len(names) - len(row))) for row in rows])


def board_json(board: Board) -> str:
    """The records, and how sure their ranks are."""
    suite, ranking = board.suite, board.ranking
    content = {
        "suite": {"name": suite.name, "version": suite.version, "sha256": suite.sha256},
        "track": board.track.name,
        "ranked_by": f"{board.metrics[0].name}.{board.ranked_by}",
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
    ".pairs.csv": Format("CSV of pairs", pairs_csv),
    ".json": Format("JSON", board_json),
    ".tex": Format("LaTeX", board_latex),
}
"""Suffix -> format. A new format is one more entry here: `write_tables` and the site write and link to each of them."""
