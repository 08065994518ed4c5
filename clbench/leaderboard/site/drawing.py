"""What plots are made of: the methods' signs, axes, and labels that keep clear of each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clbench.leaderboard.site.heat import signed
from clbench.utils.formatting import format_bytes

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 14, 14, 48
LABEL_WIDTH, LABEL_HEIGHT = 7.9, 16.0
"""The assumed size of a letter in a label, which keeps labels apart."""
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
MOST_NAMED = 14
"""The most methods that a plot names and draws in full: of more, the others are drawn small and pale."""


@dataclass(frozen=True)
class Series:
    """A method's colour, marker and dash in all plots: no colour is ever the only sign."""

    name: str
    css: str
    marker: str
    dash: str
    is_named: bool = True
    """Whether the plots name it, and draw it in full."""

    @property
    def label(self) -> str:
        return self.name if len(self.name) <= 16 else self.name[:15] + "…"


def series(names: Sequence[str], bounds: Collection[str] = ()) -> tuple[Series, ...]:
    """The signs of methods, best first; of many, those at the top and the bounds are named in the plots."""
    top = set(names if len(names) <= MOST_NAMED else [name for name in names if name not in bounds][:MOST_NAMED])
    return tuple(
        Series(
            name,
            f"s{index % COLOURS}",
            MARKERS[index % len(MARKERS)],
            DASHES[index % len(DASHES)],
            name in top or name in bounds,
        )
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
    has_room: bool = True
    """Whether it lies over nothing else; if not, it shows only where its method is pointed at, or is one of a few."""


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


def bytes_axis(sizes: Sequence[int], start: float, end: float) -> Axis:
    """A logarithmic axis of sizes, ticked at powers of ten; an empty state has the left end, called 0."""
    powers = [math.log10(size) for size in sizes if size > 0] or [0.0]
    low, high = math.floor(min(powers)) - 0.35, max(powers) + 0.25
    bare = Axis(low - (0.5 if 0 in sizes else 0), high, start, end, ())
    ticks = [(bare.at(power), format_bytes(10**power)) for power in range(math.ceil(low), math.floor(high) + 1)]
    return replace(bare, ticks=((bare.at(magnitude(0, bare.low)), "0"), *ticks) if 0 in sizes else tuple(ticks))


def magnitude(size: int, low: float) -> float:
    """Where a size lies on a `bytes_axis` that begins at `low`."""
    return math.log10(size) if size else low + 0.2


def counted_axis(count: int, start: float, end: float, first: int) -> Axis:
    """An axis of whole numbers from `first` to `count`, ticked at a few of them."""
    bare = Axis(first, max(count, first + 1), start, end, ())
    step = max(1, math.ceil(count / 10))
    return Axis(bare.low, bare.high, start, end, tuple((bare.at(n), str(n)) for n in range(first, count + 1, step)))


def place_labels(styles: Sequence[Series], at: Sequence[tuple[float, float]]) -> list[Label]:
    """A label beside each point, where it meets no named point and no earlier name; without room if nowhere is free."""
    taken = np.array([(x - 7, y - 7, x + 7, y + 7) for style, (x, y) in zip(styles, at, strict=True) if style.is_named])
    labels = []
    for style, (x, y) in zip(styles, at, strict=True):
        if not style.is_named:
            labels.append(Label(round(x + 11, 1), round(y + 4, 1), "start"))
            continue
        wide = LABEL_WIDTH * len(style.label)
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
        found = next(free, None)
        if found is not None:
            taken = np.vstack([taken, boxes[found]])
        left, middle, anchor = options[found or 0]
        edge = left if anchor == "start" else left + wide
        labels.append(Label(round(edge, 1), round(middle + 4, 1), anchor, found is not None))
    return labels


def _meets_any(box: tuple[float, float, float, float], others: NDArray) -> bool:
    """Whether a box (left, top, right, bottom) lies over any of [n, 4]."""
    left, top, right, bottom = others.T
    return bool(((box[0] < right) & (left < box[2]) & (box[1] < bottom) & (top < box[3])).any())


def spread_labels(heights: Sequence[float], top: float, bottom: float) -> list[float]:
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
