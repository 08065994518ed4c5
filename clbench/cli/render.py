"""A result in the terminal: score matrices as heatmaps, and the summary as a table. Fits 80 columns."""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.table import Table
from rich.text import Text

from clbench.errors import ClbenchError
from clbench.metrics import METRICS
from clbench.results.compare import COMPARED, Comparison
from clbench.results.schema import Result, Run, Spread
from clbench.results.significance import ALPHA, sign_flip_test, smallest_p
from clbench.results.summary import past_floor, spread
from clbench.scores import SHARES, STATISTICS
from clbench.suite import Suite, Track
from clbench.utils.formatting import format_bytes, format_p_value, format_percent

WIDTH = 80
_SCALE = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
"""Five points of the viridis colour map: even to the eye, and readable by the colour-blind."""


def render_result(result: Result, suite: Suite, console: Console, *, run: int | None = None) -> None:
    """Print a result that `check_result` accepts.

    Args:
        result: the result.
        suite: its definition.
        console: where to print.
        run: number of the one run to show, counted from 1; None = the mean over runs.

    Raises:
        ClbenchError: there is no such run, or no such track in the suite.
    """
    track = suite.track(result.track)
    runs = result.runs
    what = f"mean over {len(runs)} runs" if len(runs) > 1 else "one run"
    tasks = [""] * len(track.tasks)
    if run is not None:
        if not 1 <= run <= len(runs):
            raise ClbenchError(f"there is no run {run}; this result has runs 1 to {len(runs)}")
        runs = (runs[run - 1],)
        what = f"run {run} of {len(result.runs)}: order {runs[0].order}, seed {runs[0].seed}"
        tasks = list(runs[0].task_order)
    console.print(Text(f"{result.method.name} on {result.track} of {suite.name}, {what}", style="bold"))
    if result.partial:
        expected = len(suite.runs(result.track))
        console.print(Text(f"partial: {len(result.runs)} of the protocol's {expected} runs", style="bold yellow"))
    for metric in track.metrics:
        mean = np.mean([one.matrix(metric) for one in runs], axis=0)
        console.print()
        console.print(heatmap(mean, tasks, title=METRICS[metric].label))
    console.print()
    console.print(summary_table(result, track))
    console.print(_facts(result))


def result_table(*results: Result) -> Table:
    """The short summary of one or more results: a line for each method and metric, mean ± std over runs."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    table.add_column("Method", overflow="fold")
    table.add_column("Metric", no_wrap=True)
    for heading in ("Score ↑", "Forgetting ↓", "Learned ↑", "Kept ↑", "Base"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        name = result.method.name + ("*" if result.partial else "")
        for metric, summary in result.summary.items():
            table.add_row(
                escape(name),
                METRICS[metric].label,
                _spread(summary["average_score"]),
                _spread(summary["average_forgetting"]),
                _percent(summary["learned"]),
                _percent(summary["kept"]),
                _mean(summary["base"]),
            )
            name = ""
    if any(result.partial for result in results):
        table.caption = "* partial: runs of the protocol are missing"
    return table


def summary_table(result: Result, track: Track) -> Table:
    """Every statistic and control, a column for each metric."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(f"mean ± std, runs: {len(result.runs)}")
    for metric in track.metrics:
        table.add_column(METRICS[metric].label, justify="right", no_wrap=True)
    for name in STATISTICS:
        values = [result.summary[metric].get(name) for metric in track.metrics]
        if any(name in result.summary[metric] for metric in track.metrics):
            show = _percent if name in SHARES else _spread
            table.add_row(name.replace("_", " "), *(show(value) for value in values))
    table.add_section()
    table.add_row("last-task floor", *(_spread(spread(past_floor(result, metric, track))) for metric in track.metrics))
    real = result.controls.real_against_real
    table.add_row("real against real", *(_mean(spread([float(np.mean(real.get(m, np.nan)))])) for m in track.metrics))
    return table


def heatmap(matrix: NDArray[np.float64], tasks: list[str], title: str = "") -> Table:
    """A score matrix (T + 1, T) in colour: rows = after task i, columns = position in the order, nan blank.

    Args:
        matrix: the scores.
        tasks: the names of the tasks by position, or empty strings for positions that mix tasks.
        title: heading of the row labels.
    """
    labels = [f"{i + 1} {name}".strip()[:18] for i, name in enumerate(tasks)]
    label_width = max(len(text) for text in (title, "base", *labels))
    longest = max(6, *(len(name) for name in tasks))
    width = max(5, min(longest + 1, (WIDTH - label_width - 1) // len(tasks)))
    table = Table(box=None, padding=0, pad_edge=False)
    table.add_column(title, width=label_width + 1)
    for number, name in enumerate(tasks, start=1):
        words = textwrap.wrap(name, width - 1, break_long_words=False)[:2]
        lines = [str(number), *words, "", ""][: 3 if any(tasks) else 1]
        table.add_column("\n".join(f"{line[: width - 1]:>{width - 1}} " for line in lines), width=width, no_wrap=True)
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    for row_label, row in zip(["base", *labels], matrix, strict=True):
        table.add_row(Text(row_label), *(_shade(value, low, high, width) for value in row))
    return table


def _shade(value: float, low: float, high: float, width: int) -> Text:
    if np.isnan(value):
        return Text("")
    place = (value - low) / (high - low) if high > low else 0.0
    rgb = [round(np.interp(place * 4, range(5), _SCALE[:, channel])) for channel in range(3)]
    # Black text above the relative luminance at which black and white contrast equally (WCAG 2: 0.179).
    luminance = np.dot((np.array(rgb) / 255) ** 2.2, (0.2126, 0.7152, 0.0722))
    style = Style(color="#000000" if luminance > 0.179 else "#ffffff", bgcolor=f"#{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}")
    digits = 3 if width > 6 else 2
    return Text(f"{value:{width - 1}.{digits}f} ", style=style)


def _facts(result: Result) -> Text:
    runs: tuple[Run, ...] = result.runs
    tasks = sum(len(run.task_order) for run in runs)
    lines = {
        "regime": ", ".join(sorted({run.regime for run in runs})),
        "state passed on": format_bytes(max(run.state_bytes[-1] for run in runs)),
        "seconds a task": f"{sum(run.train_seconds for run in runs) / tasks:.1f} training, "
        f"{sum(run.eval_seconds for run in runs) / tasks:.1f} evaluation",
        "made by": " ".join(result.command.split()),
    }
    return Text("\n".join(f"{name}: {value}" for name, value in lines.items()))


def _spread(value: Spread | None) -> str:
    return f"{value.mean:.3f} ± {value.std:.3f}" if value and value.n > 1 else _mean(value)


def _mean(value: Spread | None) -> str:
    return f"{value.mean:.3f}" if value else "–"


def _percent(value: Spread | None) -> str:
    if value is None:
        return "–"
    return format_percent(value.mean, value.std if value.n > 1 else None)


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison. Fits 80 columns."""
    first, second = comparison.names
    console.print(
        Text(f"{first} against {second} on {comparison.track.name}, {len(comparison.runs)} shared runs", "bold")
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    table.add_column("Metric", no_wrap=True)
    table.add_column("Statistic", no_wrap=True)
    for heading in (first, second, "difference", "95 % interval", "p"):
        table.add_column(Text(heading), justify="right", no_wrap=True, max_width=16)
    for metric, own in comparison.statistics.items():
        label = METRICS[metric].label
        for name, value in own.items():
            if value is None:
                table.add_row(label, COMPARED[name], *["–"] * 5)
            else:
                unit, digits = (100, 1) if name in SHARES else (1, 3)
                low, high = (unit * bound for bound in value.interval)
                table.add_row(
                    label,
                    COMPARED[name],
                    f"{unit * value.first:.{digits}f}",
                    f"{unit * value.second:.{digits}f}",
                    Text(f"{unit * value.difference:+.{digits}f}", style="bold" if value.separable else ""),
                    f"{low:.{digits}f} to {high:.{digits}f}",
                    format_p_value(value.p),
                )
            label = ""
    runs = len(comparison.runs)
    table.caption = (
        f"p: uncorrected {sign_flip_test(runs)}; with these runs none is below {smallest_p(runs):.1g}. "
        f"Bold: p <= {ALPHA}"
    )
    console.print(table)
    for metric, matrix in comparison.matrices.items():
        console.print(heatmap(matrix, [""] * len(comparison.track.tasks), title=METRICS[metric].label))
        console.print()
