"""The tables of a board, whatever the format: ranked methods, pairs of methods, and what the paper printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from clbench.leaderboard.board import Board
from clbench.leaderboard.published import Printed, PromptStudy, Published
from clbench.leaderboard.tables import BLANK, Cell, Column, Table
from clbench.metrics import METRICS, Metric
from clbench.results.analysis import CONTROLS, EQUIVALENT, Analysis, Control
from clbench.results.baselines import PLAIN_TRAINING
from clbench.results.per_task import error_over_orders, error_over_tasks, per_task
from clbench.results.schema import Spread
from clbench.results.significance import Pair, Ranking
from clbench.scores import INSTEAD, STATISTICS, Statistic
from clbench.utils.formatting import format_bytes, format_chance, format_figure, format_p_value, format_percent


@dataclass(frozen=True)
class Fact:
    """A column of a board that is about no metric."""

    heading: str
    description: str
    field: str
    """The field of the result that it is read from."""
    text: Callable[[Any], str] = str
    """Makes a cell's text of its value, if that is not None."""
    align: Literal["left", "right"] = "right"
    value: Callable[[Board, Analysis], Any] | None = None
    """Gives its value; None: the `Analysis` has it, under the field's name."""

    def cell(self, board: Board, method: Analysis) -> Cell:
        value = self.value(board, method) if self.value else getattr(method, self.field)
        source = f"{self.field} of {method.result.place}"
        if value is None:
            return replace(BLANK, source=source)
        return Cell(self.text(value), round(value, 3) if isinstance(value, float) else value, source=source)


_SECONDS, _MULTIPLE = "{:.1f}".format, "{:.2f}".format
FACTS = (
    Fact("Tuning", "where the settings come from", "tuning", align="left"),
    Fact("State", "what is handed on after the last task", "state_bytes", format_bytes),
    Fact("Regime", "what that state is", "regime", align="left"),
    Fact("Passes", "training passes, in multiples of the suite's own training", "training_passes", _MULTIPLE),
    Fact("Train s/task", "mean seconds of training a task, on the result's machine", "train_seconds", _SECONDS),
    Fact(
        "Train ×",
        f"the method's training time, in multiples of {PLAIN_TRAINING}'s, measured apart",
        "record.json",
        _MULTIPLE,
        value=Board.training_multiple,
    ),
    Fact("Eval s/task", "mean seconds of evaluation a task, on the result's machine", "eval_seconds", _SECONDS),
    Fact(
        "Verified",
        "how far somebody else has checked the numbers",
        "VERIFIED.json",
        align="left",
        value=Board.level,
    ),
)


def heading(metric: Metric, statistic: Statistic) -> str:
    """Such as "CSD score ↑"; the arrow says what is better, where that is marked."""
    return f"{metric.label} {statistic.label} {statistic.arrow(metric.higher_is_better)}".rstrip()


@lru_cache(16)  # a page, LaTeX and the site show the same table
def ranked_table(board: Board) -> Table:
    """The ranked table with its control rows: base model above, last-task floor and real images below the methods.

    Where higher or lower is better, all methods are marked that no other is separably better than.
    """
    scores = board.score_columns
    unbeaten = {
        (metric, statistic): board.unbeaten(metric.name, statistic.name)
        for metric, statistic in scores
        if statistic.marked and not metric.secondary
    }
    columns = (
        Column("Rank"),
        Column("Variant", align="left"),
        Column("Method, settings", align="left"),
        *(Column(heading(*score) if score in unbeaten else f"{score[0].label} {score[1].label}") for score in scores),
        *(Column(fact.heading, align=fact.align) for fact in FACTS),
    )

    def method_row(method: Analysis) -> tuple[Cell, ...]:
        return (
            Cell(board.ranks[method.variant], source=f"{board.metrics[0].name}.{board.ranked_by} of all methods"),
            Cell(method.variant, mark="code", source=method.result.command),
            Cell(
                "; ".join(filter(None, (method.configuration, board.remark(method)))),
                source=f"method of {method.result.place}",
            ),
            *(
                replace(
                    _statistic_cell(method, metric.name, statistic),
                    mark="best" if method.variant in unbeaten.get((metric, statistic), ()) else "",
                )
                for metric, statistic in scores
            ),
            *(fact.cell(board, method) for fact in FACTS),
        )

    def control_row(name: str, control: Control) -> tuple[Cell, ...]:
        """A row with scores only."""
        own = {
            metric: _mean_cell(found, control.varies, f"{metric} {control.source} of all results")
            for metric, found in board.controls[name].items()
        }
        cells = (own[metric.name] if statistic.name == INSTEAD else BLANK for metric, statistic in scores)
        return (Cell(""), Cell(name), Cell(""), *cells, *(BLANK for _ in FACTS))

    base, *others = (control_row(*control) for control in CONTROLS.items())
    commands = ("", *(method.result.command for method in board.methods), *("" for _ in others))
    return Table(columns, (base, *map(method_row, board.methods), *others), commands)


def _statistic_cell(method: Analysis, metric: str, statistic: Statistic) -> Cell:
    source = f"{metric}.{statistic.name} of {method.result.place}"
    found, headline = method.summary.get(metric, {}).get(statistic.name), statistic.shown == "headline"
    estimate = method.estimate(metric, statistic.name) if headline and not METRICS[metric].secondary else None
    interval = estimate.interval if estimate else None
    if found and statistic.unit == "share":
        note = " to ".join(map(format_percent, interval)) if interval else ""
        return Cell(format_percent(found.mean, found.std), note=note, source=source)
    note = "{:.3f} to {:.3f}".format(*interval) if interval else ""
    return replace(_mean_cell(found, headline, source), note=note)


def _mean_cell(found: Spread | None, deviation: bool = True, source: str = "") -> Cell:
    if found is None:
        return replace(BLANK, source=source)
    shows = deviation and found.std is not None
    return Cell(f"{found.mean:.3f}", deviation=f"± {found.std:.3f}" if shows else "", source=source)


def margin_text(ranking: Ranking, statistic: str) -> str:
    """The margin of equivalence in words."""
    way = f"{100 * EQUIVALENT:.0f} % of the way from the base model to real images"
    return way if STATISTICS[statistic].unit == "share" else f"{ranking.margin:.3f}, {way}"


def pairs_table(ranking: Ranking, statistic: str) -> Table:
    """The listed pairs of methods with their differences in the statistic, intervals and p values."""
    share = STATISTICS[statistic].unit == "share"
    columns = (
        Column("Better", align="left"),
        Column("Worse", align="left"),
        *map(Column, ("Difference", "95 % interval", "p, corrected", "Better on a new order")),
        Column("Verdict", align="left"),
    )
    rows = tuple(
        (
            Cell(pair.better, mark="code"),
            Cell(pair.worse, mark="code"),
            Cell(format_figure(pair.difference, share)),
            *_uncertainty(pair, share),
            Cell(pair.verdict),
        )
        for pair in ranking.pairs
    )
    return Table(columns, rows)


def _uncertainty(pair: Pair, share: bool) -> list[Cell]:
    if pair.interval is None or pair.p_corrected is None or pair.chance is None:
        return [BLANK] * 3
    interval = " to ".join(format_figure(end, share) for end in pair.interval)
    return [Cell(interval), Cell(format_p_value(pair.p_corrected)), Cell(format_chance(pair.chance))]


TASK_COLUMNS = ("base", "real", "learned", "kept", "average_score", "average_forgetting", "leak")
"""What the table of tasks shows of each task."""


def tasks_table(method: Analysis, metric: str) -> Table:
    """Task by task, in the definition's order: the parts of the statistics; and the standard errors of their sums."""
    found, higher = per_task(method, metric), METRICS[metric].higher_is_better
    names = [name for name in TASK_COLUMNS if name in found and np.isfinite(found[name]).any()]
    titles = {"real": "real images", "base": "base model"}
    titles |= {
        one.name: f"{one.label} {one.arrow(higher)}".rstrip() for one in STATISTICS.values() if one.name != "base"
    }

    def cell(name: str, value: float) -> Cell:
        share = name in STATISTICS and STATISTICS[name].unit == "share"
        return Cell(format_figure(value, share), value) if math.isfinite(value) else BLANK

    columns = (
        Column("Task", align="left"),
        *(Column(titles[name]) for name in names),
    )
    rows = [
        (Cell(task), *(cell(name, float(found[name][number])) for name in names))
        for number, task in enumerate(method.track.task_names)
    ]
    errors = {
        "standard error over tasks": lambda name: error_over_tasks(method, metric, name),
        "standard error over orders": lambda name: error_over_orders(method, metric, name),
    }
    for title, error in errors.items():
        values = [error(name) if name in STATISTICS and STATISTICS[name].summands else None for name in names]
        rows.append((Cell(title), *(BLANK if v is None else cell(n, v) for n, v in zip(names, values, strict=True))))
    return Table(columns, tuple(rows))


def published_table(published: Published, track: str, methods: Sequence[Analysis] = ()) -> Table:
    """The paper's rows of a track, then the measured rows of the same statistics."""
    printed = published.tracks[track]
    metrics = [METRICS[metric] for metric in printed.metrics]
    columns = (
        Column("Method", align="left"),
        Column("Source", align="left"),
        *(Column(heading(metric, STATISTICS[name])) for name in PRINTED_AS for metric in metrics),
    )
    rows = [
        (
            Cell("base model") if method == "base" else Cell(method, mark="code"),
            Cell("published", mark="tag", source=published.source),
            *(_printed(getattr(row, name) or {}, metric.name) for name in PRINTED_AS for metric in metrics),
        )
        for method, row in printed.rows.items()
    ]
    rows += [
        (
            Cell(method.variant, mark="code"),
            Cell("measured", mark="tag", source=method.result.place),
            *(_mean_cell(method.summary[metric.name][name]) for name in PRINTED_AS.values() for metric in metrics),
        )
        for method in methods
    ]
    return Table(columns, tuple(rows))


PRINTED_AS = {"average_score": "average_score", "average_forgetting": "average_forgetting_ref"}
"""The statistics that the paper prints -> those that are computed as it very likely computes them."""


def _printed(values: Printed, metric: str) -> Cell:
    mean, std = values.get(metric, (None, None))
    if mean is None:
        return BLANK
    return Cell(f"{mean:.3f}", deviation="" if std is None else f"± {std:.3f}")


def study_table(study: PromptStudy) -> Table:
    """The paper's study of prompt templates, a row each."""
    columns = (
        Column("Prompt", align="left"),
        *(Column(heading(METRICS[name], STATISTICS[one])) for name in ("dino", "csd") for one in PRINTED_AS),
        *(Column(f"{METRICS['csd'].label}, task {number}") for number in range(1, study.tasks + 1)),
    )
    rows = tuple(
        (Cell(row.template, mark="code"), *(Cell(f"{value:.3f}") for value in (*row.dino, *row.csd, *row.csd_per_task)))
        for row in study.rows
    )
    return Table(columns, rows)
