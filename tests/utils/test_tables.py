"""Tables that fit the terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Column, Table

from clbench.utils.tables import FittedTable, FoldingText, OneLine, RankedColumn


def shown(table: Table, width: int, note: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(FittedTable(table, note))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def table() -> Table:
    names = (RankedColumn(name, no_wrap=True, rank=rank) for name, rank in (("mean", 0), ("low", 2), ("high", 2)))
    made = Table(Column("name"), *names, RankedColumn("p", no_wrap=True, rank=1), box=None)
    made.add_row(FoldingText("a_name_with_many_letters"), "0.123456", "-0.12345", "+0.12345", "0.001")
    return made


@pytest.mark.parametrize(
    ("width", "numbers", "note"),
    [
        (60, ["0.123456", "-0.12345", "+0.12345", "0.001"], None),
        (30, ["0.123456", "0.001"], "wider terminals also show low, high"),
        (20, ["0.123456"], "wider terminals also show low, high, p"),
    ],
)
def test_columns_go_by_their_rank_and_are_named_and_no_number_is_cut(width, numbers, note):
    text = shown(table(), width)
    assert [word for word in text.split() if word[-1].isdigit()] == numbers
    assert (note in " ".join(text.split())) if note else ("wider" not in text)
    assert max(map(len, text.splitlines())) <= width


def test_a_column_without_rank_stays_where_nothing_fits():
    assert "0.123456" in shown(table(), 9)


def test_one_line_of_text_is_broken_only_when_no_column_is_left_to_leave_out():
    made = Table(Column(""), RankedColumn("bar", no_wrap=True, rank=1), box=None, show_header=False)
    made.add_row(OneLine("order 0 seed 0"), "------")
    assert shown(made, 16, note=False).strip() == "order 0 seed 0"
    assert shown(made, 8, note=False).split() == ["order", "0", "seed", "0"]
