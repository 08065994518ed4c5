"""The board's table: which columns there are, and the cells of methods and controls. Plain text, never markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clbench.human import human_bytes
from clbench.leaderboard.rank import Ranking
from clbench.leaderboard.records import final_state_bytes, seconds_a_task
from clbench.leaderboard.site.figures import Figure, Measured
from clbench.leaderboard.site.heat import signed
from clbench.metrics import METRICS
from clbench.result import Spread
from clbench.suite import Track


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
    control: tuple[str, str] | None = None
    """(metric, statistic), where control rows have a value too."""


@dataclass(frozen=True)
class Value:
    """A cell. `sort` is what rows are sorted by: a number, or text."""

    text: str
    sort: float | str | None = None
    under: str = ""
    """A smaller second line."""
    interval: str = ""
    """95 % interval of the mean."""


@dataclass(frozen=True)
class Row:
    """A method's cells, one for each heading after rank and method."""

    method: Measured
    rank: str
    place: int
    values: tuple[Value, ...]


BLANK = Value("–")


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
                control=(metric, "average_score"),
            )
        )
        if not METRICS[metric].secondary:
            says = "mean drop of a past task from its best score since it was learned"
            made.append(Heading(f"{label[index]} forgetting\N{NO-BREAK SPACE}↓", "ascending", says, index))
    for index, _ in enumerate(track.metrics):
        made += [
            Heading(f"{label[index]} plasticity", "descending", "mean score right after learning", index, only=True),
            Heading(
                f"{label[index]} backward transfer",
                "descending",
                "how past tasks changed since they were learned",
                index,
                only=True,
            ),
            Heading(
                f"{label[index]} memory",
                "descending",
                "what past tasks keep above the last-task floor, as a share of what was learned above it",
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
        values = []
        for metric in track.metrics:
            values.append(score(method.figures[metric]["average_score"]))
            if not METRICS[metric].secondary:
                values.append(score(method.figures[metric]["average_forgetting"]))
        for metric in track.metrics:
            own = method.figures[metric]
            values += [
                score(own["plasticity"]),
                score(own["backward_transfer"], lambda value: signed(f"{value:+.3f}")),
                score(own["memory"], lambda value: signed(f"{100 * value:.0f} %")),
            ]
        size = final_state_bytes(method.result)
        train, evaluation = seconds_a_task(method.result, track)
        regimes = ", ".join(method.regimes)
        checked = verification(method)
        values += [
            Value(human_bytes(size), size),
            Value(regimes, regimes),
            Value(f"{train:.1f}", round(train, 3)),
            Value(f"{evaluation:.1f}", round(evaluation, 3)),
            Value(checked, checked),
        ]
        return Row(method, places.get(method.name, "–"), place, tuple(values))

    return tuple(row(place, method) for place, method in enumerate(methods, start=1))


def control_values(columns: Sequence[Heading], scores: Mapping[str, Spread | None]) -> tuple[Value, ...]:
    """A control's cells: it has scores only."""
    found = (scores[column.control[0]] if column.control else None for column in columns)
    return tuple(Value(three(spread.mean)) if spread else BLANK for spread in found)


def score(figure: Figure | None, show: Callable[[float], str] | None = None) -> Value:
    """A mean with its deviation below it, and its interval."""
    if figure is None:
        return BLANK
    spread, show = figure.spread, show or three
    interval = " to ".join(show(bound) for bound in figure.interval or ())
    return Value(show(spread.mean), round(spread.mean, 6), f"± {show(spread.std).lstrip('+')}", interval)


def three(value: float) -> str:
    return signed(f"{value:.3f}")
