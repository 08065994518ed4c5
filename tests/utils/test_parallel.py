"""Work on all cores gives what one process gives: verdicts, boards and pages."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from boards import SUITE, contents, load, submit
from builders import make_result
from shops import refuse, with_process

from clbench.errors import ClbenchError
from clbench.leaderboard import make_boards, read_submissions
from clbench.leaderboard.site import build_site
from clbench.results.io import save_result
from clbench.results.validation import check_files
from clbench.suite import load_suite
from clbench.utils import parallel as cores
from clbench.utils.parallel import parallel_map


@pytest.fixture
def share(monkeypatch) -> Callable[[], None]:
    """From its call on, two items are many, and there are two cores."""

    def from_now_on() -> None:
        monkeypatch.setattr(cores, "SERIAL_LIMIT", 1)
        monkeypatch.setattr(cores.os, "cpu_count", lambda: 2)

    return from_now_on


@pytest.fixture
def submissions(tmp_path) -> Path:
    for seed, method in enumerate(("naive", "merge_init", "magmax")):
        submit(make_result(SUITE, method=method, seed=seed), tmp_path / "submissions")
    return tmp_path / "submissions"


def test_few_items_are_done_in_this_process():
    assert parallel_map(with_process, range(5)) == [(item * item, os.getpid()) for item in range(5)]


def test_many_are_done_in_others_and_come_back_in_order(share):
    share()
    done = parallel_map(with_process, range(100))
    assert [square for square, _ in done] == [item * item for item in range(100)]
    assert os.getpid() not in {process for _, process in done}


def test_an_error_is_raised_as_it_is(share):
    share()
    with pytest.raises(ClbenchError, match=r"^3 is too much$"):
        parallel_map(partial(refuse, 3), range(4))


def test_files_have_the_same_findings(submissions, share):
    mini = load_suite("mini-v2")
    save_result(make_result(mini), submissions / "mini-v2/styles/naive.json")
    save_result(make_result(mini, method="hasty", quick=True), submissions / "mini-v2/objects/hasty.json")
    (submissions / "mini-v2/styles/broken.json").write_text("{")
    paths = sorted(submissions.rglob("*.json"))
    alone = check_files(paths)
    codes = {
        path.parts[-3] + "/" + path.stem: [one.code for one in own] for path, own in zip(paths, alone, strict=True)
    }
    assert codes == {
        "mini-v2/hasty": ["CLB004", "CLB017"],
        "mini-v2/broken": ["CLB000"],
        "mini-v2/naive": [],
        **{f"tiny/{method}": ["CLB000"] for method in ("magmax", "merge_init", "naive")},  # of a suite nobody knows
    }
    share()
    assert check_files(paths) == alone


def test_boards_and_pages_are_the_same(submissions, tmp_path, share):
    alone = read_submissions(submissions, load)
    build_site(make_boards(alone, load=load), tmp_path / "alone")
    share()
    together = read_submissions(submissions, load)
    assert [method.result for method in together] == [method.result for method in alone]
    build_site(make_boards(together, load=load), tmp_path / "together")
    assert len(contents(tmp_path / "alone")) > 10
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
