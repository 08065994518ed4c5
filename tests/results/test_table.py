"""The short summary of a result: as one line, as a table, and as HTML."""

import io
import re
from html.parser import HTMLParser

import pytest
from builders import make_result, tiny_suite
from hostile import PAYLOADS
from rich.console import Console, RenderableType

from clbench.results.schema import Result, Spread
from clbench.results.table import result_table

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)


def printed(table: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def percent(spread: Spread | None) -> str:
    assert spread is not None
    assert spread.std is not None
    return f"{100 * spread.mean:.0f} ± {100 * spread.std:.0f} %"


def test_the_table_at_the_end_of_a_run_has_the_shares_in_percent():
    text = printed(result_table(GOOD))
    for heading in ("Score ↑", "Forgetting ↓", "Learned ↑", "Kept ↑", "Base"):
        assert heading in text
    assert "Plasticity" not in text
    assert "Memory" not in text
    for metric in ("csd", "dino"):
        assert percent(GOOD.summary[metric]["learned"]) in text
        assert percent(GOOD.summary[metric]["kept"]) in text


def test_the_table_at_the_end_of_a_run_fits_80_columns_without_cutting_a_number():
    wide = {
        "average_score": Spread(mean=-0.123, std=0.456, n=8),
        "average_forgetting": Spread(mean=0.123, std=0.456, n=8),
        "learned": Spread(mean=-1.09, std=1.01, n=8),
        "kept": Spread(mean=-1.19, std=1.02, n=8),
        "base": Spread(mean=-0.123, std=0, n=8),
    }
    method = GOOD.method.model_copy(update={"name": "merge_ortho_products"})
    result = GOOD.model_copy(update={"method": method, "summary": {"clip_t": wide}, "partial": True})
    text = printed(result_table(result))
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("-0.123 ± 0.456", "0.123 ± 0.456", "-109 ± 101 %", "-119 ± 102 %", " -0.123", "CLIP-T"):
        assert shown in text


def test_the_table_marks_a_partial_result():
    text = printed(result_table(PARTIAL))
    assert "naive*" in text
    assert "* partial: runs of the protocol are missing" in text
    assert "*" not in printed(result_table(GOOD))


def test_a_result_is_shown_as_one_line():
    kept = GOOD.summary["csd"]["kept"]
    assert kept is not None
    assert kept.std is not None
    assert repr(GOOD) == (
        f"<Result naive on styles of tiny: 4 runs, CSD kept {100 * kept.mean:.0f} ± {100 * kept.std:.0f} %>"
    )
    assert str(GOOD) == repr(GOOD)


def test_the_line_says_that_a_result_is_partial_and_has_no_deviation_of_one_run():
    kept = PARTIAL.summary["csd"]["kept"]
    assert kept is not None
    assert repr(PARTIAL) == f"<Result naive on styles of tiny: 1 run, partial, CSD kept {100 * kept.mean:.0f} %>"


def test_the_line_needs_neither_a_summary_nor_a_known_metric():
    assert repr(GOOD.model_copy(update={"summary": {}})) == "<Result naive on styles of tiny: 4 runs>"
    odd = GOOD.model_copy(update={"summary": {"fid": {"average_score": None}}})
    assert repr(odd) == "<Result naive on styles of tiny: 4 runs, fid score –>"
    assert "fid" in odd._repr_html_()


class Elements(HTMLParser):
    """The elements of a page, their attributes' names, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("result", [GOOD, PARTIAL], ids=["whole", "partial"])
def test_a_notebook_shows_the_terminals_table_under_a_title(result: Result, capsys):
    found = Elements(result._repr_html_())
    title, *table = [line.rstrip() for line in found.text.splitlines()]
    assert title == re.sub(r"<Result (.*), CSD .*>", r"\1", repr(result))
    assert table == [line.rstrip() for line in printed(result_table(result), width=120).splitlines()]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("payload", [*PAYLOADS, "[bold]x[/bold]", "[link=javascript:window.__xss=1]x[/link]"])
def test_no_text_of_a_result_becomes_an_element_or_an_attribute_of_the_notebook(payload: str):
    spread = GOOD.summary["csd"]
    hostile = GOOD.model_copy(
        update={
            "variant": payload,
            "method": GOOD.method.model_copy(update={"name": payload}),
            "suite": GOOD.suite.model_copy(update={"name": payload}),
            "track": payload,
            "summary": {payload: spread},
        }
    )
    page = hostile._repr_html_()
    found = Elements(page)
    assert found.elements == {"pre", "span"}
    assert found.attributes == {"style"}
    assert set(re.findall(r'style="([^"]*)"', page)) == set(re.findall(r'style="([^"]*)"', GOOD._repr_html_()))
    for part in (f"{payload} on {payload} of {payload}", "4 runs"):
        assert "".join(part.split()) in "".join(found.text.split())
