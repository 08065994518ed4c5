"""Plots as geometry: every number a template needs to draw one, in the units of its view box. No markup here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.site.drawing import (
    BOTTOM,
    HEIGHT,
    LABEL_WIDTH,
    LEFT,
    MOST_NAMED,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Box,
    Label,
    Series,
    axis,
    bytes_axis,
    counted_axis,
    magnitude,
    place_labels,
    spread_labels,
)
from clbench.results.analysis import Analysis, Estimate
from clbench.results.significance import ALPHA, Ranking, over_orders
from clbench.scores import STATISTICS
from clbench.utils.formatting import format_bytes, format_figure, format_percent

AXES = ("learned", "kept")
"""The statistics that the scatter plot sets against each other."""
FEWEST_ORDERS = 4
"""The fewest orders for which an ellipse is drawn: with fewer it would be wider than the plot."""


@dataclass(frozen=True)
class Ellipse:
    x: float
    y: float
    long: float
    short: float
    angle: float
    """Degrees, clockwise on the screen."""


@dataclass(frozen=True)
class Dot:
    series: Series
    x: float
    y: float
    label: Label
    says: str
    ellipse: Ellipse | None = None
    interval: tuple[float, float] | None = None
    """Heights of the ends of an interval."""


@dataclass(frozen=True)
class Scatter:
    """One dot a method, and the Pareto front of those that are no bounds."""

    box: Box
    dots: tuple[Dot, ...]
    front: str
    """The path of the Pareto front."""
    on_front: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    series: Series
    points: tuple[tuple[float, float], ...]
    label: Label
    says: str

    @property
    def path(self) -> str:
        return " ".join(f"{x},{y}" for x, y in self.points)


@dataclass(frozen=True)
class Retention:
    """The score of the task learned first, after each further task."""

    box: Box
    lines: tuple[Line, ...]
    base: float
    """Height of the untouched model's score."""


@dataclass(frozen=True)
class Span:
    series: Series
    y: float
    x: float
    low: float
    high: float
    rank: str
    says: str


@dataclass(frozen=True)
class Ranks:
    """Means with their intervals and ranks."""

    box: Box
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Panel:
    """The score of the task at one place of the sequence."""

    title: str
    box: Box
    path: str
    points: tuple[tuple[float, float], ...]
    base: tuple[float, float]
    learned: float
    """Where the task itself is learned."""
    says: str


def scatter(methods: Sequence[Analysis], styles: Sequence[Series], metric: str) -> Scatter | None:
    """What is learned against what is kept; None where no method has both values (a single run has them too)."""
    shown = [
        (style, method, center)
        for style, method in zip(styles, methods, strict=True)
        if (center := _center(method, metric)) is not None
    ]
    if not shown:
        return None
    regions = [_region(method, metric) for _, method, _ in shown]
    reach = [np.sqrt(np.diag(region)) if region is not None else np.zeros(2) for region in regions]
    ends = [center + sign * extent for (_, _, center), extent in zip(shown, reach, strict=True) for sign in (-1, 1)]
    x = axis([end[0] for end in ends], LEFT, WIDTH - RIGHT, share=True)
    y = axis([end[1] for end in ends], HEIGHT - BOTTOM, TOP, share=True)
    at = [(x.at(float(center[0])), y.at(float(center[1]))) for _, _, center in shown]
    labels = place_labels([style for style, _, _ in shown], at)
    dots = tuple(
        Dot(style, *point, label, _both(method, metric), _ellipse(region, point, x, y))
        for (style, method, _), point, region, label in zip(shown, at, regions, labels, strict=True)
    )
    points = [(float(center[0]), float(center[1])) for *_, center in shown]
    return _with_front(Box(WIDTH, HEIGHT, x, y), dots, [method for _, method, _ in shown], points, LEFT)


def bytes_against(methods: Sequence[Analysis], styles: Sequence[Series], metric: str, statistic: str) -> Scatter | None:
    """The size of the state, on a logarithmic axis, against a statistic; None where no method has it.

    The front has the methods that none with as small a state is better than.
    """
    shown = [
        (style, method, estimate)
        for style, method in zip(styles, methods, strict=True)
        if (estimate := method.estimate(metric, statistic)) is not None
    ]
    if not shown:
        return None
    share = STATISTICS[statistic].unit == "share"
    sizes = [method.state_bytes for _, method, _ in shown]
    means = [estimate.spread.mean for *_, estimate in shown]
    x = bytes_axis(sizes, LEFT, WIDTH - RIGHT)
    ends = [end for (*_, estimate), mean in zip(shown, means, strict=True) for end in estimate.interval or (mean,)]
    y = axis(ends, HEIGHT - BOTTOM, TOP, share=share)
    at = [(x.at(magnitude(size, x.low)), y.at(mean)) for size, mean in zip(sizes, means, strict=True)]
    labels = place_labels([style for style, *_ in shown], at)
    dots = tuple(
        Dot(
            style,
            *point,
            label,
            f"{style.name}: {format_bytes(size)}, {STATISTICS[statistic].label} {format_figure(mean, share)}",
            interval=(y.at(estimate.interval[0]), y.at(estimate.interval[1])) if estimate.interval else None,
        )
        for (style, _, estimate), point, label, size, mean in zip(shown, at, labels, sizes, means, strict=True)
    )
    points = [(-float(size), mean) for size, mean in zip(sizes, means, strict=True)]
    return _with_front(Box(WIDTH, HEIGHT, x, y), dots, [method for _, method, _ in shown], points, WIDTH - RIGHT)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other is at least as good as in both and better in one, by rising first value."""
    x, y = np.array(points).T
    kept = [index for index, (a, b) in enumerate(points) if not ((x >= a) & (y >= b) & ((x > a) | (y > b))).any()]
    return sorted(kept, key=lambda index: (points[index], index))


def _with_front(
    box: Box, dots: tuple[Dot, ...], methods: Sequence[Analysis], points: Sequence[tuple[float, float]], start: float
) -> Scatter:
    """The plot of dots with the Pareto front of their points, which has no bounds.

    Args:
        points: in which more is better, one a dot.
        start: where the front's path begins, at the height of its first dot.
    """
    own = [index for index, method in enumerate(methods) if not method.is_bound]
    front = [own[index] for index in pareto([points[index] for index in own])] if own else []
    at = [(dot.x, dot.y) for dot in dots]
    path = f"M{start} {at[front[0]][1]}" + "".join(f"H{at[i][0]}V{y}" for i, y in _steps(front, at)) if front else ""
    return Scatter(box, dots, path, tuple(methods[index].variant for index in front))


def retention(methods: Sequence[Analysis], styles: Sequence[Series], metric: str) -> Retention:
    """Mean over runs of the first task's score after each task, one line a method."""
    curves = [method.means[metric][1:, 0] for method in methods]
    base = float(np.mean([method.means[metric][0, 0] for method in methods]))
    count = len(curves[0])
    named = [index for index, style in enumerate(styles) if style.is_named]
    right = WIDTH - 12 - LABEL_WIDTH * max(len(style.label) for style in styles)
    x = counted_axis(count, LEFT, right, first=1)
    y = axis([base, *(value for curve in curves for value in curve.tolist())], HEIGHT - BOTTOM, TOP)
    heights = [y.at(float(curve[-1])) for curve in curves]
    spread = dict(zip(named, spread_labels([heights[i] for i in named], TOP + 4, HEIGHT - BOTTOM), strict=True))
    lines = tuple(
        Line(
            style,
            tuple((x.at(place), y.at(value)) for place, value in enumerate(curve.tolist(), start=1)),
            Label(right + 10, spread.get(index, height + 4), "start"),
            f"{method.variant}: {curve[0]:.3f} when learned, {curve[-1]:.3f} after all {count} tasks",
        )
        for index, (style, method, curve, height) in enumerate(zip(styles, methods, curves, heights, strict=True))
    )
    return Retention(Box(WIDTH, HEIGHT, x, y), lines, y.at(base))


def ranks(
    methods: Sequence[Analysis], styles: Sequence[Series], metric: str, statistic: str, ranking: Ranking
) -> Ranks:
    """The mean of the statistic for each ranked method, best first, with its interval and rank."""
    share = STATISTICS[statistic].unit == "share"
    known = {method.variant: (style, method) for style, method in zip(styles, methods, strict=True)}
    rows: list[tuple[Series, str, float, tuple[float, float], str]] = []
    for standing in ranking.standings:
        style, method = known[standing.method]
        estimate = method.estimate(metric, statistic)
        assert estimate is not None, "a method is ranked by a statistic that it has"
        mean = estimate.spread.mean
        says = f"{style.name}: rank {standing.rank}, mean {format_figure(mean, share)}"
        if estimate.interval:
            says += ", 95 % interval " + " to ".join(format_figure(end, share) for end in estimate.interval)
        rows.append((style, standing.rank, mean, estimate.interval or (mean, mean), says))
    left = 14 + LABEL_WIDTH * max(len(style.label) for style, *_ in rows)
    bottom = TOP + (30.0 if len(rows) <= MOST_NAMED else 18.0) * len(rows)
    x = axis([end for *_, interval, _ in rows for end in interval], left, WIDTH - 60, share=share)
    y = Axis(0, len(rows), TOP, bottom, ())
    spans = tuple(
        Span(style, y.at(place + 0.5), x.at(mean), x.at(low), x.at(high), rank, says)
        for place, (style, rank, mean, (low, high), says) in enumerate(rows)
    )
    return Ranks(Box(WIDTH, bottom + BOTTOM, x, y), spans)


def panels(matrix: NDArray) -> tuple[Panel, ...]:
    """One small plot for each place in the sequence, of a mean score matrix (T + 1, T), all on the same scale."""
    count = matrix.shape[1]
    width, height = 190, 128
    x = counted_axis(count, 34, width - 8, first=0)
    x = Axis(x.low, x.high, x.start, x.end, (x.ticks[0], x.ticks[-1]))
    y = axis(matrix[np.isfinite(matrix)].tolist(), height - 22, 8, most=4)
    made = []
    for place in range(count):
        known = [(row, float(matrix[row, place])) for row in range(1, count + 1) if math.isfinite(matrix[row, place])]
        points = tuple((x.at(row), y.at(value)) for row, value in known)
        made.append(
            Panel(
                f"Task {place + 1}",
                Box(width, height, x, y),
                " ".join(f"{left},{top}" for left, top in points),
                points,
                (x.at(0), y.at(float(matrix[0, place]))),
                x.at(place + 1),
                f"{matrix[0, place]:.3f} with the base model, {matrix[place + 1, place]:.3f} when learned, "
                f"{matrix[-1, place]:.3f} after all {count} tasks",
            )
        )
    return tuple(made)


def hotelling(orders: int) -> float:
    """How far, in squared standard errors, the 95 % confidence region of a mean in the plane reaches.

    Hotelling's T² at (2, orders - 1), of which F(2, m) has the closed form m/2 (alpha^(-2/m) - 1).
    """
    return (orders - 1) * (ALPHA ** (-2 / (orders - 2)) - 1)


def _center(method: Analysis, metric: str) -> NDArray | None:
    found = [method.estimate(metric, name) for name in AXES]
    return np.array([one.spread.mean for one in found if one]) if all(found) else None


def _region(method: Analysis, metric: str) -> NDArray | None:
    """(2, 2), of which the confidence region of the mean is the unit ellipse; None for too few orders."""
    orders = over_orders(np.stack([method.statistics[metric][name] for name in AXES]), method.run_keys)
    count = orders.shape[1]
    return np.cov(orders) / count * hotelling(count) if count >= FEWEST_ORDERS else None


def _ellipse(region: NDArray | None, center: tuple[float, float], x: Axis, y: Axis) -> Ellipse | None:
    if region is None:
        return None
    stretch = np.diag([(own.end - own.start) / (own.high - own.low) for own in (x, y)])
    sizes, directions = np.linalg.eigh(stretch @ region @ stretch)
    short, long = (round(math.sqrt(max(size, 0.0)), 1) for size in sizes.tolist())
    angle = math.degrees(math.atan2(directions[1, 1], directions[0, 1])) % 180  # an eigenvector has no sign
    return Ellipse(*center, long, short, round(angle, 1))


def _both(method: Analysis, metric: str) -> str:
    def said(estimate: Estimate | None) -> str:
        return format_percent(estimate.spread.mean, estimate.spread.std) if estimate else "–"

    learned, kept = (said(method.estimate(metric, name)) for name in AXES)
    return f"{method.variant}: learned {learned}, kept {kept}"


def _steps(front: Sequence[int], at: Sequence[tuple[float, float]]) -> list[tuple[int, float]]:
    """(point, height to which the front falls behind it)."""
    falls = [at[index][1] for index in front[1:]]
    return list(zip(front, [*falls, float(HEIGHT - BOTTOM)], strict=True))
