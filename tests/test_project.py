"""The project as a whole: what the README promises, what the wheel carries, its forms and workflows, current tables."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT
from repositories import IDENTITY, commit, git, make_project, request

from clbench.leaderboard import make_boards, read_submissions, write_tables
from clbench.leaderboard.published import load_published
from clbench.plugins import get_method, source_of
from clbench.results.baselines import on_record
from clbench.results.io import load_result
from clbench.results.validation import check_result
from clbench.results.verification import read_verified, status
from clbench.suite import load_suite

SUBMISSIONS = sorted((ROOT / "submissions").glob("*/*/*.json"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in TEMPLATES.glob("*.yml") if path.stem != "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_readmes_first_two_commands_are_the_promised_ones():
    start = "python3 -m venv .venv && .venv/bin/pip install -e"
    commands = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    ")]
    assert commands[:2] == [
        f'{start} ".[run]" && .venv/bin/clbench run --method merge_init --track styles',
        f'{start} ".[test]" && .venv/bin/pytest',
    ]


def test_the_readmes_python_prints_what_it_says(monkeypatch, tmp_path, capsys):
    section = (ROOT / "README.md").read_text().split("## In Python and notebooks\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "submissions").symlink_to(ROOT / "submissions")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for block, package in zip(blocks, (None, "pandas", "matplotlib"), strict=True):
        if package is None or find_spec(package):
            exec(block, known)
            assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    if find_spec("matplotlib"):
        assert (tmp_path / "merge_init.png").read_bytes().startswith(b"\x89PNG")


def test_every_file_the_readme_links_to_exists():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "benchmark").glob("*/README.md")):
        targets = [piece.split(")")[0] for piece in page.read_text().split("](")[1:]]
        for target in targets:
            if not target.startswith(("http", "#")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_path_and_name_that_contributing_gives_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## To add")[1]
    code = "\n".join(path.read_text() for folder in ("clbench", "methods") for path in (ROOT / folder).rglob("*.py"))
    for name in re.findall(r"`([^`]+)`", text):
        if "/" in name:
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"@?\w+(\.\w+)*", name):
            *_, last = name.split(".")
            assert re.search(rf"\b{last.lstrip('@')}", code), name


def test_the_committed_tables_are_what_the_submissions_give(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # the pages link to the samples beside them
    out = tmp_path / "leaderboard"
    verified = read_verified(ROOT / "submissions" / "VERIFIED.json")
    methods = read_submissions(ROOT / "submissions")
    samples = tmp_path / "docs" / "samples"
    rebuilt = write_tables(make_boards(methods, samples=samples, published=load_published(), verified=verified), out)
    fresh = {path.relative_to(out): path.read_bytes() for path in rebuilt}
    committed = {path.relative_to(ROOT / "leaderboard"): path.read_bytes() for path in ROOT.glob("leaderboard/*/*.*")}
    assert committed == fresh, "run `clbench leaderboard` and commit what it writes"


@pytest.mark.parametrize("path", SUBMISSIONS, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_submission_is_valid(path: Path):
    result = load_result(path)
    assert check_result(result, load_suite(result.suite.name), path=path) == []
    assert result.submitted_by


def test_a_wheel_carries_the_definition_the_methods_and_the_weights(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "clbench/py.typed",
        "clbench/content/benchmark/mini-v2/suite.yaml",
        "clbench/content/benchmark/mini-v2-dev/suite.yaml",
        "clbench/content/tasks/mini-v2-styles.yaml",
        "clbench/content/tasks/mini-v2-dev-styles.yaml",
        "clbench/content/tuning/README.md",
        "clbench/content/methods/naive.py",
        "clbench/miniworld/weights/pipeline/model_index.json",
        "clbench/results/result.schema.json",
    } <= names
    assert not [name for name in names if name.startswith(("tests", "perf", "runs"))]


def test_what_is_on_record_is_of_the_definition_that_results_are_made_with():
    known = on_record("mini-v2")
    assert known is not None
    suite = load_suite("mini-v2")
    assert known.suite_sha256 == suite.sha256
    assert known.base_tolerance > 10 * known.noise.base
    for name, track in suite.tracks.items():
        assert set(known.base[name]) == set(track.metrics)
        assert all(set(tasks) == set(track.task_names) for tasks in known.base[name].values())


def test_what_each_submitted_method_adds_to_a_training_is_on_record_as_the_method_is_now():
    """`python perf/methods.py --methods NAME --record` measures it."""
    known = on_record("mini-v2")
    assert known
    submitted = {load_result(path).method.name for path in (ROOT / "submissions" / "mini-v2").glob("*/*.json")}
    own = submitted & {path.stem for path in (ROOT / "methods").glob("*.py")}
    found = {name: one.source_sha256 for name, one in known.training_times.items()}
    assert {name: found.get(name) for name in own} == {name: source_of(get_method(name)).sha256 for name in own}


def test_the_workflow_for_submissions_has_no_secrets_and_runs_nothing_of_the_request():
    text = (ROOT / ".github" / "workflows" / "submissions.yml").read_text()
    workflow = yaml.safe_load(text)
    assert set(workflow[True]) == {"pull_request_target"}  # the main branch's file; YAML reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    job = workflow["jobs"]["validate"]
    assert not {"permissions", "secrets"} & job.keys()
    steps = job["steps"]
    [checkout] = [step["with"] for step in steps if "checkout" in step.get("uses", "")]
    assert checkout["ref"] == "main"
    assert not checkout["persist-credentials"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert not any("${{" in script for script in scripts)  # no text of the request enters a shell
    assert [script for script in scripts if "install" in script] == ["python -m pip install ."]
    assert not any(re.search(r"git (checkout|switch|restore|merge |reset|worktree|pull)", script) for script in scripts)


@pytest.mark.parametrize(
    ("files", "submits"),
    [
        ({"clbench/new.py": "", "leaderboard/mini-v2/styles.md": "another form"}, False),
        ({"submissions/VERIFIED.json": "{}"}, False),
        ({"submissions/mini-v2/styles/mine.json": "{}"}, True),
        ({"docs/samples/mini-v2/styles/naive.png": None}, True),
        ({"submissions/README.md": "", "clbench/new.py": ""}, True),
        ({"methods/naive.py": "in conflict"}, True),
    ],
)
def test_the_workflow_for_submissions_checks_every_request_that_touches_them(files, submits, tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/submissions.yml").read_text())
    [script] = [step["run"] for step in workflow["jobs"]["validate"]["steps"] if step.get("id") == "request"]
    origin = make_project(tmp_path / "origin")
    request(origin, files)
    git(origin, "update-ref", "refs/pull/7/head", "request")
    (origin / "methods/naive.py").write_text("main went on")
    commit(origin)
    git(tmp_path, "clone", "-q", "--single-branch", str(origin), "main")
    head = git(origin, "rev-parse", "request").strip()
    output = tmp_path / "output"
    output.touch()
    given = {**IDENTITY, "HEAD": head, "NUMBER": "7", "GITHUB_OUTPUT": str(output)}
    subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path / "main", env=given, check=True)
    assert output.read_text() == "submits=true\n" * submits


def test_the_workflow_that_publishes_commits_tables_only_if_they_changed(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["main"]}
    [script] = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "git push" in step.get("run", "")]
    origin, there = make_project(tmp_path / "origin"), tmp_path / "main"
    git(origin, "config", "receive.denyCurrentBranch", "ignore")
    git(tmp_path, "clone", "-q", str(origin), str(there))
    address = "https://x-access-token:secret@github.com/a/b.git"
    given = {**IDENTITY, "TOKEN": "secret", "GITHUB_REPOSITORY": "a/b", "GIT_CONFIG_COUNT": "1"}
    given |= {"GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf", "GIT_CONFIG_VALUE_0": address}

    def publish() -> list[str]:
        subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=there, env=given, check=True)
        return git(origin, "log", "--format=%s", "main").splitlines()

    (there / "notes.txt").write_text("left alone")
    assert publish() == ["a change"]
    (there / "leaderboard/mini-v2/styles.md").write_text("a new row")
    (there / "leaderboard/mini-v2/new.md").write_text("a new board")
    assert publish() == ["Rebuild the tables", "a change"]
    changed = git(origin, "show", "--format=", "--name-only", "main").split()
    assert changed == ["leaderboard/mini-v2/new.md", "leaderboard/mini-v2/styles.md"]


MAY_WRITE = {"publish": {"build": {"contents": "write"}, "deploy": {"pages": "write", "id-token": "write"}}}
"""Workflow -> job -> what it may do besides reading."""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_pins_what_it_uses(path: Path):
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}) == MAY_WRITE.get(path.stem, {}).get(name, {})
        assert job["timeout-minutes"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    used = re.findall(r"uses: (.*)", text)
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_all_workflows_use_the_same_version_of_an_action():
    used = {action for path in WORKFLOWS for action in re.findall(r"uses: (.*)", path.read_text())}
    assert len({action.split("@")[0] for action in used}) == len(used)


def test_the_tests_run_on_each_supported_python():
    job = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_a_name_a_description_and_fields_with_labels(path: Path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) > 0


def test_the_issue_forms_are_the_only_way_to_an_issue():
    assert {path.stem for path in FORMS} == {"bug_report", "method", "question"}
    assert yaml.safe_load((TEMPLATES / "config.yml").read_text()) == {"blank_issues_enabled": False}
    assert (ROOT / ".github" / "pull_request_template.md").read_text().strip()


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    [paper] = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert "2410.04891" in paper["url"]


def test_the_hooks_before_a_commit_are_pinned():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert all(repo["rev"].startswith("v") for repo in repos if repo["repo"] != "local")
    hooks = {hook["id"] for repo in repos for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "pyright", "lint-imports"} <= hooks


def test_every_submission_was_verified_as_it_now_is():
    verified = read_verified(ROOT / "submissions" / "VERIFIED.json")
    assert {status(verified, load_result(path)) for path in SUBMISSIONS} <= {"recomputed", "artifacts", "rerun"}


HEAVY = {"torch", "diffusers", "transformers", "peft", "open_clip", "PIL", "matplotlib", "pandas", "IPython"}
"""What is loaded only where it is needed."""


def test_reading_and_showing_a_result_in_python_loads_no_heavy_package():
    script = f"""
import sys
import clbench
assert not {HEAVY} & sys.modules.keys()
result = clbench.load_result(sys.argv[1])
print(result, result._repr_html_(), result.matrix("csd"))
assert not {HEAVY} & sys.modules.keys()
"""
    path = ROOT / "submissions/mini-v2/styles/naive.json"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("list", "methods"),
        ("validate", ROOT / "submissions/mini-v2/styles/naive.json"),
        ("show", ROOT / "submissions/mini-v2/styles/naive.json"),
        ("leaderboard", "--submissions", ROOT / "submissions", "--output"),
        ("new-method", "mine", "--like", "ewc", "--to"),
    ],
    ids=lambda command: command[0],
)
def test_commands_that_run_nothing_load_no_torch(command: tuple[str | Path, ...], tmp_path: Path):
    script = """
import sys
from clbench.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
assert not HEAVY & sys.modules.keys()
""".replace("HEAVY", str(HEAVY))
    writes = str(command[-1]).startswith("--") and len(command) > 1
    arguments = [*map(str, command), *([str(tmp_path / "new")] if writes else [])]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
