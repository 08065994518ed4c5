"""Bounds and methods that are told the task: they stand below the others, and are not ranked among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boards import SUITE, load, submit
from builders import make_result, signed

from clbench.leaderboard import Board, make_boards, read_submissions
from clbench.leaderboard.overall import overall
from clbench.leaderboard.page import board_page
from clbench.leaderboard.site import build_site
from clbench.results.validation import check_result


def board_of(folder: Path, kinds: dict[str, dict[str, Any]]) -> Board:
    """A board of methods by name, better from one to the next, whose runs have these fields."""
    for number, (name, fields) in enumerate(kinds.items()):
        result = make_result(SUITE, method=name, seed=number, level=0.2 + 0.15 * number)
        runs = tuple(run.model_copy(update=fields) for run in result.runs)
        submit(signed(result.model_copy(update={"runs": runs})), folder)
    boards = make_boards(read_submissions(folder, load), load=load)
    return next(board for board in boards if board.track.name == "styles")


KINDS: dict[str, dict[str, Any]] = {
    "naive": {},
    "merge_init": {},
    "told-1": {"told_task": True},
    "told-2": {"told_task": True},
    "limit": {"regime": "bound", "told_task": True, "training_passes": 7.5},
}


def test_they_stand_below_the_others_which_are_ranked_as_if_they_were_not_there(tmp_path):
    board = board_of(tmp_path / "all", KINDS)
    alone = board_of(tmp_path / "alone", {name: KINDS[name] for name in ("naive", "merge_init")})
    assert [method.variant for method in board.methods] == ["merge_init", "naive", "told-2", "told-1", "limit"]
    assert {name: board.ranks[name] for name in ("naive", "merge_init")} == alone.ranks
    assert board.ranking.pairs == alone.ranking.pairs
    assert board.ranks["limit"] == "–"
    assert board.ranks["told-1"].startswith("†")
    assert board.ranks["told-2"].startswith("†1")
    assert [bool(method.strict) for method in board.methods] == [True, True, False, False, False]


def test_tables_and_pages_say_so(tmp_path):
    board = board_of(tmp_path, KINDS)
    assert board.remark(board.methods[-1]) == "a bound, no rank"
    assert board.remark(board.methods[-2]) == "told the task, ranked apart"
    assert board.records[-1]["training_passes"] == 7.5
    assert [record["told_task"] for record in board.records] == [False, False, True, True, True]
    page = board_page(board, tmp_path / "styles.md")
    assert "Bounds have no rank." in page
    assert "7.50" in page
    build_site([board], tmp_path / "site")
    html = (tmp_path / "site/tiny/styles/index.html").read_text()
    assert html.count("told the task, ranked apart") == 2
    assert overall([board]) is None or "limit" not in str(overall([board]))


def test_a_board_of_bounds_alone_is_still_built(tmp_path):
    board = board_of(tmp_path, {"limit": {"regime": "bound"}})
    assert [method.variant for method in board.methods] == ["limit"]
    build_site([board], tmp_path / "site")


@pytest.mark.parametrize(
    ("passes", "regime", "refused"), [(2.0, "model", False), (2.1, "model", True), (9, "bound", False)]
)
def test_clb028_only_a_bound_trains_longer_than_the_suite_allows(passes, regime, refused):
    good = make_result(SUITE)
    runs = tuple(run.model_copy(update={"training_passes": passes, "regime": regime}) for run in good.runs)
    found = [finding.code for finding in check_result(signed(good.model_copy(update={"runs": runs})), SUITE)]
    assert ("CLB028" in found) == refused
    assert "CLB014" not in found
