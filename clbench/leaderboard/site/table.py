"""The columns and cells of the board's table. Plain text, never markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import FACTS, heading
from clbench.leaderboard.site.heat import signed
from clbench.leaderboard.tables import BLANK, Cell, unbroken
from clbench.method import FAMILIES
from clbench.results.analysis import CONTROLS, Analysis
from clbench.results.schema import Regime
from clbench.scores import INSTEAD, RANKED_BY, Statistic
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


def headings(board: Board) -> tuple[Heading, ...]:
    """The columns after rank and method."""
    index = {metric.name: number for number, metric in enumerate(board.metrics)}
    scores = (
        Heading(
            unbroken(heading(metric, statistic)),
            "descending" if statistic.prefers_high(metric.higher_is_better) else "ascending",
            statistic.description,
            index.get(metric.name),
            only=statistic.name != RANKED_BY and metric in board.metrics and not metric.secondary,
            control=metric.name if statistic.name == INSTEAD else None,
        )
        for metric, statistic in board.score_columns
    )
    return (*scores, *(Heading(fact.heading, "ascending", fact.description) for fact in FACTS))


def cells(board: Board, method: Analysis) -> tuple[Cell, ...]:
    """A method's cells, one for each heading."""
    scores = (cell(method, metric.name, statistic, signs=True) for metric, statistic in board.score_columns)
    return (*scores, *(fact.cell(board, method) for fact in FACTS))


STRICT = "strict"
"""The mark of methods that hand on no more than merged weights or one adapter."""


@dataclass(frozen=True)
class Filter:
    """A choice of rows: those that have the chosen mark."""

    name: str
    says: str
    choices: tuple[tuple[str, str], ...]
    """(mark, what it is called)."""


def marks(method: Analysis) -> dict[str, tuple[str, ...]]:
    """Filter -> what of it a method's row has."""
    return {
        "family": (method.result.method.family or "none",),
        "regime": (*method.regimes, *((STRICT,) if method.strict else ())),
        "settings": (method.settings_from.replace(" ", "-"),),
    }


def filters(board: Board) -> tuple[Filter, ...]:
    """The filters that tell any of the board's rows apart."""
    found = [marks(method) for method in board.methods]

    def made(name: str, says: str, order: Sequence[str], called: Mapping[str, str]) -> Filter:
        known = {mark for own in found for mark in own[name]}
        return Filter(name, says, tuple((mark, called.get(mark, mark)) for mark in order if mark in known))

    every = (
        made("family", "Family", [*FAMILIES[1:], "none"], {"none": "none named"}),
        made("regime", "Regime", [STRICT, *get_args(Regime)], {STRICT: "strict: model or adapter"}),
        made("settings", "Settings", ["default", "tuned", "set-by-hand"], {"set-by-hand": "set by hand"}),
    )
    return tuple(
        one for one in every if any(any(mark not in own[one.name] for own in found) for mark, _ in one.choices)
    )


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
    estimate = method.estimate(metric, statistic.name) if metric in method.summary else None
    if estimate is None:
        return replace(BLANK, source=source)
    show = {"share": percent, "change": signed_three if signs else three}.get(statistic.unit, three)
    mean, std = estimate.spread.mean, estimate.spread.std
    deviation = "" if std is None else f"± {show(std).lstrip('+')}"
    interval = " to ".join(show(bound) for bound in estimate.interval or ())
    return Cell(show(mean), round(mean, 6), deviation=deviation, note=interval, source=source)
