"""The check of a pull request: an honest submission passes, and whatever else a request tries to merge is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from builders import make_result, signed
from commands import CLBENCH, execute
from paths import ROOT
from repositories import commit, git, make_project, request

from clbench.results.io import load_result, result_text
from clbench.results.schema import Result, Submission
from clbench.suite import load_suite
from clbench.utils.png import png_problem

SUITE = load_suite("mini-v2")
GRID = (ROOT / "docs/samples/mini-v2/styles/naive.png").read_bytes()
ORIGIN = {
    "paper": "https://arxiv.org/abs/2410.04891",
    "code": "https://example.org/mine",
    "licence": "MIT",
    "contact": "mine@example.org",
}
PLACE = "submissions/mini-v2/styles/mine.json"
PICTURE = "docs/samples/mini-v2/styles/mine.png"
NAIVE = "submissions/mini-v2/styles/naive.json"


def submitted(result: Result | None = None, **fields: str | None) -> str:
    """The file of a submission, by default of a method that is not in `methods/`."""
    by = Submission.model_validate({"submitter": "M. Ine", **ORIGIN, **fields})
    result = result or make_result(SUITE, method="mine")
    return result_text(result.model_copy(update={"submission": by, "submitter": None}))


HONEST = {PLACE: submitted(), PICTURE: GRID}


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path / "the project")


def check(project: Path, code: int, base: str = "main", head: str = "request") -> str:
    return execute(CLBENCH, "check-submission", base, head, cwd=project, code=code).stdout


def refused(project: Path, files: dict, **options) -> list[str]:
    """The problems, a line each."""
    request(project, files, **options)
    *problems, last = check(project, code=2).splitlines()
    assert last == "the request is refused"
    assert all(problem.startswith("- ") for problem in problems)
    return problems


def test_an_honest_request_passes_and_nothing_of_it_is_checked_out(project):
    request(project, HONEST)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert check(project, code=0).splitlines() == [f"- {PLACE}", "the request brings valid results and nothing else"]
    after = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {"index"}
    assert not (project / PLACE).exists()
    assert git(project, "status", "--porcelain") == ""


def test_a_branch_that_lags_behind_removes_nothing(project):
    start = git(project, "rev-parse", "main").strip()
    (project / "submissions/mini-v2/styles/theirs.json").write_text(
        submitted(make_result(SUITE, method="theirs", seed=1))
    )
    (project / "methods/naive.py").write_text("# changed")
    commit(project)
    request(project, HONEST, start=start)
    check(project, code=0)


FORGERIES = {
    "a changed workflow": (
        {".github/workflows/submissions.yml": "on: push"},
        ".github/workflows/submissions.yml may not",
    ),
    "a changed table": ({"leaderboard/mini-v2/styles.md": "| mine | 1 |"}, "leaderboard/mini-v2/styles.md may not"),
    "what maintainers found": ({"submissions/VERIFIED.json": "{}"}, "submissions/VERIFIED.json may not change"),
    "a changed method": ({"methods/naive.py": "import os"}, "methods/naive.py may not change"),
    "an extra file": ({"submissions/mini-v2/styles/notes.txt": "hello"}, "notes.txt may not change"),
    "an extra folder": ({"submissions/mini-v2/styles/deep/mine.json": "{}"}, "deep/mine.json may not change"),
    "attributes of git": ({".gitattributes": "* merge=union"}, ".gitattributes may not change"),
    "a submodule's name": ({".gitmodules": "[submodule]"}, ".gitmodules may not change"),
    "a name with control characters": (
        {"submissions/mini-v2/styles/\x1b[2J.json": "{}"},
        "styles/?[2J.json may not change",
    ),
    "a name of another encoding": ({"submissions/mini-v2/styles/m\udcff.json": "{}"}, "styles/m?.json may not change"),
    "a hidden file": ({"submissions/mini-v2/styles/.mine.json": "{}"}, ".mine.json may not change"),
    "a removed submission": ({NAIVE: None}, "naive.json would be removed"),
    "a removed grid": ({"docs/samples/mini-v2/styles/naive.png": None}, "naive.png would be removed"),
    "a linked result": ({PLACE: Path("naive.json")}, "mine.json is no plain file: its git mode is 120000"),
    "a linked grid": ({PICTURE: Path("/etc/passwd")}, "mine.png is no plain file: its git mode is 120000"),
    "a linked folder": ({"submissions/mini-v2/more": Path("../../..")}, "submissions/mini-v2/more may not change"),
    "a huge result": ({PLACE: submitted() + " " * 2_000_000}, "mine.json has 2.1 MB; at most 2.0 MB"),
    "a huge grid": ({PICTURE: GRID + bytes(3_000_000)}, "mine.png has 3.2 MB; at most 2.0 MB"),
    "the case of letters": (
        {"submissions/mini-v2/styles/Naive.json": submitted()},
        "Naive.json differs from another name",
    ),
    "a device": ({"submissions/mini-v2/styles/CON.json": submitted()}, "CON.json has a name that Windows keeps"),
    "another's grid": (
        {"docs/samples/mini-v2/styles/naive.png": GRID + b" "},
        "naive.png is a sample grid without its",
    ),
    "many megabytes": (
        {f"docs/samples/mini-v2/styles/m{n}.png": bytes([n]) * 1_900_000 for n in range(6)},
        "the request brings 11.7 MB",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_request_that_brings_anything_else_is_refused(name, project):
    files, problem = FORGERIES[name]
    problems = refused(project, {**HONEST, **files})
    assert any(problem in line for line in problems), problems
    if name != "many megabytes":
        assert len(problems) == 1


def test_a_table_alone_or_nothing_is_refused(project):
    assert "leaderboard/mini-v2/styles.md may not change" in refused(project, FORGERIES["a changed table"][0])[0]
    git(project, "branch", "-f", "request", "main")
    assert "the request changes nothing" in check(project, code=2)


def test_a_program_and_a_submodule_are_refused(project):
    request(project, HONEST)
    git(project, "switch", "-q", "request")
    (project / PLACE).chmod(0o755)
    git(project, "update-index", "--chmod=+x", PLACE)
    git(project, "rm", "-q", "--cached", PICTURE)
    (project / PICTURE).unlink()
    oid = git(project, "rev-parse", "HEAD").strip()
    git(project, "update-index", "--add", "--cacheinfo", f"160000,{oid},{PICTURE}")
    git(project, "commit", "-q", "-m", "forged")
    told = check(project, code=2)
    assert "mine.json is no plain file: its git mode is 100755" in told
    assert "mine.png is no plain file: its git mode is 160000" in told


def test_nobody_replaces_a_submission_but_whoever_repeats_it_adds_a_replicate(project):
    theirs = load_result(project / NAIVE)
    assert theirs.submitted_by
    for submitter in ("M. Ine", theirs.submitted_by):
        [said] = refused(project, {NAIVE: submitted(theirs, submitter=submitter)})
        assert said.startswith(f"- {NAIVE} was submitted before and may not change")
    second = NAIVE.replace("naive", "naive+2")
    request(project, {second: submitted(theirs)})
    assert check(project, code=0).splitlines()[0] == f"- {second}"
    changed = make_result(SUITE, method="naive")
    assert "CLB026 its source or settings are not those of the first 'naive'" in refused(
        project, {second: submitted(changed)}
    )[0].replace(f"{second}: ", "")
    grid = "docs/samples/mini-v2/styles/naive+2.png"
    assert f"{grid} may not change" in refused(project, {second: submitted(theirs), grid: GRID})[0]
    for name in ("naive+1", "naive+02", "naive+", "naive+2+2", "+2"):
        refused(project, {NAIVE.replace("naive", name): submitted(theirs)})


def test_a_method_that_is_not_in_methods_says_where_it_comes_from(project):
    problems = refused(project, {PLACE: submitted(paper=None, contact=None)})
    assert problems == [
        f"- {PLACE}: its method is not in methods/, so that it must say where it comes from: "
        "`clbench submit` with --paper, --contact"
    ]
    naive, second = load_result(project / NAIVE), NAIVE.replace("naive", "naive+2")
    named = naive.model_copy(update={"method": naive.method.model_copy(update={"source_sha256": "b" * 64})})
    assert any("CLB018" in line for line in refused(project, {second: submitted(named, submitter=naive.submitted_by)}))
    bundled = submitted(naive, submitter=naive.submitted_by, **dict.fromkeys(ORIGIN))
    request(project, {second: bundled})
    check(project, code=0)
    without = result_text(make_result(SUITE, method="mine"))
    assert "it says nobody who submits it" in refused(project, {PLACE: without})[0]


def test_results_are_validated_where_they_lie(project):
    partial = submitted(make_result(SUITE, method="mine", quick=True))
    assert "CLB004" in refused(project, {PLACE: partial})[0]
    elsewhere = {"submissions/mini-v2/objects/mine.json": submitted()}
    assert "CLB017" in "".join(refused(project, elsewhere))
    assert "CLB000" in refused(project, {PLACE: "{}"})[0]
    development = submitted(make_result(load_suite("mini-v2-dev"), method="mine"))
    problems = refused(project, {"submissions/mini-v2-dev/styles/mine.json": development})
    assert "suite mini-v2-dev has no board; only mini-v2, sdxl-v1, ssd1b-v1 have" in problems[0]


def test_a_result_that_breaks_the_boards_is_refused(project):
    result = make_result(SUITE, method="mine")
    runs = tuple(run.model_copy(update={"train_seconds": 1e308}) for run in result.runs)
    [problem] = refused(project, {PLACE: submitted(signed(result.model_copy(update={"runs": runs})))})
    assert problem.startswith("- the board cannot be built with it") or "CLB013" in problem


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int = 2, height: int = 2, more: bytes = b"", pixels: bytes = b"\0\0\0" * 2, kind: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (b"<svg onload=alert(1)>", "is not a PNG file"),
        (b"", "is not a PNG file"),
        (GRID[:-20], "is a damaged PNG file"),
        (GRID[:5000] + b"x" + GRID[5001:], "is a damaged PNG file"),
        (GRID + b"<script>", "is a damaged PNG file"),
        (png() + png()[8:], "is a damaged PNG file"),
        (png(more=chunk(b"tEXt", b"a\0b")), "holds more than pixels"),
        (png(width=100_000, height=100_000), "has 100000 x 100000 pixels"),
        (png(width=0), "has 0 x 2 pixels"),
        (png(pixels=bytes(10_000_000)), "its pixels are not as many as it says"),
        (png(pixels=b"\0"), "its pixels are not as many as it says"),
        (png(kind=5), "is of a kind of PNG that is not accepted"),
    ],
)
def test_a_grid_is_a_whole_png_with_nothing_but_pixels(picture, problem):
    assert problem in (png_problem(picture) or "")


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/samples/*/*/*.png")), ids=lambda path: path.stem)
def test_the_grids_that_the_project_draws_are_accepted(path: Path):
    assert png_problem(path.read_bytes()) is None
    assert png_problem(png()) is None


def test_a_grid_that_is_no_png_is_refused(project):
    assert refused(project, {**HONEST, PICTURE: b"GIF89a"}) == [f"- {PICTURE} is not a PNG file"]


def test_a_conflict_and_a_missing_commit_are_one_sentence(project):
    (project / PLACE).write_text(submitted(make_result(SUITE, method="mine", seed=1)))
    request(project, HONEST)
    git(project, "switch", "-q", "main")
    (project / PLACE).write_text("something else")
    commit(project)
    for head, said in (("request", "conflicts with the base branch"), ("--all", "git"), ("nothing", "git")):
        done = execute(CLBENCH, "check-submission", "main", "--", head, cwd=project, code=2)
        assert said in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    outside = execute(CLBENCH, "check-submission", "main", "request", cwd=project.parent, code=2)
    assert "not a git repository" in outside.stderr


def test_a_request_with_thousands_of_files_is_refused_in_few_lines(project):
    told = refused(project, {f"junk/{number}": "x" for number in range(2000)})
    assert len(told) == 21
    assert told[-1] == "- and 1980 more"
