"""Names, files and plugins that no command expects: each is told in one sentence, never by a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import make_result, save_suite, tiny_suite
from commands import CLBENCH, clbench, execute, refusal

from clbench.results.io import save_result
from clbench.suite import load_suite

BYTES = os.fsdecode(b"\xff")
"""A file name that is no text."""
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}
"""As in most terminals: text that is not UTF-8 cannot be printed."""


@pytest.fixture
def mine(tmp_path) -> Path:
    """A valid result in a folder whose name is no text."""
    path = tmp_path / BYTES / "mine.json"
    save_result(make_result(load_suite("mini-v2"), method="mine"), path)
    return path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\xff: 1\n", "can't decode byte 0xff"),
        (b'extra: "a\\q"\n', "unknown escape character"),
    ],
)
def test_a_definition_that_is_no_utf8_or_no_yaml_is_told(tmp_path, line, says):
    folder = save_suite(tiny_suite(), tmp_path / "suite")
    with (tmp_path / "suite" / "suite.yaml").open("ab") as file:
        file.write(line)
    said = refusal("run", "--method", "naive", "--track", "styles", "--suite", folder)
    assert "suite.yaml" in said
    assert says in said


def test_a_path_with_a_null_byte_in_a_definition_is_told(tmp_path):
    folder = save_suite(tiny_suite(), tmp_path / "suite")
    path = tmp_path / "suite" / "suite.yaml"
    path.write_text(path.read_text().replace("tasks: styles.yaml", 'tasks: "a\\0b"'))
    assert "null byte" in refusal("run", "--method", "naive", "--track", "styles", "--suite", folder)


def test_a_user_that_does_not_exist_is_told(tmp_path):
    (tmp_path / "data.toml").write_text('"google/dreambooth" = "~nosuchuser/photos"\n')
    said = refusal("data", "status", "--suite", "sdxl-v1", "--data-root", tmp_path)
    assert "~nosuchuser" in said
    assert "no store at ~nosuchuser" in refusal("store", "ls", "~nosuchuser")
    assert "no store at" in refusal("store", "ls", "")


def test_folders_whose_names_are_no_text_are_printed_with_escapes(mine, tmp_path):
    assert clbench("validate", mine, env=STRICT).endswith("\\udcff/mine.json: valid\n")
    folder = tmp_path / BYTES / "submissions"
    told = clbench("submit", mine, "--submitter", "A. Lab", "--submissions", folder, env=STRICT)
    assert "filed as" in told
    assert "\\udcff" in told


@pytest.mark.long
def test_a_plugin_whose_name_no_result_can_record_is_refused_before_any_work(tmp_path):
    plugin = tmp_path / f"{BYTES}.py"
    plugin.write_text("from clbench.method import Method\n\n\nclass Own(Method):\n    name = 'own'\n")
    options = ("--method", "own", "--track", "styles", "--plugin", plugin, "--output", tmp_path / "runs", "--dry-run")
    done = execute(CLBENCH, "run", *options, env=STRICT, code=2)
    assert "--plugin" in done.stderr
    assert "printable" in done.stderr


EXITS = {
    "when it is loaded": "import sys\nsys.exit(0)\n",
    "when it is made": """
        def __init__(self, **settings):
            raise SystemExit
    """,
    "in a hook": """
        def end_task(self, ctx, state, adapter):
            raise SystemExit(0)
    """,
}


@pytest.mark.parametrize("moment", EXITS)
def test_a_plugin_that_exits_is_told_as_its_fault_and_is_no_success(tmp_path, moment):
    body = EXITS[moment]
    header = (
        ""
        if body.startswith("import")
        else "from clbench.method import Method\n\nclass Own(Method):\n    name = 'own'\n"
    )
    (tmp_path / "own.py").write_text(header + (body if not header else body.replace("\n        ", "\n    ")))
    said = execute(CLBENCH, "check", tmp_path / "own.py", code=1)
    assert "own.py" in said.stdout + said.stderr
    assert "SystemExit" in said.stdout + said.stderr


def test_a_pipe_and_a_file_of_unknown_fields_are_invalid_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "many.json").write_text("{" + ", ".join(f'"{number}": 1' for number in range(150_000)) + "}")
    said = clbench("validate", tmp_path / "pipe.json", tmp_path / "many.json", code=2)
    assert "pipe.json is not a result file: it is not a regular file" in said
    assert "many.json is not a result file: it has more than 100,000 values" in said
