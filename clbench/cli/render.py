"""A result in the terminal: score matrices as heatmaps, and all its statistics as a table. All fits the terminal."""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from clbench.errors import ClbenchError
from clbench.metrics import METRICS
from clbench.results.analysis import CONTROLS, Analysis
from clbench.results.compare import Comparison
from clbench.results.significance import ALPHA, name_of_test
from clbench.results.table import called, spread_text
from clbench.scores import STATISTICS
from clbench.suite import Suite
from clbench.utils.formatting import counted, format_bytes, format_p_value, text_color
from clbench.utils.tables import FittedTable, FoldingText, RankedColumn

WIDTH = 80
"""Of a heatmap, at most."""
_SCALE = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
"""Five points of the viridis colour map: even to the eye, and readable by the colour-blind."""


def render_result(method: Analysis, suite: Suite, console: Console, *, run: int | None = None) -> None:
    """Print a result.

    Args:
        method: the result with its statistics.
        suite: its definition.
        console: where to print.
        run: number of the one run to show, counted from 1; None = the mean over runs.

    Raises:
        ClbenchError: there is no such run.
    """
    result, track = method.result, method.track
    runs = result.runs
    what = f"mean over {len(runs)} runs" if len(runs) > 1 else "one run"
    tasks = [""] * len(track.tasks)
    if run is not None:
        if not 1 <= run <= len(runs):
            raise ClbenchError(f"there is no run {run}; this result has runs 1 to {len(runs)}")
        one = runs[run - 1]
        what = f"run {run} of {len(runs)}: order {one.order}, seed {one.seed}"
        tasks = list(one.task_order)
    console.print(Text(f"{called(result)} on {result.track} of {suite.name}, {what}", style="bold"))
    if result.partial:
        expected = len(suite.runs(result.track))
        console.print(Text(f"partial: {len(result.runs)} of the protocol's {expected} runs", style="bold yellow"))
    for metric in track.metrics:
        matrix = method.means[metric] if run is None else method.matrices[metric][run - 1]
        console.print()
        console.print(heatmap(matrix, tasks, METRICS[metric].label, console.width))
    console.print()
    console.print(summary_table(method))
    console.print(_facts(method))


def summary_table(method: Analysis) -> FittedTable:
    """Every statistic and control, a column for each metric."""
    metrics = method.track.metrics
    labels = [METRICS[metric].label for metric in metrics]  # a track names its most important metric first
    table = Table(
        Column(f"mean ± std, runs: {len(method.result.runs)}"),
        *(RankedColumn(label, justify="right", no_wrap=True, rank=number) for number, label in enumerate(labels)),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for one in STATISTICS.values():
        if any(one.name in method.summary[metric] for metric in metrics):
            table.add_row(one.title, *(spread_text(method.summary[metric].get(one.name), one) for metric in metrics))
    table.add_section()
    for name, control in CONTROLS.items():
        if name != "base model":  # it is among the statistics above
            spreads = (control.spread([method], metric) for metric in metrics)
            table.add_row(name, *(spread_text(found, deviation=control.varies) for found in spreads))
    return FittedTable(table)


def heatmap(matrix: NDArray[np.float64], tasks: list[str], title: str = "", terminal: int = WIDTH) -> FittedTable:
    """A score matrix (T + 1, T) in colour: rows = after task i, columns = position in the order, nan blank.

    Args:
        matrix: the scores.
        tasks: the names of the tasks by position, or empty strings for positions that mix tasks.
        title: heading of the row labels.
        terminal: columns of the terminal.
    """
    wide = min(WIDTH, terminal)
    labels = [f"{i + 1} {name}".strip()[: min(18, wide // 4)] for i, name in enumerate(tasks)]
    label_width = max(len(text) for text in (title, "base", *labels))
    longest = max(6, *(len(name) for name in tasks))
    number_width = max(len(f"{value:.2f}") for value in matrix[~np.isnan(matrix)])
    width = max(number_width + 1, min(longest + 1, (wide - label_width - 1) // len(tasks)))
    columns = []
    for number, name in enumerate(tasks):
        words = textwrap.wrap(name, width - 1, break_long_words=False)[:2]
        lines = [str(number + 1), *words, "", ""][: 3 if any(tasks) else 1]
        heading = "\n".join(f"{line[: width - 1]:>{width - 1}} " for line in lines)
        # The later a task is learned, the fewer scores its column has.
        columns.append(RankedColumn(heading, width=width, no_wrap=True, rank=number))
    table = Table(Column(title, width=label_width + 1), *columns, box=None, padding=0, pad_edge=False)
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    for row_label, row in zip(["base", *labels], matrix, strict=True):
        table.add_row(Text(row_label), *(_shade(value, low, high, width) for value in row))
    return FittedTable(table)


def _shade(value: float, low: float, high: float, width: int) -> Text:
    if np.isnan(value):
        return Text("")
    place = (value - low) / (high - low) if high > low else 0.0
    rgb = [round(np.interp(place * 4, range(5), _SCALE[:, channel])) for channel in range(3)]
    color = text_color([part / 255 for part in rgb])
    style = Style(color=color, bgcolor=f"#{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}")
    digits = 3 if width > 6 else 2
    return Text(f"{value:{width - 1}.{digits}f} ", style=style)


def _facts(method: Analysis) -> Text:
    lines = {
        "regime": method.regime,
        "state passed on": format_bytes(method.state_bytes),
        "seconds a task": f"{method.train_seconds:.1f} training, {method.eval_seconds:.1f} evaluation",
        "made by": " ".join(method.result.command.split()),
    }
    return Text("\n".join(f"{name}: {value}" for name, value in lines.items()))


def render_comparison(comparison: Comparison, console: Console, *, matrices: bool = True) -> None:
    """Print a comparison, and the difference of the score `matrices`."""
    first, second = comparison.names
    console.print(
        Text(
            f"{first} against {second} on {comparison.track.name}, {counted(len(comparison.runs), 'shared run')}",
            "bold",
        )
    )
    table = Table(
        Column("Metric", no_wrap=True),
        Column("Statistic", no_wrap=True),
        *(RankedColumn(FoldingText(name), justify="right", rank=3) for name in (first, second)),  # `show` tells them
        Column("difference", justify="right", no_wrap=True),
        RankedColumn("95 % interval", justify="right", no_wrap=True, rank=2),
        RankedColumn("p", justify="right", no_wrap=True, rank=1),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    for metric, own in comparison.statistics.items():
        label = METRICS[metric].label
        for name, value in own.items():
            unit, digits, sign = (100, 1, ", %") if STATISTICS[name].unit == "share" else (1, 3, "")
            called = STATISTICS[name].label + sign
            if value is None:
                table.add_row(label, called, *["–"] * 5)
            else:
                ends = (f"{unit * bound:.{digits}f}" for bound in value.interval or ())
                table.add_row(
                    label,
                    called,
                    f"{unit * value.first:.{digits}f}",
                    f"{unit * value.second:.{digits}f}",
                    Text(f"{unit * value.difference:+.{digits}f}", style="bold" if value.separable else ""),
                    " to ".join(ends) or "–",
                    "–" if value.p_corrected is None else format_p_value(value.p_corrected),
                )
            label = ""
    table.caption = (
        f"p: {name_of_test(comparison.orders, 'rows')}. Bold: p <= {ALPHA}"
        if comparison.orders > 1
        else "One shared order: no interval and no test; what differs may be chance."
    )
    console.print(FittedTable(table))
    if not matrices:
        return
    for metric, matrix in comparison.matrices.items():
        console.print(heatmap(matrix, [""] * len(comparison.track.tasks), METRICS[metric].label, console.width))
        console.print()
