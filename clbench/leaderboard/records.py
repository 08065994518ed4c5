"""A track's board as plain data, for those who make tables of their own: one record a method, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from clbench.results.estimates import Measured
from clbench.results.schema import Result, Spread
from clbench.results.significance import Ranking
from clbench.results.summary import past_floor, spread
from clbench.results.verification import UNVERIFIED
from clbench.suite import Suite, Track

Record = dict[str, str | int | float | None]
WITH_INTERVAL = ("average_score", "average_forgetting")
"""Statistics whose interval is shown."""
CONTROLS = {
    "base model": "row 0",
    "last-task floor": "controls.last_task_floor",
    "real against real": "controls.real_against_real",
}
"""Control row -> what of the results it is made of."""


def records(
    track: Track, methods: Sequence[Measured], ranking: Ranking, verified: Sequence[str] | None = None
) -> list[Record]:
    """One flat record a method, in the board's order; a statistic that is not measured is None."""
    places = {standing.method: standing.rank for standing in ranking.standings}
    found = []
    for method, checked in zip(methods, verified or [UNVERIFIED] * len(methods), strict=True):
        result = method.result
        train, evaluation = seconds_a_task(result, track)
        record: Record = {"rank": places[method.name], "method": method.name}
        for metric in track.metrics:
            for statistic, own in result.summary[metric].items():
                record[f"{metric}.{statistic}.mean"] = own.mean if own else None
                record[f"{metric}.{statistic}.std"] = own.std if own else None
            for statistic in WITH_INTERVAL:
                figure = method.figure(metric, statistic)
                low, high = (figure and figure.interval) or (None, None)
                record |= {f"{metric}.{statistic}.ci_low": low, f"{metric}.{statistic}.ci_high": high}
        record |= {
            "runs": len(result.runs),
            "state_bytes": final_state_bytes(result),
            "regime": "+".join(sorted({run.regime for run in result.runs})),
            "train_seconds_a_task": train,
            "eval_seconds_a_task": evaluation,
            "verified": checked,
            "submitter": result.submitter,
            "source": result.place,
            "command": result.command,
        }
        found.append(record)
    return found


def control_scores(track: Track, methods: Sequence[Measured]) -> dict[str, dict[str, Spread | None]]:
    """Control -> metric -> its score over all results: what frames the methods."""

    def base(metric: str) -> list[float]:
        return [value for method in methods for value in method.values[metric]["base"].tolist()]

    def floor(metric: str) -> list[float]:
        return [value for method in methods for value in past_floor(method.result, metric, track)]

    def real(metric: str) -> list[float]:
        rows = (method.result.controls.real_against_real.get(metric, (np.nan,)) for method in methods)
        return [float(np.mean(row)) for row in rows]

    made = zip(CONTROLS, (base, floor, real), strict=True)
    return {name: {metric: spread(score(metric)) for metric in track.metrics} for name, score in made}


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
        "test": ranking.test,
        "correction": ranking.correction,
        "methods": list(rows),
        "pairs": pairs,
    }
    return json.dumps(board, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
