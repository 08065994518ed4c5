"""The board's table: which columns there are, and the cells of methods and controls. Plain text, never markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clbench.leaderboard.records import CONTROLS, final_state_bytes, seconds_a_task
from clbench.leaderboard.site.heat import signed
from clbench.leaderboard.tables import Cell
from clbench.metrics import METRICS
from clbench.results.estimates import Figure, Measured
from clbench.results.schema import Spread
from clbench.results.significance import Ranking
from clbench.suite import Track
from clbench.utils.formatting import format_bytes, format_percent


@dataclass(frozen=True)
class Heading:
    """A column: what it is called, and how it takes part in sorting and in the metric switch."""

    text: str
    first: Literal["ascending", "descending"]
    """The direction that a first click sorts in."""
    says: str
    of: int | None = None
    """Index of the metric that the column is about."""
    only: bool = False
    """Shown for that metric alone; else only emphasised for it."""
    control: str | None = None
    """The metric whose score control rows have in this column."""


@dataclass(frozen=True)
class Row:
    """A method's cells, one for each heading after rank and method."""

    method: Measured
    rank: str
    place: int
    values: tuple[Cell, ...]


BLANK = Cell("–")


def three(value: float) -> str:
    return signed(f"{value:.3f}")


def percent(value: float) -> str:
    return signed(format_percent(value))


def headings(track: Track) -> tuple[Heading, ...]:
    """The columns after rank and method."""
    label = [METRICS[metric].label for metric in track.metrics]
    made = []
    for index, metric in enumerate(track.metrics):
        made.append(
            Heading(
                f"{label[index]} score\N{NO-BREAK SPACE}↑",
                "descending",
                "mean over all tasks after the last one",
                index,
                control=metric,
            )
        )
        if not METRICS[metric].secondary:
            says = "mean drop of a past task from its best score since it was learned"
            made.append(Heading(f"{label[index]} forgetting\N{NO-BREAK SPACE}↓", "ascending", says, index))
    for index, _ in enumerate(track.metrics):
        made += [
            Heading(
                f"{label[index]} learned\N{NO-BREAK SPACE}↑",
                "descending",
                "share of the way from the untouched model to real images that is reached right after learning a task",
                index,
                only=True,
            ),
            Heading(
                f"{label[index]} kept\N{NO-BREAK SPACE}↑",
                "descending",
                "share of the way from the untouched model to real images that past tasks keep after the last task",
                index,
                only=True,
            ),
            Heading(f"{label[index]} plasticity", "descending", "mean score right after learning", index, only=True),
            Heading(
                f"{label[index]} backward transfer",
                "descending",
                "how past tasks changed since they were learned",
                index,
                only=True,
            ),
        ]
    return (
        *made,
        Heading("State", "ascending", "what is handed on after the last task"),
        Heading("Regime", "ascending", "what that state is"),
        Heading("Train s/task", "ascending", "mean seconds of training a task"),
        Heading("Eval s/task", "ascending", "mean seconds of evaluation a task"),
        Heading("Verified", "ascending", "how far somebody else has checked the numbers"),
    )


def rows(
    track: Track, methods: Sequence[Measured], ranking: Ranking, verification: Callable[[Measured], str]
) -> tuple[Row, ...]:
    """One row a method, in the board's order."""
    places = {standing.method: standing.rank for standing in ranking.standings}

    def row(place: int, method: Measured) -> Row:
        origin = method.result.place

        def statistic(metric: str, name: str, show: Callable[[float], str] = three) -> Cell:
            return replace(score(method.figure(metric, name), show), source=f"{metric}.{name} of {origin}")

        def own(text: str, value: float | str, field: str) -> Cell:
            return Cell(text, value, source=f"{field} of {origin}")

        values = []
        for metric in track.metrics:
            values.append(statistic(metric, "average_score"))
            if not METRICS[metric].secondary:
                values.append(statistic(metric, "average_forgetting"))
        for metric in track.metrics:
            values += [
                statistic(metric, "learned", percent),
                statistic(metric, "kept", percent),
                statistic(metric, "plasticity"),
                statistic(metric, "backward_transfer", lambda value: signed(f"{value:+.3f}")),
            ]
        size = final_state_bytes(method.result)
        train, evaluation = seconds_a_task(method.result, track)
        regimes = ", ".join(method.regimes)
        checked = verification(method)
        values += [
            own(format_bytes(size), size, "state_bytes"),
            own(regimes, regimes, "regime"),
            own(f"{train:.1f}", round(train, 3), "train_seconds"),
            own(f"{evaluation:.1f}", round(evaluation, 3), "eval_seconds"),
            Cell(checked, checked, source="VERIFIED.json"),
        ]
        return Row(method, places.get(method.name, "–"), place, tuple(values))

    return tuple(row(place, method) for place, method in enumerate(methods, start=1))


def control_values(
    columns: Sequence[Heading], name: str, scores: Mapping[str, Mapping[str, Spread | None]]
) -> tuple[Cell, ...]:
    """The cells of a control, of what `control_scores` gives: it has scores only."""

    def cell(column: Heading) -> Cell:
        metric = column.control
        spread = scores[name][metric] if metric else None
        return Cell(three(spread.mean), source=f"{metric} {CONTROLS[name]} of all results") if spread else BLANK

    return tuple(map(cell, columns))


def score(figure: Figure | None, show: Callable[[float], str] = three) -> Cell:
    """A mean with its deviation, and its interval as a note."""
    if figure is None:
        return BLANK
    spread = figure.spread
    interval = " to ".join(show(bound) for bound in figure.interval or ())
    return Cell(show(spread.mean), round(spread.mean, 6), deviation=f"± {show(spread.std).lstrip('+')}", note=interval)
