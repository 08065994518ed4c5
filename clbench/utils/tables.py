"""Tables that fit the terminal: where it is too narrow, columns are left out, the least important first.

table = Table(Column("Method"), RankedColumn("Base", rank=2, no_wrap=True), RankedColumn("Kept", rank=1, no_wrap=True))
console.print(FittedTable(table))
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

UNLIMITED = 10_000
"""A width in which nothing has to be cut, and a rank above all others."""


@dataclass
class RankedColumn(Column):
    """A column that a narrow terminal need not show."""

    rank: int = 0
    """0 is always shown; of the others the highest rank is left out first, with all columns that have it."""


class FittedTable:
    """A table without the columns for which there is no room; it says which these are.

    No cell of a column with `no_wrap` is cut, unless the column has a `min_width` of its own. Other columns have room
    for their longest word; `FoldingText` and `OneLine` change that.

    Args:
        note: whether a line below the table names the columns that are left out.
    """

    def __init__(self, table: Table, note: bool = True) -> None:
        self._table, self._note = table, note

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        everything = [_uncut(column, console, options) for column in self._table.columns]
        shown, limit = everything, UNLIMITED
        for limit in sorted({UNLIMITED, *map(_rank, everything)} - {0}, reverse=True):
            shown = [column for column in everything if _rank(column) < limit]
            if _least_width(self._with(shown), console, options) <= options.max_width:
                break
        yield self._with(shown)
        if self._note and (left_out := [_name(column) for column in everything if _rank(column) >= limit]):
            yield Text(f"wider terminals also show {', '.join(left_out)}", style="dim")

    def _with(self, columns: list[Column]) -> Table:
        """The table with these of its columns."""
        table = copy(self._table)
        table.columns = [copy(column) for column in columns]
        for number, column in enumerate(table.columns):
            column._index = number  # by which rich finds a column's neighbours
        return table


class FoldingText(Text):
    """A name that may be broken anywhere where there is little room."""

    LEAST = 8
    """Columns that it needs, unless it is shorter."""

    def __init__(self, text: str, style: str = "") -> None:
        super().__init__(text, style, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(self.LEAST, self.cell_len), self.cell_len).with_maximum(options.max_width)


class OneLine(Text):
    """Text that is broken into lines only where leaving out all columns that may go is not enough."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.cell_len, self.cell_len).with_maximum(options.max_width)


def _rank(column: Column) -> int:
    return column.rank if isinstance(column, RankedColumn) else 0


def _name(column: Column) -> str:
    """The first line of a column's heading."""
    heading = column.header
    return (Text.from_markup(heading) if isinstance(heading, str) else heading).plain.splitlines()[0].strip()  # type: ignore[union-attr]


def _uncut(column: Column, console: Console, options: ConsoleOptions) -> Column:
    """The column, as wide as its widest cell at least if it must not wrap."""
    column = copy(column)
    if column.no_wrap and column.min_width is None and column.width is None:
        wide = options.update_width(UNLIMITED)
        cells = (column.header, *column.cells)
        column.min_width = max(Measurement.get(console, wide, cell).maximum for cell in cells)
    return column


def _least_width(table: Table, console: Console, options: ConsoleOptions) -> int:
    return Measurement.get(console, options.update_width(UNLIMITED), table).minimum
