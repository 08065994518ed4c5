"""Two results run by run, in the terminal and as data."""

import io
import json

import numpy as np
import pytest
from builders import make_result, tiny_suite
from rich.console import Console

from clbench.cli.render import render_comparison
from clbench.results.compare import COMPARED, Comparison, compare_results
from clbench.results.schema import Result
from clbench.results.summary import statistics_of
from clbench.suite import Suite


def suite_of(orders: int) -> Suite:
    """The tiny suite with so many orders; each has two seeds."""
    suite = tiny_suite()
    track = suite.track("styles")
    more = {f"{number:02}": track.orders["0" if number % 2 else "5"] for number in range(orders)}
    tracks = {**suite.tracks, "styles": track.model_copy(update={"orders": more})}
    return suite.model_copy(update={"tracks": tracks})


def compared(orders: int) -> tuple[Comparison, Result, Result]:
    suite = suite_of(orders)
    first, second = (
        make_result(suite, method=name, seed=seed, level=level) for name, seed, level in (("a", 1, 0.5), ("b", 2, 0.4))
    )
    return compare_results(first, second, suite), first, second


def printed(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=80)
    render_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_shared_runs_count_however_many():
    comparison, first, second = compared(orders=12)
    assert len(comparison.runs) == 24
    track = suite_of(12).track("styles")
    for name in COMPARED:
        found = comparison.statistics["csd"][name]
        assert found is not None
        one, two = (statistics_of(own.runs, own.controls, "csd", track)[name] for own in (first, second))
        assert (found.first, found.second) == pytest.approx((one.mean(), two.mean()))
        assert found.difference == pytest.approx(np.mean(one - two))
    assert printed(comparison).startswith("a against b on styles, 24 shared runs")


@pytest.mark.parametrize(
    ("orders", "says"),
    [
        (4, "p: uncorrected exact sign-flip permutation test; with these runs none is below 0.008."),
        (9, "p: uncorrected sign-flip permutation test with 100,000 random flips (seed 20241005)"),
    ],
)
def test_the_table_says_whether_p_is_exact_or_drawn_and_shows_no_p_of_zero(orders, says):
    table = printed(compared(orders)[0])
    assert says in " ".join(table.split())
    assert ("<0.001" in table) == (orders == 9)
    assert " 0.000\n" not in table


def test_shares_are_percent_in_the_table_and_shares_in_the_data():
    comparison, first, _ = compared(orders=4)
    kept = comparison.statistics["csd"]["kept"]
    assert kept is not None
    assert first.summary["csd"]["kept"] is not None
    assert kept.first == pytest.approx(first.summary["csd"]["kept"].mean)
    assert json.loads(json.dumps(comparison.as_json()))["statistics"]["csd"]["kept"]["first"] == kept.first
    [line] = [line for line in printed(comparison).splitlines() if "kept, %" in line][:1]
    assert [f"{100 * kept.first:.1f}", f"{100 * kept.second:.1f}", f"{100 * kept.difference:+.1f}"] == line.split()[2:5]
    assert not any("memory" in line for line in printed(comparison).splitlines())
