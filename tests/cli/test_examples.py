"""The examples in `--help`, tried in a folder where a plain run has left its result."""

import glob
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import light_suite
from commands import CLBENCH, execute
from paths import ROOT

from clbench.cli import app

COSTLY = ("sdxl-v1 ", "--engine ray", "pretrain-mini", "--level rerun", "data fetch", "new-suite", "check-submission")
"""Parts of examples that need a GPU, a cluster, a download, a repository or minutes; other tests do what they do."""
COMPUTES = ("run", "sweep", "tune")
READS_STORE = ("samples", "export", "push", "store")
PLUGIN = """
from typing import Annotated
from pydantic import BaseModel
from clbench import Method
from clbench.method import SearchRange

class Mine(Method):
    name = "mine"

    class Config(BaseModel):
        strength: Annotated[float, SearchRange(0.1, 10)] = 1.0
"""


def examples() -> Iterator[list[str]]:
    """The words of every example."""
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    commands = [command for group in groups if group for command in group.registered_commands]
    for epilog in (command.epilog or "" for command in commands):
        for line in re.findall(r"`clbench ([^`]*)`", epilog):
            if not any(part in f"{line} " for part in COSTLY):
                yield shlex.split(line)


EXAMPLES = list(examples())


def chosen(wanted: bool, *names: str) -> list[list[str]]:
    """The examples of some commands, or of all others; a record for other registries needs no store."""
    return [words for words in EXAMPLES if (words[0] in names and "eee" not in words) == wanted]


def parameters(wanted: bool, *names: str) -> list:
    return [
        pytest.param(words, id=" ".join(words)[:60], marks=[pytest.mark.long] if words[0] == "check" else [])
        for words in chosen(wanted, *names)
    ]


@pytest.fixture
def checkout(tmp_path):
    """A copy of what an example reads, with the result of a plain run."""
    for folder in ("submissions", "docs/samples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "runs/mini-v2/styles").mkdir(parents=True)
    shutil.copy(ROOT / "submissions/mini-v2/styles/merge_init.json", tmp_path / "runs/mini-v2/styles")
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "variants.yaml").write_text("- {name: mine-half, method: mine, settings: {strength: 0.5}}\n")
    return tmp_path


def tried(words: list[str], folder: Path, *more: str) -> subprocess.CompletedProcess:
    expanded = [
        file for word in words for file in (sorted(glob.glob(word, root_dir=folder)) if "*" in word else [word])
    ]
    return execute(CLBENCH, *expanded, *more, cwd=folder)


def test_there_are_examples_of_most_commands():
    assert {"run", "sweep", "show", "compare", "leaderboard", "samples", "export"} <= {words[0] for words in EXAMPLES}


@pytest.mark.parametrize("words", parameters(False, *COMPUTES, *READS_STORE))
def test_an_example_works_after_a_plain_run(words, checkout):
    assert tried(words, checkout).stdout


@pytest.mark.long
@pytest.mark.parametrize("words", parameters(True, *COMPUTES))
def test_an_example_that_computes_can_be_planned(words, checkout):
    assert "To do" in tried(words, checkout, *([] if "--dry-run" in words else ["--dry-run"])).stdout


@pytest.mark.long
def test_the_examples_find_what_a_run_left_in_the_store(tmp_path):
    """A run of one order with less work stands for the plain run: all examples in one test, which share it."""
    suite = ["--suite", light_suite(tmp_path / "light", tasks=10)]
    execute(CLBENCH, "run", "--method", "merge_init", "--track", "styles", *suite, cwd=tmp_path)
    (tmp_path / "runs" / "light").rename(tmp_path / "runs" / "mini-v2")
    for words in chosen(True, *READS_STORE):
        assert tried(words, tmp_path, *([] if words[0] == "store" else suite)).stdout, words
