"""One table model for every output format, and its rendering to markdown, LaTeX and HTML. It knows nothing of results.

A cell holds plain text, never markup: the renderer escapes it, so that a stranger's string stays a string.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from markupsafe import Markup
from markupsafe import escape as html
from tabulate import tabulate


@dataclass(frozen=True)
class Cell:
    """A value, how it is shown, and where it comes from."""

    text: str
    """The shown text, plain."""
    value: float | str | None = None
    """The value to sort by; None = none."""
    mark: Literal["", "best", "code", "tag"] = ""
    """Bold, set as code, or a label."""
    deviation: str = ""
    """The deviation of a mean, e.g. "± 0.013"."""
    note: str = ""
    """An addition where there is room, such as an interval; LaTeX leaves it out."""
    source: str = ""
    """Where it comes from, e.g. "csd.average_score of mini-v2/styles/naive.json"; shown by HTML."""

    @property
    def whole(self) -> str:
        """The text with its deviation."""
        return f"{self.text} {self.deviation}".rstrip()


BLANK = Cell("–")
"""The cell of a value that is not measured or undefined."""


@dataclass(frozen=True)
class Column:
    """A heading, and how its cells are aligned."""

    heading: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Table:
    """Columns and rows of equal length."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    commands: tuple[str, ...] = ()
    """For each row the command that makes it again, or ""; () if no row has one."""


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
    """A booktabs `tabular`: what nothing beats bold; each row's command is a comment."""
    around = {"": "{}", "tag": "{}", "best": r"\textbf{{{}}}", "code": r"\texttt{{{}}}"}
    lines = [" & ".join(_latex(column.heading) for column in table.columns)]
    lines += [" & ".join(around[cell.mark].format(_latex(cell.whole)) for cell in row) for row in table.rows]
    comments = ["", *(command and f" % {_one_line(command)}" for command in table.commands or [""] * len(table.rows))]
    spec = "".join({"left": "l", "right": "r"}[column.align] for column in table.columns)
    head, *body = (rf"{line} \\{comment}" for line, comment in zip(lines, comments, strict=True))
    rows = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(rows) + "\n"


def unbroken(heading: str) -> str:
    """With its arrow on the line of the word before it."""
    return re.sub(" (?=[↑↓])", "\N{NO-BREAK SPACE}", heading)


_TAGS = {"": ("", ""), "best": ("<b>", "</b>"), "code": ("<code>", "</code>"), "tag": ('<span class="tag">', "</span>")}


def to_html(table: Table) -> Markup:
    """Heading and body of an HTML table, every text escaped; a cell's `title` says where it comes from.

    A first column of texts names the rows.
    """
    texts = [column.align == "left" for column in table.columns]
    headings = "".join(
        f'<th scope="col"{_TEXT if is_text else ""}>{html(unbroken(column.heading))}</th>'
        for column, is_text in zip(table.columns, texts, strict=True)
    )
    starts = [("td", _TEXT if is_text else "") for is_text in texts]
    if texts[0]:
        starts[0] = "th", ' scope="row"'
    body = "".join(
        f"<tr>{''.join(_html_cell(*start, cell) for start, cell in zip(starts, row, strict=True))}</tr>\n"
        for row in table.rows
    )
    return Markup(f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{body}</tbody>")


_TEXT = ' class="text"'


def _html_cell(kind: str, attributes: str, cell: Cell) -> str:
    # By f-strings, since a template would take three times as long for the thousands of cells of a page.
    title = f' title="{html(cell.source)}"' if cell.source else ""
    start, end = _TAGS[cell.mark]
    note = f"<small>{html(cell.note)}</small>" if cell.note else ""
    return f"<{kind}{attributes}{title}>{start}{html(cell.whole)}{end}{note}</{kind}>"


def to_csv(table: Table) -> str:
    """Comma-separated values of what is shown, a deviation or a note in a column of its own."""
    parts = (("", "text"), (" deviation", "deviation"), (" note", "note"))
    shown = [
        (f"{column.heading}{title}", place, part)
        for place, column in enumerate(table.columns)
        for title, part in parts
        if part == "text" or any(getattr(row[place], part) for row in table.rows)
    ]
    rows = [[getattr(row[place], part) for _, place, part in shown] for row in table.rows]
    return csv_text([name for name, *_ in shown], rows)


def csv_text(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated values with a heading."""
    return csv_lines([names]) + csv_lines(rows)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """A line of comma-separated values for each row; text that a spreadsheet would take for a formula is quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_no_formula(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


_FORMULA = re.compile(r"""(^|[;\t])(?=["'\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r])""")
"""Where a spreadsheet would see a formula begin, with full-width signs too, and where `;` or tab separates cells."""


@lru_cache(1024)  # most text of a table is in many of its cells
def _no_formula(text: str) -> str:
    return _FORMULA.sub(r"\1'", text)


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
    return "".join(_LATEX.get(char, char) for char in _one_line(text))


def escape(text: str) -> str:
    """Plain text as markdown that shows just that text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~&#!])", r"\\\1", _one_line(text))


def code_span(text: str) -> str:
    """Plain text as a markdown code span, on one line, whatever backticks it holds."""
    line = _one_line(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _markdown_cell(cell: Cell) -> str:
    if cell.mark == "code":
        return code_span(cell.text).replace("|", "\\|")  # a table splits at bare pipes, in code spans too
    around = {"": "{}", "tag": "{}", "best": "**{}**"}[cell.mark]
    return around.format(escape(cell.whole)) + (f" ({escape(cell.note)})" if cell.note else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())
