"""A picture of a result: its score matrices as heatmaps, and its forgetting curves. Needs matplotlib."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.metrics import metric_label
from clbench.results.schema import Result, score_stack
from clbench.results.table import title
from clbench.scores import scores_since_learned
from clbench.utils.formatting import text_color

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ClbenchError(f"{error.name} is not installed; this needs `pip install 'clbench[plot]'`") from None

COLORS = matplotlib.colormaps["viridis"]
"""As in the terminal: even to the eye, and readable by the colour-blind."""
WIDTH, HEIGHT = 12.0, 4.4
"""Inches of the figure's width, and of one metric's height."""
LABEL_LENGTH = 18
"""Most letters of a task's name."""


class ResultFigure(Figure):
    """A figure that notebooks show.

    IPython shows a plain `Figure` only once `matplotlib.pyplot` is imported. What pyplot then registers comes before
    this method, so that no figure is shown twice.
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def plot(result: Result) -> ResultFigure:
    """`Result.plot`, which says what is drawn."""
    stacks = {metric: score_stack(result.runs, metric) for metric in result.runs[0].scores}
    orders = {run.task_order for run in result.runs}
    tasks = list(orders.pop()) if len(orders) == 1 else [""] * len(result.runs[0].task_order)
    figure = ResultFigure(figsize=(WIDTH, HEIGHT * len(stacks)), layout="constrained")
    figure.suptitle(title(result), fontweight="bold")
    grid = figure.add_gridspec(len(stacks), 2, width_ratios=(3, 2))
    for row, (metric, stack) in enumerate(stacks.items()):
        draw_matrix(figure.add_subplot(grid[row, 0]), stack.mean(axis=0), tasks, metric_label(metric))
        draw_forgetting(figure.add_subplot(grid[row, 1]), stack, metric_label(metric))
    return figure


def draw_matrix(axes: Axes, matrix: NDArray[np.float64], tasks: list[str], label: str) -> None:
    """A score matrix (T + 1, T) in colour with its numbers; nan is blank.

    Args:
        axes: where to draw.
        matrix: the scores.
        tasks: the names of the tasks by position, or empty strings for positions that mix tasks.
        label: the metric's name.
    """
    count, named = len(tasks), any(tasks)
    size = min(9.0, 110 / count)
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=COLORS, aspect="auto")
    shades = image.to_rgba(matrix)[..., :3].tolist()
    for (row, column), value in np.ndenumerate(matrix):
        if math.isfinite(value):
            color = text_color(shades[row][column])
            axes.text(column, row, f"{value:z.2f}", ha="center", va="center", color=color, fontsize=size)
    names = [f"{number} {name}".strip()[:LABEL_LENGTH] for number, name in enumerate(tasks, start=1)]
    axes.set_xticks(
        range(count),
        names,
        parse_math=False,  # names are a stranger's: a `$` in one starts no formula
        fontsize=size,
        rotation=40 if named else 0,
        rotation_mode="anchor",
        ha="right" if named else "center",
    )
    axes.set_yticks(range(count + 1), ["base", *names], parse_math=False, fontsize=size)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("task" if named else "task, by its position in the run")
    axes.set_ylabel("after task")
    axes.set_title(f"{label}: score matrix")


def draw_forgetting(axes: Axes, stack: NDArray[np.float64], label: str) -> None:
    """Score matrices (runs, T + 1, T) as one curve: the mean score of a task k tasks after it was learned."""
    curves = scores_since_learned(stack)
    runs, count = curves.shape
    mean, std, since = curves.mean(axis=0), curves.std(axis=0, ddof=min(1, len(curves) - 1)), np.arange(count)
    color = COLORS(0.3)
    axes.plot(
        since, mean, color=color, marker="o", markersize=4, label=f"mean over tasks{' and runs' if runs > 1 else ''}"
    )
    if runs > 1:
        axes.fill_between(since, mean - std, mean + std, color=color, alpha=0.2, lw=0, label="± std over runs")
    axes.axhline(stack[:, 0].mean(), color="0.4", linestyle="--", linewidth=1, label="base model")
    axes.set_xticks(range(0, count, math.ceil(count / 10)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("tasks learned since")
    axes.set_ylabel(f"{label} score")
    axes.set_title(f"{label}: forgetting curve")
    axes.legend(frameon=False)
