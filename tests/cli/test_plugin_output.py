"""A plugin's author sees what it prints, where it fails, and, with --debug, its traceback and a debugger."""

import json
import os
import subprocess

import pytest
from commands import CLBENCH, clbench, execute, refusal

TALKS = """
import sys
import warnings
from clbench import Method

print("imported")

class Talks(Method):
    name = "talks"

    def begin_task(self, ctx, state):
        print("begins", ctx.task, end="")
        print("complains", file=sys.stderr)
        warnings.warn("beware")
        return ctx.fresh_adapter()

    def loss(self, ctx, batch):
        print("step", ctx.step)
        return 0.0
"""
FAILS = """
from clbench import Method

class Fails(Method):
    name = "fails"

    def end_task(self, ctx, state, adapter):
        looked_at = f"inside {ctx.task}"
        breakpoint()
        raise self.failure()

    def failure(self):
        return ValueError("no way")
"""


@pytest.fixture
def options(mock_folder, tmp_path):
    """Write a plugin, and give the options that run it on the mock suite."""

    def write(name: str, text: str) -> list:
        plugin = tmp_path / f"{name}.py"
        plugin.write_text(text)
        where = ["--suite", mock_folder, "--track", "styles", "--output", tmp_path / "runs", "--tracker", "none"]
        return ["run", "--method", name, "--plugin", plugin, "--quick", "--device", "cpu", *where]

    return write


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_plugin_prints_is_shown_as_its_own_and_never_on_stdout(options, tmp_path, workers):
    events = tmp_path / "events.jsonl"
    run = options("talks", TALKS)
    done = execute(CLBENCH, *run, "--workers", workers, "--events", events, "--json")
    assert json.loads(done.stdout)["method"]["name"] == "talks"
    shown = [line for line in done.stderr.splitlines() if line.startswith("[talks] ")]
    assert shown[0] == "[talks] imported"
    for line in ("begins byzantine", "complains", "step 0", "step 1"):
        assert f"[talks] {line}" in shown
    assert f"[talks] UserWarning: beware ({tmp_path / 'talks.py'}, line 14)" in shown
    told = [event for event in map(json.loads, events.read_text().splitlines()) if event["event"] == "output"]
    assert {event["method"] for event in told} == {"talks"}
    assert [event["text"] for event in told].count("step 0") == 3


def debugged(options: list, typed: str, code: int) -> subprocess.CompletedProcess:
    """A command with --debug, and what a person types."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    command = [str(CLBENCH), *map(str, options), "--debug"]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.long
def test_debug_gives_a_breakpoint_the_terminal_and_shows_the_traceback(options):
    run = options("fails", FAILS)
    done = debugged(run, "p looked_at\nc\n", code=1)
    assert "(Pdb) 'inside byzantine'" in done.stdout
    trace, _, error = done.stderr.partition("\nerror: ")
    assert "Traceback (most recent call last)" in trace
    assert trace.endswith("ValueError: no way")
    assert "fails.py, line 10, in end_task: ValueError: no way" in error
    assert "--debug" not in error
    assert "stopped; the same command goes on from here" in debugged(run, "q\n", code=130).stderr


@pytest.mark.long
def test_debug_shows_the_traceback_of_a_plugin_that_does_not_load(options):
    done = debugged(options("bad", "def half():\n    return 1 / 0\n\nhalf()\n"), "", code=1)
    assert "ZeroDivisionError: division by zero\nerror: the plugin does not load: " in done.stderr


@pytest.mark.parametrize("other", [("--workers", "2"), ("--engine", "ray"), ("--deterministic",)])
def test_debug_is_refused_with_other_processes(other, tmp_path):
    common = ("--debug", *other, "--output", tmp_path)
    for command in (("run", "--method", "naive", "--track"), ("sweep", "--methods", "naive", "--tracks")):
        said = refusal(*command, "styles", *common)
        assert "--debug does all work in this process, so it cannot be given with more --workers than one" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", "bad.py, line 1, in <module>: ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:", "bad.py, line 2: SyntaxError: invalid syntax"),
        (
            "from clbench import Method\nclass Bad(Method):\n    name = 'bad'\n"
            "    def __init__(self, **settings):\n        self.size = settings['size']\n",
            "method bad cannot be made: ",
        ),
    ],
)
def test_a_plugin_that_does_not_load_is_told_with_its_line_and_the_way_to_the_traceback(options, text, says):
    said = refusal(*options("bad", text), code=1)
    assert says in said
    assert said.endswith("; --debug shows the traceback")


def test_listing_methods_as_json_is_json_whatever_the_plugin_prints(options, tmp_path):
    options("talks", TALKS)
    assert json.loads(clbench("list", "methods", "--json", "--plugin", tmp_path / "talks.py"))
