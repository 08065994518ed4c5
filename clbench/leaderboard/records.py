"""A track's board as plain data, for those who make tables of their own: one record a method, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from clbench.leaderboard.rank import Ranking, bootstrap_intervals
from clbench.result import Result, floor_row
from clbench.scores import STATISTICS
from clbench.suite import Suite, Track

Record = dict[str, str | int | float | None]
WITH_INTERVAL = ("average_score", "average_forgetting")
"""Statistics whose interval is shown."""


def records(
    track: Track, results: Sequence[Result], ranking: Ranking, verified: Sequence[str] | None = None
) -> list[Record]:
    """One flat record a method, in the board's order; a statistic that is not measured is None."""
    places = {standing.method: standing.rank for standing in ranking.standings}
    found = []
    for result, checked in zip(results, verified or ["unverified"] * len(results), strict=True):
        train, evaluation = seconds_a_task(result, track)
        record: Record = {"rank": places[result.method.name], "method": result.method.name}
        for metric in track.metrics:
            for statistic, spread in result.summary[metric].items():
                record[f"{metric}.{statistic}.mean"] = spread.mean if spread else None
                record[f"{metric}.{statistic}.std"] = spread.std if spread else None
            for statistic in WITH_INTERVAL:
                low, high = interval(result, track, metric, statistic) or (None, None)
                record |= {f"{metric}.{statistic}.ci_low": low, f"{metric}.{statistic}.ci_high": high}
        record |= {
            "runs": len(result.runs),
            "state_bytes": final_state_bytes(result),
            "regime": "+".join(sorted({run.regime for run in result.runs})),
            "train_seconds_a_task": train,
            "eval_seconds_a_task": evaluation,
            "verified": checked,
            "submitter": result.submitter,
            "command": result.command,
        }
        found.append(record)
    return found


def interval(result: Result, track: Track, metric: str, statistic: str) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of a statistic's mean, resampling runs; None where a run has no value."""
    runs = [(run.matrix(metric), floor_row(result.controls, metric, run, track)) for run in result.runs]
    values = np.array([[STATISTICS[statistic](*run) for run in runs]])
    if not np.isfinite(values).all():
        return None
    low, high = bootstrap_intervals(values)[0].tolist()
    return low, high


def seconds_a_task(result: Result, track: Track) -> tuple[float, float]:
    """Mean seconds of training and of evaluation."""
    tasks = len(result.runs) * len(track.tasks)
    return sum(run.train_seconds for run in result.runs) / tasks, sum(run.eval_seconds for run in result.runs) / tasks


def final_state_bytes(result: Result) -> int:
    """What is handed on after the last task, in the run where that is most."""
    return max(run.state_bytes[-1] for run in result.runs)


def to_csv(rows: Sequence[Record]) -> str:
    """Comma-separated values with a heading; text that a spreadsheet would take for a formula is quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _no_formula(value) for key, value in row.items()})
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def to_json(suite: Suite, track: Track, rows: Sequence[Record], ranking: Ranking) -> str:
    """The records, and how sure their ranks are."""
    pairs = [
        {
            "better": pair.better,
            "worse": pair.worse,
            "difference": pair.difference,
            "interval_95": pair.interval,
            "interval_95_over_orders": pair.order_interval,
            "p": pair.p,
            "p_corrected": pair.p_corrected,
            "separable": pair.separable,
        }
        for pair in ranking.pairs
    ]
    board = {
        "suite": {"name": suite.name, "version": suite.version, "sha256": suite.sha256},
        "track": track.name,
        "ranked_by": f"{track.metrics[0]}.average_score",
        "bootstrap_seed": ranking.bootstrap_seed,
        "correction": ranking.correction,
        "methods": list(rows),
        "pairs": pairs,
    }
    return json.dumps(board, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
