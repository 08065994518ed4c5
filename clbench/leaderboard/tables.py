"""One table model for every output format, and its rendering to markdown and LaTeX. It knows nothing of results.

A cell holds plain text, never markup: the renderer escapes it, so that a stranger's string stays a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from tabulate import tabulate


@dataclass(frozen=True)
class Cell:
    """A value and how it is shown."""

    text: str
    """What is shown, as plain text."""
    value: float | None = None
    """What is compared with the rest of the column; None = not compared."""
    mark: Literal["", "best", "second", "code"] = ""
    """Bold, underlined, or set as code."""
    note: str = ""
    """What is added where there is room, such as an interval; LaTeX leaves it out."""


@dataclass(frozen=True)
class Column:
    """A heading and what is better in it."""

    heading: str
    better: Literal["", "higher", "lower"] = ""
    """Empty = the column has no best."""
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Table:
    """Columns and rows of equal length."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def mark_best(table: Table) -> Table:
    """Mark the best and the second value of every column that has a best, as the paper's tables do.

    Equal values (as rounded by the caller) share the mark.
    """
    columns = []
    for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        values = {cell.value for cell in cells if cell.value is not None} if column.better else set()
        places = dict(zip(sorted(values, reverse=column.better == "higher"), ("best", "second"), strict=False))
        columns.append([replace(cell, mark=places.get(cell.value, cell.mark)) for cell in cells])
    return replace(table, rows=tuple(zip(*columns, strict=True)))


def to_markdown(table: Table) -> str:
    """A GitHub-flavoured markdown table, aligned in the raw text too."""
    return tabulate(
        [[_markdown_cell(cell) for cell in row] for row in table.rows],
        headers=[column.heading for column in table.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=[column.align for column in table.columns],
    )


def to_latex(table: Table) -> str:
    """A booktabs `tabular`: best bold, second underlined, as in the paper."""
    around = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "code": r"\texttt{{{}}}"}
    lines = [" & ".join(_latex(column.heading) for column in table.columns)]
    lines += [" & ".join(around[cell.mark].format(_latex(cell.text)) for cell in row) for row in table.rows]
    spec = "".join({"left": "l", "right": "r"}[column.align] for column in table.columns)
    head, *body = (line + r" \\" for line in lines)
    rows = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(rows) + "\n"


_LATEX = {char: rf"\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}


def _latex(text: str) -> str:
    """Plain text as LaTeX that shows just that text, on one line."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def escape(text: str) -> str:
    """Plain text as markdown that shows just that text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~&#!])", r"\\\1", " ".join(text.split()))


def code_span(text: str) -> str:
    """Plain text as a markdown code span, on one line, whatever backticks it holds."""
    line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _markdown_cell(cell: Cell) -> str:
    if cell.mark == "code":
        return code_span(cell.text).replace("|", "\\|")  # a table splits at bare pipes, in code spans too
    around = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}[cell.mark]
    return around.format(escape(cell.text)) + (f" ({escape(cell.note)})" if cell.note else "")
