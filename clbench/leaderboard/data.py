"""A track's board in the formats that other programs read: CSV, JSON and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import ranked_table
from clbench.leaderboard.tables import csv_lines, csv_text, to_latex
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
        statistic = board.compared_by(metric)
        for pair in ranking.pairs:
            low, high = pair.interval or (None, None)
            tested = (pair.difference, low, high, pair.p, pair.p_corrected, pair.chance, pair.verdict)
            rows.append((metric, statistic, pair.better, pair.worse, *tested))
    names = "metric,statistic,better,worse,difference,ci_low,ci_high,p,p_corrected,better_on_a_new_order,verdict"
    return csv_text(names.split(","), rows)


def cost_figures(method: Analysis) -> dict[str, float | int | None]:
    """What the runs took; peak memory is None where no run could read it."""
    runs = method.result.runs
    return {
        "train_seconds_a_task": method.train_seconds,
        "train_seconds": sum(run.train_seconds for run in runs),
        "eval_seconds_a_task": method.eval_seconds,
        "eval_seconds": sum(run.eval_seconds for run in runs),
        "state_bytes": method.state_bytes,
        "state_bytes_after_the_first_task": max(run.state_bytes[0] for run in runs),
        "peak_memory_bytes": max(run.peak_memory_bytes or 0 for run in runs) or None,
        "trainable_parameters": max(run.trainable_parameters for run in runs),
    }


def method_csv(method: Analysis) -> str:
    """Every figure of one method's page, a row each: costs, statistics over the runs, their parts by task, all scores.

    `order` and `seed` are empty in what is over all runs. `task` is a task's name; in mean scores, where a column mixes
    tasks, it is a place in the order.
    """
    names = ["metric", "figure", "order", "seed", "after", "task", "mean"]
    names += ["std", "ci_low", "ci_high", "se_orders", "se_tasks"]
    over_runs, no_spread = (None, None), (None,) * 5
    costs = [(None, name, *over_runs, None, None, own, *no_spread) for name, own in cost_figures(method).items()]
    rows: list[tuple[Any, ...]] = []
    for metric, summary in method.summary.items():
        for name in summary:
            estimate = method.estimate(metric, name)
            low, high = (estimate and estimate.interval) or (None, None)
            mean, std = (estimate.spread.mean, estimate.spread.std) if estimate else (None, None)
            errors = [error(method, metric, name) for error in (error_over_orders, error_over_tasks)]
            rows.append((metric, name, *over_runs, None, None, mean, std, low, high, *errors))
    lines = [csv_text(names, [*costs, *rows])]
    for metric, matrices in method.matrices.items():
        for name, values in per_task(method, metric).items():
            tasks = zip(method.track.task_names, values.tolist(), strict=True)
            known = [(task, value, *no_spread) for task, value in tasks if math.isfinite(value)]
            lines.append(csv_lines((metric, name, *over_runs, None, *own) for own in known))
        places = [str(place + 1) for place in range(matrices.shape[2])]
        lines.append(_score_lines((metric, "score", *over_runs), method.means[metric], places))
        for run, matrix in zip(method.result.runs, matrices, strict=True):
            lines.append(_score_lines((metric, "score", run.order, run.seed), matrix, run.task_order))
    return "".join(lines)


def _score_lines(first: Sequence[Any], matrix: NDArray[np.float64], tasks: Sequence[str]) -> str:
    """A line of `method_csv` for each cell that was measured; `first` are the columns before `after`.

    A page has three thousand of them, and one by one `csv` would take most of the time of its file.
    """
    start, *names, _ = csv_lines([first, *zip(tasks, strict=True)]).split("\n")
    after, place = np.nonzero(np.isfinite(matrix))
    cells = zip(after.tolist(), place.tolist(), matrix[after, place].tolist(), strict=True)
    return "".join(f"{start},{row},{names[column]},{value!r},,,,,\n" for row, column, value in cells)


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
