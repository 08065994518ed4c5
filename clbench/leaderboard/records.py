"""A track's board as plain data, for those who make tables of their own: one record a method, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from clbench.leaderboard.rank import Ranking, bootstrap_intervals
from clbench.result import Result, Spread, past_floor, spread, statistics_of
from clbench.suite import Suite, Track
from clbench.verify import UNVERIFIED

Record = dict[str, str | int | float | None]
WITH_INTERVAL = ("average_score", "average_forgetting")
"""Statistics whose interval is shown."""


def records(
    track: Track, results: Sequence[Result], ranking: Ranking, verified: Sequence[str] | None = None
) -> list[Record]:
    """One flat record a method, in the board's order; a statistic that is not measured is None."""
    places = {standing.method: standing.rank for standing in ranking.standings}
    found = []
    for result, checked in zip(results, verified or [UNVERIFIED] * len(results), strict=True):
        train, evaluation = seconds_a_task(result, track)
        record: Record = {"rank": places[result.method.name], "method": result.method.name}
        for metric in track.metrics:
            for statistic, own in result.summary[metric].items():
                record[f"{metric}.{statistic}.mean"] = own.mean if own else None
                record[f"{metric}.{statistic}.std"] = own.std if own else None
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
    values = np.array([statistics_of(result.runs, result.controls, metric, track, [statistic])[statistic]])
    if not np.isfinite(values).all():
        return None
    low, high = bootstrap_intervals(values)[0].tolist()
    return low, high


def control_scores(track: Track, results: Sequence[Result]) -> dict[str, dict[str, Spread | None]]:
    """Control -> metric -> its score over all results: what frames the methods."""

    def base(metric: str) -> list[float]:
        return [float(run.matrix(metric)[0].mean()) for result in results for run in result.runs]

    def floor(metric: str) -> list[float]:
        return [value for result in results for value in past_floor(result, metric, track)]

    def real(metric: str) -> list[float]:
        rows = (result.controls.real_against_real.get(metric, (np.nan,)) for result in results)
        return [float(np.mean(row)) for row in rows]

    made = {"base model": base, "last-task floor": floor, "real against real": real}
    return {name: {metric: spread(score(metric)) for metric in track.metrics} for name, score in made.items()}


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
