"""The columns and cells of the board's table. Plain text, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import FACTS, heading
from clbench.leaderboard.site.heat import signed
from clbench.leaderboard.tables import BLANK, Cell, unbroken
from clbench.metrics import Metric
from clbench.results.analysis import CONTROLS, Analysis
from clbench.scores import RANKED_BY, Statistic, shown
from clbench.utils.formatting import format_percent


@dataclass(frozen=True)
class Heading:
    """A column: what it is called, and how it takes part in sorting and in the metric switch."""

    text: str
    first: Literal["ascending", "descending"]
    """The direction that a first click sorts in."""
    says: str
    of: int | None = None
    """Index of the column's metric."""
    only: bool = False
    """Whether the column shows only while that metric is chosen; else it is emphasised then."""
    control: str | None = None
    """The metric whose score control rows show in this column."""


def three(value: float) -> str:
    return signed(f"{value:.3f}")


def signed_three(value: float) -> str:
    return signed(f"{value:+.3f}")


def percent(value: float) -> str:
    return signed(format_percent(value))


def _scores(board: Board) -> list[tuple[int, Metric, Statistic]]:
    """The columns of statistics: the headline ones of all metrics, then the others of each."""
    metrics = list(enumerate(board.metrics))
    headline = [(index, metric, one) for index, metric in metrics for one in shown("headline")]
    others = [(index, metric, one) for index, metric in metrics for one in shown("diagnostic")]
    return [(i, metric, one) for i, metric, one in headline if not metric.secondary or one.name == RANKED_BY] + others


def headings(board: Board) -> tuple[Heading, ...]:
    """The columns after rank and method."""
    scores = (
        Heading(
            unbroken(heading(metric, statistic)),
            "descending" if statistic.prefers_high(metric.higher_is_better) else "ascending",
            statistic.description,
            index,
            only=statistic.shown != "headline",
            control=metric.name if statistic.name == RANKED_BY else None,
        )
        for index, metric, statistic in _scores(board)
    )
    return (*scores, *(Heading(fact.heading, "ascending", fact.description) for fact in FACTS))


def cells(board: Board, method: Analysis) -> tuple[Cell, ...]:
    """A method's cells, one for each heading."""
    scores = (cell(method, metric.name, statistic, signs=True) for _, metric, statistic in _scores(board))
    return (*scores, *(fact.cell(board, method) for fact in FACTS))


def control_values(board: Board, columns: Sequence[Heading], name: str) -> tuple[Cell, ...]:
    """The cells of a control: it has scores only."""

    def value(column: Heading) -> Cell:
        found = board.controls[name][column.control] if column.control else None
        source = f"{column.control} {CONTROLS[name].source} of all results"
        return Cell(three(found.mean), source=source) if found else BLANK

    return tuple(map(value, columns))


def cell(method: Analysis, metric: str, statistic: Statistic, signs: bool = False) -> Cell:
    """A mean with its deviation, and its interval as a note; `signs`: changes have a sign if they are positive too."""
    source = f"{metric}.{statistic.name} of {method.result.place}"
    estimate = method.estimate(metric, statistic.name)
    if estimate is None:
        return replace(BLANK, source=source)
    show = {"share": percent, "change": signed_three if signs else three}.get(statistic.unit, three)
    mean, deviation = estimate.spread.mean, f"± {show(estimate.spread.std).lstrip('+')}"
    interval = " to ".join(show(bound) for bound in estimate.interval or ())
    return Cell(show(mean), round(mean, 6), deviation=deviation, note=interval, source=source)
