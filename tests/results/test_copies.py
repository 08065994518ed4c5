"""Submissions that are copies of others, or cannot lie beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import make_result, signed
from commands import clbench, refusal
from paths import ROOT

from clbench.leaderboard import read_submissions
from clbench.results.copies import Compared, conflicts, to_compare
from clbench.results.io import load_result, save_result
from clbench.results.schema import Result
from clbench.results.summary import summarize
from clbench.results.validation import load_valid
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")
ORIGINAL = ROOT / "submissions/mini-v2/styles/naive.json"


def copy(variant: str, jitter: float, method: str | None = None) -> Result:
    """The committed result of naive under another name, with noise on all scores of trained models."""
    result, rng = load_result(ORIGINAL), np.random.default_rng(1)

    def moved(rows):
        moved_rows = (tuple(v if v is None else v + rng.uniform(-jitter, jitter) for v in row) for row in rows[1:])
        return (rows[0], *moved_rows)

    runs = tuple(
        run.model_copy(update={"scores": {metric: moved(rows) for metric, rows in run.scores.items()}})
        for run in result.runs
    )
    reference = result.method.model_copy(update={"name": method or variant, "source_sha256": "e" * 64})
    summary = summarize(runs, result.controls, SUITE.track("styles"))
    update = {"runs": runs, "summary": summary, "variant": variant, "method": reference}
    return signed(result.model_copy(update=update))


def filed(result: Result, folder: Path) -> Path:
    save_result(result, folder / "submissions" / result.place)
    return folder / "submissions" / result.place


def compared(*paths: Path) -> list[Compared]:
    return [to_compare(load_valid(path)) for path in paths]


def test_the_committed_submissions_are_no_copies():
    assert list(conflicts(list(map(to_compare, read_submissions(ROOT / "submissions"))))) == []


@pytest.mark.parametrize("jitter", [0.0, 0.001, 0.015])
def test_a_jittered_copy_under_another_name_is_invalid_beside_the_original(tmp_path, jitter):
    original, other = filed(load_result(ORIGINAL), tmp_path), filed(copy("mine", jitter), tmp_path)
    assert clbench("validate", other) == f"{other}: valid\n"
    assert "mine.json: CLB024 csd is that of 'naive' but for jitter" in clbench("validate", original, other, code=2)
    options = ("--submissions", tmp_path / "submissions", "--output", tmp_path / "board")
    assert "CLB024" in refusal("leaderboard", *options)
    assert not (tmp_path / "board").exists()


def test_a_copy_is_refused_before_it_is_filed(tmp_path):
    filed(load_result(ORIGINAL), tmp_path)
    save_result(copy("mine", 0.001), tmp_path / "mine.json")
    options = ("--submitter", "A. Lab", "--submissions", tmp_path / "submissions")
    assert "CLB024" in refusal("submit", tmp_path / "mine.json", *options)
    assert not (tmp_path / "submissions/mini-v2/styles/mine.json").exists()


def test_a_repeated_run_is_filed_beside_the_first_and_is_no_copy(tmp_path):
    original = load_result(ORIGINAL)
    filed(original, tmp_path)
    repeated = copy("naive", 1e-5, "naive")
    save_result(signed(repeated.model_copy(update={"method": original.method})), tmp_path / "naive.json")
    options = ("--submitter", "A. Lab", "--submissions", tmp_path / "submissions")
    assert "naive+2.json" in clbench("submit", tmp_path / "naive.json", *options)
    save_result(copy("mine", 1e-5), tmp_path / "mine.json")
    assert "CLB024" in refusal("submit", tmp_path / "mine.json", *options)


def test_methods_that_change_nothing_are_alike_by_design(tmp_path):
    frozen = load_result(ROOT / "submissions/mini-v2/styles/frozen_base.json")
    twin = frozen.model_copy(update={"variant": "idle", "method": frozen.method.model_copy(update={"name": "idle"})})
    assert list(conflicts(compared(filed(frozen, tmp_path), filed(signed(twin), tmp_path)))) == []


def test_methods_that_learn_little_are_near_each_other_and_no_copies(tmp_path):
    """They differ by less than the share of how much the base model's own scores vary."""
    frozen = load_result(ROOT / "submissions/mini-v2/styles/frozen_base.json")

    def learner(name: str, seed: int) -> Result:
        rng = np.random.default_rng(seed)

        def learned(rows):
            later = (tuple(v if v is None else v + 0.0015 + rng.uniform(-5e-4, 5e-4) for v in row) for row in rows[1:])
            return (rows[0], *later)

        runs = tuple(
            run.model_copy(update={"scores": {metric: learned(rows) for metric, rows in run.scores.items()}})
            for run in frozen.runs
        )
        summary = summarize(runs, frozen.controls, SUITE.track("styles"))
        reference = frozen.method.model_copy(update={"name": name})
        return signed(
            frozen.model_copy(update={"runs": runs, "summary": summary, "variant": name, "method": reference})
        )

    both = [filed(learner("slow", 1), tmp_path), filed(learner("slower", 2), tmp_path)]
    assert list(conflicts(compared(*both))) == []


def test_names_that_differ_in_case_alone_cannot_lie_beside_each_other(tmp_path):
    first = filed(make_result(SUITE, method="mine", seed=1), tmp_path)
    second = filed(make_result(SUITE, method="Mine", seed=2), tmp_path)
    assert "mine.json: CLB025" in clbench("validate", second, first, code=2)
    assert "CLB025" in clbench("validate", first, second, code=2)
    assert "CLB025" in refusal("leaderboard", "--submissions", tmp_path / "submissions", "--output", tmp_path / "board")
