"""`clbench submit`: what it files, and that the commands that it prints make a pull request that the check accepts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders import make_result, signed
from commands import CLBENCH, execute, refusal
from paths import ROOT
from repositories import IDENTITY, git, make_project

from clbench.results.io import load_result, save_result
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")
ORIGIN = (
    *("--paper", "https://arxiv.org/abs/2410.04891", "--code", "https://example.org/mine"),
    *("--licence", "MIT", "--contact", "mine@example.org"),
)
OPTIONS = ("--submitter", "M. Ine; rm -rf $HOME `id`", *ORIGIN)
GRID = ROOT / "docs/samples/mini-v2/styles/naive.png"


@pytest.fixture
def fork(tmp_path) -> Path:
    """A bare repository, as a host keeps it, and the project that it is a fork of."""
    project = make_project(tmp_path / "the project")
    git(tmp_path, "clone", "-q", "--bare", str(project), str(tmp_path / "my fork.git"))
    return tmp_path / "my fork.git"


@pytest.fixture
def clone(fork) -> Path:
    git(fork.parent, "clone", "-q", str(fork), str(fork.parent / "it's mine"))
    return fork.parent / "it's mine"


@pytest.fixture
def result(tmp_path) -> Path:
    save_result(make_result(SUITE, method="mine"), tmp_path / "runs/mini-v2/styles/mine.json")
    return tmp_path / "runs/mini-v2/styles/mine.json"


def commands(told: str) -> list[str]:
    """The commands between the file's place and the questions."""
    filed, empty, *lines = told.splitlines()
    assert filed.startswith("filed as ")
    assert empty == ""
    return lines[: lines.index("")]


def follow(lines: list[str], folder: Path) -> None:
    """Type the commands into a shell."""
    execute("bash", "-euc", "\n".join(lines), cwd=folder, env=IDENTITY)


def accepted(fork: Path) -> str:
    """What the check says of the branch that was pushed to the fork."""
    project = fork.parent / "the project"
    git(project, "fetch", "-q", str(fork), "submit-mini-v2-styles-mine")
    return execute(CLBENCH, "check-submission", "main", "FETCH_HEAD", cwd=project).stdout


def test_the_printed_commands_make_a_pull_request_from_a_clone_of_the_fork(clone, fork, result):
    (clone / "docs/samples/mini-v2/styles").mkdir(parents=True, exist_ok=True)
    shutil.copy(GRID, clone / "docs/samples/mini-v2/styles/mine.png")
    told = execute(CLBENCH, "submit", result, *OPTIONS, cwd=clone).stdout
    lines = commands(told)
    assert not any(line.startswith("cd ") for line in lines)
    assert "# origin must be your fork" in told
    follow(lines, clone)
    assert "submissions/mini-v2/styles/mine.json" in accepted(fork)
    changed = git(fork.parent / "the project", "diff", "--name-only", "main...FETCH_HEAD").split()
    assert changed == ["docs/samples/mini-v2/styles/mine.png", "submissions/mini-v2/styles/mine.json"]


def test_they_do_so_from_elsewhere_too(clone, fork, result, tmp_path):
    grids = tmp_path / "my grids/mini-v2/styles"
    grids.mkdir(parents=True)
    shutil.copy(GRID, grids / "mine.png")
    options = ("--submissions", clone / "submissions", "--samples", tmp_path / "my grids")
    told = execute(CLBENCH, "submit", result, *OPTIONS, *options, cwd=tmp_path).stdout
    assert commands(told)[0].startswith("cd ")
    follow(commands(told), tmp_path)
    assert "mine.json" in accepted(fork)
    git(tmp_path / "the project", "cat-file", "-e", "FETCH_HEAD:docs/samples/mini-v2/styles/mine.png")


@pytest.mark.long
def test_a_resubmission_is_a_file_and_a_branch_of_its_own(clone, fork, result):
    follow(commands(execute(CLBENCH, "submit", result, *OPTIONS, cwd=clone).stdout), clone)
    accepted(fork)
    project = fork.parent / "the project"
    git(project, "merge", "-q", "FETCH_HEAD")
    save_result(make_result(SUITE, method="mine", seed=1), result)
    told = execute(CLBENCH, "submit", result, *OPTIONS, cwd=clone).stdout
    assert "mine.png" not in told
    git(clone, "pull", "-q", "--ff-only", str(project), "main:main")
    follow(commands(told), clone)
    git(project, "fetch", "-q", str(fork), "submit-mini-v2-styles-mine-2")
    told = execute(CLBENCH, "check-submission", "main", "FETCH_HEAD", cwd=project).stdout
    assert told.splitlines()[0] == "- submissions/mini-v2/styles/mine+2.json"


def test_outside_a_checkout_it_says_where_the_file_belongs(fork, result, tmp_path):
    (tmp_path / "an empty folder").mkdir()
    told = execute(CLBENCH, "submit", result, *OPTIONS, cwd=tmp_path / "an empty folder").stdout
    lines = commands(told)
    assert "is no checkout of the project" in lines[0]
    assert lines[1] == "git clone URL-OF-YOUR-FORK clbench && cd clbench"
    lines[1] = lines[1].replace("URL-OF-YOUR-FORK", "'../my fork.git'")
    follow(lines, tmp_path / "an empty folder")
    assert "mine.json" in accepted(fork)
    assert "It has no sample grid yet" in told


def test_the_file_says_who_submits_it_and_nobody_is_asked_twice(result, tmp_path):
    filed = tmp_path / "submissions/mini-v2/styles/mine.json"
    told = execute(CLBENCH, "submit", result, "--submitter", "M. Ine", cwd=tmp_path).stdout
    assert "The check will ask for --paper, --code, --licence, --contact" in told
    told = execute(CLBENCH, "submit", result, *OPTIONS, cwd=tmp_path).stdout
    assert "The check will ask" not in told
    assert [path.name for path in filed.parent.iterdir()] == ["mine.json"], "it is the same result"
    by = load_result(filed).submission
    assert by is not None
    assert (by.submitter, by.licence, by.contact) == (OPTIONS[1], "MIT", "mine@example.org")
    assert json.loads(filed.read_text())["submitter"] is None


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--paper", "http://example.org", "--paper is not accepted: an address such as https://"),
        ("--code", "javascript:alert(1)", "--code is not accepted: an address such as https://"),
        ("--licence", "<MIT>", "--licence is not accepted"),
        ("--contact", "a\nb", "--contact is not accepted"),
        ("--submitter", " ", "--submitter is not accepted"),
    ],
)
def test_what_the_record_does_not_take_is_one_sentence(option, value, said, result, tmp_path):
    options = [*OPTIONS, "--submissions", tmp_path / "submissions", option, value]
    assert said in refusal("submit", result, *options)
    assert not (tmp_path / "submissions").exists()


def test_a_result_that_no_board_can_show_is_not_filed(tmp_path):
    result = make_result(SUITE, method="mine")
    runs = tuple(run.model_copy(update={"train_seconds": 1e308}) for run in result.runs)
    save_result(signed(result.model_copy(update={"runs": runs})), tmp_path / "mine.json")
    refusal("submit", tmp_path / "mine.json", *OPTIONS, "--submissions", tmp_path / "submissions")
    assert not (tmp_path / "submissions").exists()
