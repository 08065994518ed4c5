"""Plots as geometry: every number a template needs to draw one, in the units of its view box. No markup here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.site.heat import signed
from clbench.results.analysis import Analysis, Estimate
from clbench.results.significance import ALPHA, Ranking, over_orders
from clbench.scores import STATISTICS
from clbench.utils.formatting import format_figure, format_percent

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 14, 14, 48
LABEL_WIDTH, LABEL_HEIGHT = 7.9, 16.0
"""The assumed size of a letter in a label, which keeps labels apart."""
AXES = ("learned", "kept")
"""The statistics that the scatter plot sets against each other."""
FEWEST_ORDERS = 4
"""The fewest orders for which an ellipse is drawn: with fewer it would be wider than the plot."""

MARKERS = (
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-5.8L5.4 4.2H-5.4Z",
    "M0-6.2L6.2 0L0 6.2L-6.2 0Z",
    "M0 5.8L5.4-4.2H-5.4Z",
    "M-1.9-5.6H1.9V-1.9H5.6V1.9H1.9V5.6H-1.9V1.9H-5.6V-1.9H-1.9Z",
)
DASHES = ("none", "7 4", "2 3", "9 3 2 3", "4 2")
COLOURS = 8


@dataclass(frozen=True)
class Series:
    """A method's colour, marker and dash in all plots: no colour is ever the only sign."""

    name: str
    css: str
    marker: str
    dash: str

    @property
    def label(self) -> str:
        return self.name if len(self.name) <= 16 else self.name[:15] + "…"


def series(names: Sequence[str]) -> tuple[Series, ...]:
    return tuple(
        Series(name, f"s{index % COLOURS}", MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])
        for index, name in enumerate(names)
    )


@dataclass(frozen=True)
class Axis:
    """A linear axis: values from `low` to `high` on the way from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    """Position and text."""

    def at(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Box:
    """A view box and its axes."""

    width: float
    height: float
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    anchor: str


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
    ellipse: Ellipse | None
    label: Label
    says: str


@dataclass(frozen=True)
class Scatter:
    """What is learned against what is kept."""

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
    """One dot a method; None where no method has both values (a single run has them too)."""
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
    labels = _place([style.label for style, _, _ in shown], at)
    dots = tuple(
        Dot(style, *point, _ellipse(region, point, x, y), label, _both(method, metric))
        for (style, method, _), point, region, label in zip(shown, at, regions, labels, strict=True)
    )
    front = pareto([(float(center[0]), float(center[1])) for _, _, center in shown])
    path = f"M{LEFT} {at[front[0]][1]}" + "".join(f"H{at[i][0]}V{y}" for i, y in _steps(front, at))
    return Scatter(Box(WIDTH, HEIGHT, x, y), dots, path, tuple(shown[i][1].variant for i in front))


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other is at least as good as in both and better in one, by rising first value."""
    x, y = np.array(points).T
    kept = [index for index, (a, b) in enumerate(points) if not ((x >= a) & (y >= b) & ((x > a) | (y > b))).any()]
    return sorted(kept, key=lambda index: (points[index], index))


def retention(methods: Sequence[Analysis], styles: Sequence[Series], metric: str) -> Retention:
    """Mean over runs of the first task's score after each task, one line a method."""
    curves = [method.means[metric][1:, 0] for method in methods]
    base = float(np.mean([method.means[metric][0, 0] for method in methods]))
    count = len(curves[0])
    right = WIDTH - 12 - LABEL_WIDTH * max(len(style.label) for style in styles)
    x = _counted(count, LEFT, right, first=1)
    y = axis([base, *(value for curve in curves for value in curve.tolist())], HEIGHT - BOTTOM, TOP)
    heights = _spread([y.at(float(curve[-1])) for curve in curves], TOP + 4, HEIGHT - BOTTOM)
    lines = tuple(
        Line(
            style,
            tuple((x.at(place), y.at(value)) for place, value in enumerate(curve.tolist(), start=1)),
            Label(right + 10, height, "start"),
            f"{method.variant}: {curve[0]:.3f} when learned, {curve[-1]:.3f} after all {count} tasks",
        )
        for style, method, curve, height in zip(styles, methods, curves, heights, strict=True)
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
    bottom = TOP + 30.0 * len(rows)
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
    x = _counted(count, 34, width - 8, first=0)
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


def axis(values: Iterable[float], start: float, end: float, most: int = 5, share: bool = False) -> Axis:
    """An axis that holds all values with some air, ticked at round numbers, of a `share` in percent."""
    known = list(values)
    low, high = min(known), max(known)
    air = 0.06 * (high - low) or 0.01 + 0.05 * abs(low)
    low, high = low - air, high + air
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    bare = Axis(low, high, start, end, ())
    numbers = [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    form = f"z.{max(0, digits - 2)}%" if share else f"z.{digits}f"
    ticks = tuple((bare.at(value), signed(format(value, form).replace("%", " %"))) for value in numbers)
    return replace(bare, ticks=ticks)


def hotelling(orders: int) -> float:
    """How far, in squared standard errors, the 95 % confidence region of a mean in the plane reaches.

    Hotelling's T² at (2, orders - 1), of which F(2, m) has the closed form m/2 (alpha^(-2/m) - 1).
    """
    return (orders - 1) * (ALPHA ** (-2 / (orders - 2)) - 1)


def _counted(count: int, start: float, end: float, first: int) -> Axis:
    """An axis of whole numbers from `first` to `count`, ticked at a few of them."""
    bare = Axis(first, max(count, first + 1), start, end, ())
    step = max(1, math.ceil(count / 10))
    return Axis(bare.low, bare.high, start, end, tuple((bare.at(n), str(n)) for n in range(first, count + 1, step)))


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


def _place(texts: Sequence[str], at: Sequence[tuple[float, float]]) -> list[Label]:
    """A label beside each point, where it meets no point and no earlier label; to its right if nowhere is free."""
    taken = np.array([(x - 7, y - 7, x + 7, y + 7) for x, y in at])
    labels = []
    for text, (x, y) in zip(texts, at, strict=True):
        wide = LABEL_WIDTH * len(text)
        options = []
        for rise in (0, -LABEL_HEIGHT, LABEL_HEIGHT, -2 * LABEL_HEIGHT, 2 * LABEL_HEIGHT):
            options += [(x + 11, y + rise, "start"), (x - 11 - wide, y + rise, "end")]
        boxes = [(left, middle - 7, left + wide, middle + 7) for left, middle, _ in options]
        free = (
            index
            for index, box in enumerate(boxes)
            if box[0] > LEFT and box[2] < WIDTH and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            if not _meets_any(box, taken)
        )
        index = next(free, 0)
        taken = np.vstack([taken, boxes[index]])
        left, middle, anchor = options[index]
        labels.append(Label(round(left if anchor == "start" else left + wide, 1), round(middle + 4, 1), anchor))
    return labels


def _meets_any(box: tuple[float, float, float, float], others: NDArray) -> bool:
    """Whether a box (left, top, right, bottom) lies over any of [n, 4]."""
    left, top, right, bottom = others.T
    return bool(((box[0] < right) & (left < box[2]) & (box[1] < bottom) & (top < box[3])).any())


def _spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights moved apart so that one line of text fits each, as far as there is room."""
    gap = min(LABEL_HEIGHT, (bottom - top) / max(len(heights) - 1, 1))
    order = sorted(range(len(heights)), key=lambda index: (heights[index], index))
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + gap)
    limit = bottom
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return [round(height + 4, 1) for height in placed]
