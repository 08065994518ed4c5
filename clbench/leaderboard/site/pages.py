"""The pages of the site, each from one track's board. Every text of a submission meets a template, which escapes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clbench.leaderboard.build import SHARES_SAY, pairs_table
from clbench.leaderboard.published import Published, published_table, study_table
from clbench.leaderboard.records import Record, control_scores, final_state_bytes, records, seconds_a_task
from clbench.leaderboard.site import heat, plots, table
from clbench.leaderboard.tables import Cell, to_html
from clbench.metrics import METRICS
from clbench.results.compare import COMPARED
from clbench.results.estimates import Measured, measure, rankings
from clbench.results.schema import Result
from clbench.results.significance import ALPHA, MOST_LISTED, Pair, Ranking
from clbench.results.summary import matrices_of
from clbench.results.verification import UNVERIFIED
from clbench.scores import SHARES, STATISTICS
from clbench.suite import Suite, Track
from clbench.utils.formatting import format_bytes, format_p_value, format_time


@dataclass(frozen=True)
class Board:
    """One track: what was measured on it, best first, and what was published."""

    suite: Suite
    track_name: str
    methods: tuple[Measured, ...]
    rankings: Mapping[str, Ranking]
    """Metric -> its ranking; empty where nothing was submitted."""
    published: Published | None
    verification: Mapping[str, str]
    """Method -> its level, of those that somebody checked."""

    @property
    def track(self) -> Track:
        return self.suite.track(self.track_name)

    @property
    def results(self) -> list[Result]:
        return [method.result for method in self.methods]

    @property
    def folder(self) -> str:
        """Of its pages, below the site's root; both names are checked to be safe in a path and in a link."""
        return f"{self.suite.name}/{self.track_name}"

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Of the track, as the templates' metric switch wants them."""
        return [
            {"index": index, "id": metric, "info": METRICS[metric]} for index, metric in enumerate(self.track.metrics)
        ]

    @cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Metric -> the scale on which all of the track's heatmaps are shaded."""
        return {
            metric: heat.scale([matrices_of(result.runs, metric) for result in self.results])
            for metric in self.track.metrics
        }

    @cached_property
    def records(self) -> list[Record]:
        """The same as data."""
        ranking = self.rankings[self.track.metrics[0]]
        return records(self.track, self.methods, ranking, [self.level(method) for method in self.methods])

    @cached_property
    def views(self) -> list[dict[str, Any]]:
        """Metric by metric, the plots and what they rest on."""
        styles = plots.series([method.name for method in self.methods])
        return [
            {
                **metric,
                "scatter": plots.scatter(self.methods, styles, metric["id"]),
                "retention": plots.retention(self.methods, styles, metric["id"]),
                "ranks": plots.ranks(self.methods, styles, metric["id"], ranking),
                "wins": _wins(ranking),
                "ranking": ranking,
                "more": len(ranking.standings) - MOST_LISTED,
                "pairs": pairs_table(ranking),
                "inseparable": [pair for pair in ranking.pairs if not pair.separable],
            }
            for metric, ranking in zip(self.metrics, self.rankings.values(), strict=False)
        ]

    def level(self, method: Measured) -> str:
        return self.verification.get(method.name, UNVERIFIED)


def make_board(
    suite: Suite,
    track_name: str,
    results: Sequence[Result],
    published: Published | None,
    verification: Mapping[str, str],
) -> Board:
    track = suite.track(track_name)
    measured = tuple(measure(result, track) for result in results)
    return Board(suite, track_name, measured, rankings(track, results) if results else {}, published, verification)


# --- Pages ---


def board_page(board: Board, boards: Sequence[Board], root: str) -> str:
    """The ranked table, the plots and what was published; `root` leads from the page to the site's root."""
    columns = table.headings(board.track)
    controls = control_scores(board.track, board.methods) if board.methods else {}
    return _render(
        "board.html",
        board,
        boards,
        root,
        columns=columns,
        rows=table.rows(board.track, board.methods, board.rankings[board.track.metrics[0]], board.level)
        if board.methods
        else (),
        controls={name: table.control_values(columns, name, controls) for name in controls},
        styles=plots.series([method.name for method in board.methods]),
        views=board.views,
        alpha=ALPHA,
        shares=SHARES_SAY,
        printed=published_table(board.published, board.track_name)
        if board.published and board.track_name in board.published.tracks
        else None,
    )


def method_page(
    board: Board, boards: Sequence[Board], root: str, method: Measured, about: str, grid: str | None
) -> str:
    """One method on one track; `grid` is the link to its sample grid, where there is one."""
    result, track = method.result, board.track
    train, evaluation = seconds_a_task(result, track)
    peaks = [run.peak_memory_bytes for run in result.runs if run.peak_memory_bytes is not None]
    views = [
        {
            **metric,
            "mean": heat.score_heat(
                method.means[metric["id"]],
                f"{metric['info'].label}, mean over {counted(len(result.runs), 'run')}, tasks by their place in a run",
                board.bounds[metric["id"]],
            ),
            "runs": [
                (
                    f"Order {run.order}, seed {run.seed}",
                    heat.score_heat(
                        run.matrix(metric["id"]),
                        f"{metric['info'].label}, order {run.order}, seed {run.seed}",
                        board.bounds[metric["id"]],
                        run.task_order,
                    ),
                )
                for run in result.runs
            ],
            "bounds": [table.three(bound) for bound in board.bounds[metric["id"]]],
            "panels": plots.panels(method.means[metric["id"]]),
            "figures": [
                (_words(name), _figure(method, metric["id"], name))
                for name in STATISTICS
                if name in result.summary[metric["id"]]
            ],
        }
        for metric in board.metrics
    ]
    costs = [
        ("Training", f"{train:.1f} s a task", f"{format_time(sum(run.train_seconds for run in result.runs))} in all"),
        (
            "Evaluation",
            f"{evaluation:.1f} s a task",
            f"{format_time(sum(run.eval_seconds for run in result.runs))} in all",
        ),
        (
            "State after the last task",
            format_bytes(final_state_bytes(result)),
            f"{format_bytes(max(run.state_bytes[0] for run in result.runs))} after the first",
        ),
        (
            "Peak memory",
            format_bytes(max(peaks)) if peaks else "not read",
            "on the device, the run where it is highest",
        ),
        ("Trained values", f"{max(run.trainable_parameters for run in result.runs):,}", "by one task"),
    ]
    return _render(
        "method.html",
        board,
        boards,
        root,
        method=method,
        about=about,
        grid=grid,
        rank=next((s.rank for s in board.rankings[track.metrics[0]].standings if s.method == method.name), "–"),
        level=board.level(method),
        views=views,
        costs=costs,
        facts=_facts(result),
    )


def compare_page(board: Board, boards: Sequence[Board], root: str) -> str:
    """Two methods side by side: the first two as written, any two by the script, from the numbers it carries."""
    left, right = board.methods[:2]
    ranking = board.rankings[board.track.metrics[0]]
    most = {metric: heat.widest([method.means[metric] for method in board.methods]) for metric in board.track.metrics}
    views = [
        {
            **metric,
            "left": heat.score_heat(left.means[metric["id"]], left.name, board.bounds[metric["id"]]),
            "right": heat.score_heat(right.means[metric["id"]], right.name, board.bounds[metric["id"]]),
            "difference": heat.difference_heat(
                left.means[metric["id"]],
                right.means[metric["id"]],
                f"{left.name} minus {right.name}",
                most[metric["id"]],
            ),
            "figures": [
                (_words(name), *(_figure(method, metric["id"], name) for method in (left, right))) for name in COMPARED
            ],
            "bounds": [table.three(bound) for bound in board.bounds[metric["id"]]],
            "most": table.three(most[metric["id"]]),
        }
        for metric in board.metrics
    ]
    data = {
        "scales": [[*board.bounds[metric], most[metric]] for metric in board.track.metrics],
        "methods": {
            method.name: {
                "matrices": [heat.cells(method.means[metric]) for metric in board.track.metrics],
                "figures": [
                    [[cell.text, cell.deviation] for cell in (_figure(method, metric, name) for name in COMPARED)]
                    for metric in board.track.metrics
                ],
            }
            for method in board.methods
        },
        "verdicts": {f"{pair.better} {pair.worse}": _verdict(board, ranking, pair) for pair in ranking.pairs},
    }
    return _render(
        "compare.html",
        board,
        boards,
        root,
        left=left,
        right=right,
        views=views,
        verdict=next(
            (
                _verdict(board, ranking, pair)
                for pair in ranking.pairs
                if {pair.better, pair.worse} == {left.name, right.name}
            ),
            "",
        ),
        data=data,
    )


def study_page(board: Board, boards: Sequence[Board], root: str) -> str:
    """The paper's prompt study, as printed."""
    assert board.published is not None
    return _render("study.html", board, boards, root, study=study_table(board.published.prompt_study))


def empty_page() -> str:
    """The front page of a site with no boards."""
    return _environment().get_template("empty.html").render(root="", boards=(), board=None)


def _render(name: str, board: Board, boards: Sequence[Board], root: str, **values: Any) -> str:
    first_of: dict[str, Board] = {}
    for other in boards:
        first_of.setdefault(other.suite.name, other)
    return (
        _environment()
        .get_template(name)
        .render(
            board=board,
            suite=board.suite,
            track=board.track,
            metrics=board.metrics,
            root=root,
            here=f"{root}{board.folder}/",
            suites=list(first_of.values()),
            siblings=[other for other in boards if other.suite.name == board.suite.name],
            runs=len(board.suite.runs(board.track.name)),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["html"] = to_html
    environment.filters["shaded"] = lambda cells: Markup("".join(map(_shaded, cells)))
    return environment


# --- Parts ---


@cache  # three thousand cells a page would take most of its time in the template
def _shaded(cell: heat.Shade) -> Markup:
    return Markup('<td class="{}">{}</td>' if cell.css else "<td>{1}</td>").format(cell.css, cell.text)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _figure(method: Measured, metric: str, statistic: str) -> Cell:
    show = table.percent if statistic in SHARES else table.three
    return table.score(method.figure(metric, statistic), show)


def _words(statistic: str) -> str:
    return {"average_forgetting_ref": "average forgetting, over all tasks", "base": "base model's score"}.get(
        statistic, statistic.replace("_", " ")
    )


def _wins(ranking: Ranking) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """(method, its mean difference to each method) with None on the diagonal, of the best by this ranking."""
    names = [standing.method for standing in ranking.standings[:MOST_LISTED]]
    pairs = {(pair.better, pair.worse): pair for pair in ranking.pairs}
    most = max((pair.difference for pair in ranking.pairs), default=0.0)

    def cell(row: str, column: str) -> dict[str, Any] | None:
        if row == column:
            return None
        pair = pairs.get((row, column)) or pairs[column, row]
        difference = pair.difference if pair.better == row else -pair.difference
        shade = heat.difference_shade(difference, most)
        return {
            "text": _signed_three(difference),
            "css": shade.css if pair.separable else "",
            "separable": pair.separable,
        }

    return [(row, [cell(row, column) for column in names]) for row in names]


def _signed_three(value: float) -> str:
    return heat.signed(f"{value:+.3f}")


def _verdict(board: Board, ranking: Ranking, pair: Pair) -> str:
    low, high = (_signed_three(bound) for bound in pair.interval)
    sure = "separable" if pair.separable else f"not separable with {counted(ranking.runs, 'run')}"
    label = METRICS[board.track.metrics[0]].label
    return (
        f"{pair.better} − {pair.worse}: {_signed_three(pair.difference)} in {label} score, "
        f"95 % interval {low} to {high}; corrected p {format_p_value(pair.p_corrected)}: {sure}."
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    """Where a result comes from: every free text of a submission, as text."""
    method, environment = result.method, result.environment
    facts = [
        ("Submitted by", result.submitter or "not said"),
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
    facts += [
        (name.replace("_", " ").capitalize(), str(value))
        for name, value in environment
        if name != "packages" and value is not None
    ]
    return [(name, value) for name, value in facts if value]


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
