"""What maintainers verified decides which rows are ranked, and which submissions of a variant its row is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from boards import SUITE, load, submit
from builders import make_result

from clbench.leaderboard import Board, make_boards, read_submissions
from clbench.leaderboard.data import FORMATS
from clbench.leaderboard.page import board_page
from clbench.leaderboard.site import build_site
from clbench.leaderboard.submitted import submitted_boards
from clbench.results.io import load_result
from clbench.results.replicates import average
from clbench.results.validation import check_result
from clbench.results.verification import Level, read_verified, record

LEVELS = {"naive": 0.3, "merge_init": 0.6, "keeper": 0.5}


@pytest.fixture
def submissions(tmp_path) -> Path:
    for seed, (method, level) in enumerate(LEVELS.items()):
        submit(make_result(SUITE, method=method, seed=seed, level=level), tmp_path)
    return tmp_path


def verify(submissions: Path, name: str, level: Level = "recomputed", number: int = 1) -> None:
    result = load_result(submissions / f"tiny/styles/{name}.json")
    record(submissions / "VERIFIED.json", result, level, [], number=number)


def board_of(submissions: Path, verified_alone: bool = True) -> Board:
    verified = read_verified(submissions / "VERIFIED.json")
    methods = read_submissions(submissions, load)
    boards = make_boards(methods, load=load, verified=verified, verified_alone=verified_alone)
    return next(board for board in boards if board.track.name == "styles")


def resubmit(submissions: Path, name: str, number: int, seed: int, level: float) -> None:
    folder = submissions / "tiny/styles"
    kept = (folder / f"{name}.json").read_bytes()
    submit(make_result(SUITE, method=name, seed=seed, level=level), submissions)
    (folder / f"{name}.json").rename(folder / f"{name}+{number}.json")
    (folder / f"{name}.json").write_bytes(kept)


def test_unverified_rows_stand_below_without_a_rank_and_are_marked(submissions, tmp_path):
    verify(submissions, "naive")
    verify(submissions, "keeper")
    board = board_of(submissions)
    assert [method.variant for method in board.methods] == ["keeper", "naive", "merge_init"]
    assert board.ranks["merge_init"] == "–"
    assert {board.ranks["keeper"], board.ranks["naive"]} <= {"1", "2", "1–2"}
    assert board.remark(board.methods[-1]) == "unverified, no rank"
    assert "merge_init" not in board.unbeaten("csd", "average_score")
    page = board_page(board, tmp_path / "styles.md")
    assert "Unverified results stand below the others, without a rank." in page
    assert "unverified, no rank" in page
    for suffix, format in FORMATS.items():
        assert ("merge_init" in format.render(board)) == (suffix != ".pairs.csv"), "only ranked methods are compared"
    build_site([board], tmp_path / "site")
    assert "unverified, no rank" in (tmp_path / "site/tiny/styles/index.html").read_text()


def test_without_the_rule_all_rows_are_ranked(submissions, tmp_path):
    verify(submissions, "naive")
    board = board_of(submissions, verified_alone=False)
    assert [method.variant for method in board.methods] == ["merge_init", "keeper", "naive"]
    assert "–" not in board.ranks.values()
    assert "Unverified" not in board_page(board, tmp_path / "styles.md")


def test_where_nothing_is_verified_nothing_is_ranked_and_the_board_is_still_built(submissions, tmp_path):
    board = board_of(submissions)
    assert set(board.ranks.values()) == {"–"}
    assert [method.variant for method in board.methods] == ["merge_init", "keeper", "naive"]
    assert "Unverified results stand below" in board_page(board, tmp_path / "styles.md")
    build_site([board], tmp_path / "site")


def test_the_rule_holds_where_there_is_a_maintainers_file(tmp_path):
    suite_boards = submitted_boards(tmp_path / "submissions", tmp_path)
    assert not any(board.verified_alone for board in suite_boards)
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions/VERIFIED.json").write_text("{}")
    assert all(board.verified_alone for board in submitted_boards(tmp_path / "submissions", tmp_path))


def test_a_row_is_the_mean_of_its_verified_replicates(submissions):
    resubmit(submissions, "naive", 2, seed=7, level=0.5)
    resubmit(submissions, "naive", 3, seed=8, level=0.9)
    first, second = (load_result(submissions / f"tiny/styles/{name}.json") for name in ("naive", "naive+2"))

    def csd(board: Board) -> np.ndarray:
        return next(method for method in board.methods if method.variant == "naive").matrices["csd"]

    one, two = (np.array([run.matrix("csd") for run in result.runs]) for result in (first, second))
    verify(submissions, "naive")
    np.testing.assert_array_equal(csd(board_of(submissions)), one)  # the others are not verified
    verify(submissions, "naive+2", "rerun", number=2)
    assert read_verified(submissions / "VERIFIED.json").keys() == {"tiny/styles/naive", "tiny/styles/naive+2"}
    board = board_of(submissions)
    np.testing.assert_allclose(csd(board), (one + two) / 2, rtol=1e-12)
    assert board.levels["naive"] == "recomputed", "the weaker of the two"
    assert board.replicates["naive"] == 2
    assert "mean of 2 submissions" in board.remark(next(own for own in board.methods if own.variant == "naive"))


def test_where_no_replicate_is_verified_the_row_is_the_mean_of_all(submissions):
    resubmit(submissions, "naive", 2, seed=7, level=0.5)
    board = board_of(submissions)
    assert board.replicates["naive"] == 2
    assert board.levels["naive"] == "unverified"


def test_a_mean_of_replicates_is_a_valid_result(submissions):
    resubmit(submissions, "naive", 2, seed=0, level=0.5)
    replicates = [one for one in read_submissions(submissions, load) if one.variant == "naive"]
    assert len(replicates) == 2
    mean = average(replicates)
    assert check_result(mean.result, SUITE) == []
    assert mean.result.runs[0].train_seconds == replicates[0].result.runs[0].train_seconds
    assert average(replicates[:1]) is replicates[0]
