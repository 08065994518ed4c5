"""The short summary of results: one line of text, a table, and the table as HTML for notebooks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from clbench.metrics import METRICS, metric_label
from clbench.scores import INSTEAD, RANKED_BY, STATISTICS, Statistic, shown
from clbench.utils.formatting import counted, format_percent
from clbench.utils.tables import FittedTable, FoldingText, RankedColumn

if TYPE_CHECKING:
    from clbench.results.schema import Result, Spread

HTML_WIDTH = 120
"""Most characters in a line of the HTML table; longer names are folded."""
_HTML = (
    "<pre style=\"white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,"
    "'Courier New',monospace\">{code}</pre>"
)
"""In the page's own colours, light or dark."""


def called(result: Result) -> str:
    """The variant, and its configuration where that says more."""
    configuration = result.method.configuration
    return result.variant if configuration == result.variant else f"{result.variant} ({configuration})"


def title(result: Result) -> str:
    """What a result is of, such as "merge_init on styles of mini-v2: 10 runs"."""
    runs = counted(len(result.runs), "run") + (", partial" if result.partial else "")
    return f"{called(result)} on {result.track} of {result.suite.name}: {runs}"


def one_line(result: Result) -> str:
    """The title, and the score by which boards rank the method, as the result's summary has it."""
    for metric, own in result.summary.items():
        statistic = STATISTICS[RANKED_BY if own.get(RANKED_BY) else INSTEAD]
        value = spread_text(own.get(statistic.name), statistic)
        return f"{title(result)}, {metric_label(metric)} {statistic.label} {value}"
    return title(result)


def spread_text(value: Spread | None, statistic: Statistic | None = None, deviation: bool = True) -> str:
    """A mean and, if there are several runs, its deviation; shares in percent."""
    if value is None:
        return "–"
    std = value.std if deviation and value.n > 1 else None
    if statistic and statistic.unit == "share":
        return format_percent(value.mean, std)
    return f"{value.mean:.3f}" if std is None else f"{value.mean:.3f} ± {std:.3f}"


def result_table(*results: Result) -> FittedTable:
    """The short summary of one or more results: a line for each variant and metric, mean ± std over runs."""
    statistics = shown("headline", "control")
    metrics = {metric for result in results for metric in result.summary}
    higher = {METRICS[metric].higher_is_better for metric in metrics & METRICS.keys()}

    def heading(one: Statistic) -> str:
        arrows = {one.arrow(better) for better in higher}
        return f"{one.label.capitalize()} {arrows.pop() if len(arrows) == 1 else ''}".rstrip()

    table = Table(
        Column("Variant"),
        Column("Metric"),
        # Statistics come with the most important first.
        *(RankedColumn(heading(one), justify="right", no_wrap=True, rank=n) for n, one in enumerate(statistics)),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    for result in results:
        name = result.variant + ("*" if result.partial else "")
        for metric, summary in result.summary.items():
            if INSTEAD not in summary:  # a metric that measures drift alone
                continue
            cells = (spread_text(summary.get(one.name), one, deviation=one.shown != "control") for one in statistics)
            table.add_row(FoldingText(name), FoldingText(metric_label(metric)), *cells)
            name = ""
    if any(result.partial for result in results):
        table.caption = "* partial: runs of the protocol are missing"
    return FittedTable(table)


def result_html(result: Result) -> str:
    """The title and the table as one `<pre>` element with inline styles; all text of the result is escaped."""
    # Neither a terminal nor Jupyter, whatever this process is: nothing is shown, and what is printed is recorded.
    console = Console(
        file=io.StringIO(),
        record=True,
        width=HTML_WIDTH,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(Text(title(result), style="bold"))
    console.print(result_table(result))
    return console.export_html(inline_styles=True, code_format=_HTML)
