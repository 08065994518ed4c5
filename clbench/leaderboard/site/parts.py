"""Parts of the site's pages that are neither tables nor plots: verdicts on pairs, costs, and where a result is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from clbench.leaderboard.board import Board
from clbench.leaderboard.data import cost_figures
from clbench.leaderboard.site import heat
from clbench.leaderboard.site.heat import signed
from clbench.results.analysis import Analysis
from clbench.results.schema import Result
from clbench.results.significance import MOST_LISTED, Pair, Ranking
from clbench.scores import STATISTICS
from clbench.utils.formatting import format_bytes, format_figure, format_p_value, format_time


def wins(ranking: Ranking, statistic: str) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """(method, its mean difference to each method) with None on the diagonal, of the best by this ranking."""
    share = STATISTICS[statistic].unit == "share"
    names = [standing.method for standing in ranking.standings[:MOST_LISTED]]
    pairs = {(pair.better, pair.worse): pair for pair in ranking.pairs}
    most = max((abs(pair.difference) for pair in ranking.pairs), default=0.0)

    def cell(row: str, column: str) -> dict[str, Any] | None:
        if row == column:
            return None
        pair = pairs.get((row, column)) or pairs[column, row]
        difference = pair.difference if pair.better == row else -pair.difference
        shade = heat.difference_shade(difference, most)
        return {
            "text": signed(format_figure(difference, share, sign=True)),
            "css": shade.css if pair.separable else "",
            "separable": pair.separable,
        }

    return [(row, [cell(row, column) for column in names]) for row in names]


def verdict(board: Board, pair: Pair) -> str:
    """A sentence on whether two methods differ, by the board's ranking."""
    statistic = STATISTICS[board.ranked_by]

    def said_of(value: float) -> str:
        return signed(format_figure(value, statistic.unit == "share", sign=True))

    said = f"{pair.better} − {pair.worse}: {said_of(pair.difference)} in {board.metrics[0].label} {statistic.label}"
    if pair.interval is None or pair.p_corrected is None:
        return f"{said}; of a single order, no more can be said."
    low, high = map(said_of, pair.interval)
    verdict = f"{pair.better} is better" if pair.verdict == "better" else pair.verdict
    return f"{said}, 95 % interval {low} to {high}; corrected p {format_p_value(pair.p_corrected)}: {verdict}."


def costs(method: Analysis) -> list[tuple[str, str, str]]:
    """(cost, amount, remark) of the runs."""
    found = cost_figures(method)
    train, evaluation = (format_time(found[name] or 0) for name in ("train_seconds", "eval_seconds"))
    first = format_bytes(int(found["state_bytes_after_the_first_task"] or 0))
    peak = found["peak_memory_bytes"]
    return [
        ("Training", f"{method.train_seconds:.1f} s a task", f"{train} in all"),
        ("Evaluation", f"{method.eval_seconds:.1f} s a task", f"{evaluation} in all"),
        ("State after the last task", format_bytes(method.state_bytes), f"{first} after the first"),
        ("Peak memory", format_bytes(int(peak)) if peak else "not read", "on the device, the run where it is highest"),
        ("Trained values", f"{found['trainable_parameters']:,}", "by one task"),
    ]


def facts(result: Result) -> list[tuple[str, str]]:
    """Where a result comes from: every free text of a submission, as text, and its web addresses as links."""
    method, environment, submission = result.method, result.environment, result.submission
    found = [
        ("Submitted by", result.submitted_by or "not said"),
        ("Paper", _link(submission and submission.paper)),
        ("Code", _link(submission and submission.code)),
        ("Licence", (submission and submission.licence) or ""),
        ("Contact", (submission and submission.contact) or ""),
        ("Run ended", result.created_at.isoformat()),
        ("Method version", method.version),
        ("Method source", f"sha256 {method.source_sha256}"),
        ("Installed from", method.distribution or "a plugin file"),
        ("Configuration", _listed(method.config) or "none"),
        ("Suite", f"{result.suite.name} {result.suite.version}, sha256 {result.suite.sha256}"),
        ("Backbone", f"{result.backbone.id}, revision {result.backbone.revision}"),
        ("Settings", _listed(result.settings) or "none"),
        ("Packages", ", ".join(f"{name} {version or '?'}" for name, version in environment.packages.items())),
    ]
    found += [
        (name.replace("_", " ").capitalize(), str(value))
        for name, value in environment
        if name != "packages" and value is not None
    ]
    return [(name, value) for name, value in found if value]


def _link(address: str | None) -> str:
    """A link to an address that the schema accepted, which is of https."""
    return Markup('<a href="{0}" rel="noopener noreferrer nofollow">{0}</a>').format(address) if address else ""


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
