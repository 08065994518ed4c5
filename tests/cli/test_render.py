"""How results are shown in the terminal."""

import io

import numpy as np
import pytest
from builders import make_result, tiny_suite
from rich.console import Console

from clbench.cli.render import heatmap, render_result
from clbench.errors import ClbenchError
from clbench.results.analysis import analyze
from clbench.results.schema import Result, Spread

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)


def printed(*renderables, result: Result | None = None, **options) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor", legacy_windows=False)
    if result is not None:
        render_result(analyze(result, SUITE.track(result.track)), SUITE, console, **options)
    console.print(*renderables)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_show_prints_every_metric_the_summary_and_the_controls():
    text = printed(result=GOOD)
    for word in (
        "CSD",
        "DINO",
        "CLIP-T",
        "average score",
        "learned",
        "kept",
        "last-task floor",
        "real against real",
        "adapter",
    ):
        assert word in text
    assert "partial" not in text


def test_show_says_that_a_result_is_partial():
    assert "partial: 1 of the protocol's 4 runs" in printed(result=PARTIAL)


def percent(spread: Spread | None) -> str:
    assert spread is not None
    assert spread.std is not None
    return f"{100 * spread.mean:.0f} ± {100 * spread.std:.0f} %"


def test_show_gives_the_shares_in_percent_and_everything_else_in_cosines():
    text = printed(result=GOOD)
    csd = GOOD.summary["csd"]
    for name in ("learned", "kept"):
        [line] = [line for line in text.splitlines() if line.strip().startswith(name)]
        assert percent(csd[name]) in line
    assert text.count("%") == 4, "two shares of two headline metrics"


def test_show_can_print_one_run_under_its_tasks_names():
    assert "byzantine" not in printed(result=GOOD)
    text = printed(result=GOOD, run=1)
    assert text.index("winter") < text.index("byzantine") < text.index("ink art")
    with pytest.raises(ClbenchError, match="no run 5; this result has runs 1 to 4"):
        printed(result=GOOD, run=5)


@pytest.mark.parametrize("named", [True, False])
def test_a_ten_task_heatmap_fits_80_columns_without_cutting_a_score(named):
    R = np.tril(np.full((11, 10), 0.25), -1) - np.eye(11, 10) + np.where(np.arange(11) == 0, 0.5, 0)[:, None]
    R[np.triu_indices(11, 0, 10)] = np.nan
    R[0], R[1, 0] = 0.5, -0.05
    names = [f"palette knife {number}" if named else "" for number in range(10)]
    console = Console(file=io.StringIO(), width=80)
    console.print(heatmap(R, names, "CSD"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "-0.05" in console.file.getvalue()
    assert sum(line.count("0.25") for line in lines) == 54
