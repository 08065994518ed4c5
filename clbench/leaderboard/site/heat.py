"""Score matrices as tables whose cells are shaded in steps, so that a style sheet alone gives them their colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS = 16
"""Shades of a score, classes h0 to h15."""
SIDE = 7
"""Shades of a difference to either side, classes n7 to n1, d0, p1 to p7."""
DIGITS = 4
"""Decimals of the scores that pages show or embed: Python and the page's script shade the same rounded values."""


class Shade(NamedTuple):
    """One cell: its text, empty where nothing was measured, and the class that shades it."""

    text: str
    css: str


@dataclass(frozen=True)
class Heat:
    """A shaded table: a heading a column, a label and as many cells a row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shade, ...]], ...]


def scale(matrices: Iterable[NDArray]) -> tuple[float, float]:
    """The lowest and the highest score, so that equal shades mean equal scores in all of these matrices."""
    values = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    return round(float(values.min()), DIGITS), round(float(values.max()), DIGITS)


def widest(matrices: Sequence[NDArray]) -> float:
    """The largest difference of any cell between any two of these matrices."""
    stack = np.stack(matrices)
    gaps = stack.max(axis=0) - stack.min(axis=0)
    return round(float(np.nanmax(gaps)), DIGITS)


@cache  # the pages of a track show the same few thousand rounded scores again and again
def score_shade(value: float | None, low: float, high: float) -> Shade:
    """A score on the scale from `low` to `high`."""
    if value is None:
        return Shade("", "")
    step = math.floor(STEPS * (value - low) / (high - low)) if high > low else 0
    return Shade(signed(f"{value:.2f}"), f"h{min(max(step, 0), STEPS - 1)}")


def difference_shade(value: float | None, most: float) -> Shade:
    """A difference on the scale from `-most` to `most`."""
    if value is None:
        return Shade("", "")
    step = min(math.ceil(SIDE * abs(value) / most - 0.5), SIDE) if most > 0 else 0
    return Shade(signed(f"{value:+.2f}"), f"{'p' if value > 0 else 'n'}{step}" if step else "d0")


def signed(number: str) -> str:
    """With a real minus sign, which is as wide as a plus."""
    return number.replace("-", "−")


def cells(matrix: NDArray) -> list[list[float | None]]:
    """Rows as JSON has them: rounded, None for nan; never -0.0, which is equal to 0.0 and has another text."""
    rows = (matrix.round(DIGITS) + 0.0).tolist()
    return [[None if math.isnan(value) else value for value in row] for row in rows]


def score_heat(matrix: NDArray, caption: str, bounds: tuple[float, float], tasks: Sequence[str] = ()) -> Heat:
    """A score matrix (T + 1, T); `tasks` are the names in the order learned, empty for a mean over orders."""
    rows = [[score_shade(value, *bounds) for value in row] for row in cells(matrix)]
    return _heat(rows, caption, tasks)


def difference_heat(left: NDArray, right: NDArray, caption: str, most: float) -> Heat:
    """The cells of one mean score matrix minus those of another."""
    rows = [
        [
            difference_shade(None if a is None or b is None else round(a - b, DIGITS), most)
            for a, b in zip(*pair, strict=True)
        ]
        for pair in zip(cells(left), cells(right), strict=True)
    ]
    return _heat(rows, caption, ())


def _heat(rows: Sequence[Sequence[Shade]], caption: str, tasks: Sequence[str]) -> Heat:
    count = len(rows[0])
    columns = tuple(tasks) or tuple(f"task {number}" for number in range(1, count + 1))
    labels = ["base model", *(f"after {name}" for name in columns)]
    return Heat(caption, columns, tuple((label, tuple(row)) for label, row in zip(labels, rows, strict=True)))
