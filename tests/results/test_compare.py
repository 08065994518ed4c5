"""Two results run by run, in the terminal and as data."""

import io
import json
import re

import numpy as np
import pytest
from builders import make_result, tiny_suite
from rich.console import Console

from clbench.cli.render import render_comparison
from clbench.results.analysis import Analysis, analyze
from clbench.results.compare import Comparison, compare_results
from clbench.scores import shown
from clbench.suite import Suite


def suite_of(orders: int) -> Suite:
    """The tiny suite with so many orders; each has two seeds."""
    suite = tiny_suite()
    track = suite.track("styles")
    more = {f"{number:02}": track.orders["0" if number % 2 else "5"] for number in range(orders)}
    tracks = {**suite.tracks, "styles": track.model_copy(update={"orders": more})}
    return suite.model_copy(update={"tracks": tracks})


def compared(orders: int) -> tuple[Comparison, Analysis, Analysis]:
    suite = suite_of(orders)
    made = (make_result(suite, method="a", seed=1, level=0.5), make_result(suite, method="b", seed=2, level=0.4))
    first, second = (analyze(result, suite.track("styles")) for result in made)
    return compare_results(first, second), first, second


def printed(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=80)
    render_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_shared_runs_count_however_many():
    comparison, first, second = compared(orders=12)
    assert len(comparison.runs) == 24
    assert list(comparison.statistics["csd"]) == [one.name for one in shown() if not one.optional], (
        "no run measures the others"
    )
    for name, found in comparison.statistics["csd"].items():
        assert found is not None
        one, two = (own.statistics["csd"][name] for own in (first, second))
        assert (found.first, found.second) == pytest.approx((one.mean(), two.mean()))
        assert found.difference == pytest.approx(np.mean(one - two))
    assert printed(comparison).startswith("a against b on styles, 24 shared runs")


@pytest.mark.parametrize(
    ("orders", "says"),
    [
        (4, "p: paired t test over 4 orders with Holm's correction over all rows."),
        (9, "p: sign-flip test over 9 orders of all rows at once (step-down max-T; exact)."),
        (18, "p: sign-flip test over 18 orders of all rows at once (step-down max-T; 100,000 random flips"),
    ],
)
def test_the_table_says_how_p_was_made_and_shows_no_p_of_zero(orders, says):
    table = printed(compared(orders)[0])
    assert says in " ".join(table.split())
    assert " 0.000\n" not in table


def test_the_rows_of_a_comparison_are_corrected_together():
    """Under the null a bold row anywhere is as rare as one test's error, not as many tests' errors added up."""
    comparison, first, _ = compared(orders=10)
    found = [own for rows in comparison.statistics.values() for own in rows.values() if own]
    assert all((own.p_corrected or 0) >= (own.p or 0) for own in found)
    assert len(found) > 10
    same = compare_results(first, first)
    assert not any(own and own.separable for rows in same.statistics.values() for own in rows.values())


def test_shares_are_percent_in_the_table_and_shares_in_the_data():
    comparison, first, _ = compared(orders=4)
    kept = comparison.statistics["csd"]["kept"]
    assert kept is not None
    assert first.summary["csd"]["kept"] is not None
    assert kept.first == pytest.approx(first.summary["csd"]["kept"].mean)
    assert json.loads(json.dumps(comparison.as_json()))["statistics"]["csd"]["kept"]["first"] == kept.first
    [line] = [line for line in printed(comparison).splitlines() if "kept, %" in line][:1]
    assert [f"{100 * kept.first:.1f}", f"{100 * kept.second:.1f}", f"{100 * kept.difference:+.1f}"] == re.sub(
        "^.*kept, %", "", line
    ).split()[:3]


def test_a_single_shared_run_has_no_interval_and_no_p():
    suite = suite_of(2)
    made = (make_result(suite, method=name, seed=seed, quick=True) for seed, name in enumerate("ab"))
    comparison = compare_results(*(analyze(result, suite.track("styles")) for result in made))
    found = comparison.as_json()["statistics"]["csd"]["average_score"]
    assert (found["interval"], found["p"]) == (None, None)
    assert found["difference"] == pytest.approx(found["first"] - found["second"])
    text = printed(comparison)
    assert "1 shared run\n" in text
    assert "One shared order: no interval and no test" in text
    assert " to " not in text
