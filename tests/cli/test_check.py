"""`clbench check`, and the same check in front of `run` and `sweep`, as commands."""

import json

import pytest
from commands import CLBENCH, clbench, execute, refusal

PLUGIN = """
from pydantic import BaseModel
from clbench import Method

print("imported")

class Mine(Method):
    name = "mine"

    class Config(BaseModel):
        layers: int = 0

    def begin_task(self, ctx, state):
        print("task", ctx.position)
        return ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        wanted = list(adapter.A)[self.config.layers]
        return state.with_merged(state.merged + adapter.delta()).with_extra(last=adapter.A[wanted])

class Other(Method):
    name = "other"

    def on_end_task(self, ctx, state, adapter):
        return state
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_check_says_of_each_method_what_was_checked_its_regime_and_what_looks_wrong(plugin):
    done = execute(CLBENCH, "check", plugin)
    mine, other = done.stdout.splitlines()
    assert mine.startswith("mine: passes: its own begin_task, end_task and the inherited hooks on 3 tasks")
    assert "regime constant" in mine
    assert "other: passes: the inherited hooks on 3 tasks" in other
    assert "regime model" in other
    assert f"warning: {plugin}, line 24: on_end_task() is no hook, so it is never called; did you mean" in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("[mine]")] == [
        "[mine] imported",
        *(f"[mine] task {position}" for position in range(3)),
    ]


@pytest.mark.long
def test_check_takes_settings_exits_1_where_a_method_fails_and_prints_json(plugin, tmp_path):
    only = tmp_path / "only.py"
    only.write_text(PLUGIN.partition("class Other")[0])
    (row,) = json.loads(clbench("check", only, "--json"))
    assert (row["passes"], row["error"], row["regime"], row["tasks"]) == (True, None, "constant", 3)
    assert row["own_hooks"] == ["begin_task", "end_task"]
    (row,) = json.loads(clbench("check", only, "--set", "layers=100", "--json", code=1))
    assert not row["passes"]
    assert "only.py, line 18, in end_task: IndexError: list index out of range" in row["error"]
    assert clbench("check", only, "--set", "layers=100", code=1).startswith(
        "mine: fails: method mine failed in end_task()"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("/nowhere.py",), 2, "there is no plugin file /nowhere.py"),
        (("{plugin}", "--set", "layer=1"), 2, "method mine has no setting 'layer'; did you mean 'layers'"),
        (("{plugin}", "--set", "layers=many"), 2, "setting 'layers'"),
        (("{plugin}", "--track", "stiles"), 2, "did you mean 'styles'"),
        (("{broken}",), 1, "broken.py, line 2: SyntaxError"),
    ],
)
def test_check_refuses_bad_usage_with_2_and_a_file_that_does_not_load_with_1(plugin, tmp_path, arguments, code, says):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef f(:\n")
    given = [argument.format(plugin=plugin, broken=broken) for argument in arguments]
    assert says in refusal("check", *given, code=code)


@pytest.mark.parametrize(
    "command", [("run", "--method", "mine", "--track"), ("sweep", "--methods", "mine", "--tracks")]
)
def test_run_and_sweep_refuse_a_wrong_plugin_before_any_work(plugin, tmp_path, command):
    name = "mine." if command[0] == "sweep" else ""
    where = ("--plugin", plugin, "--quick", "--device", "cpu", "--output", tmp_path / "runs", "--tracker", "none")
    said = refusal(*command, "styles", *where, "--set", f"{name}layers=100", code=1)
    assert "mine.py, line 18, in end_task: IndexError" in said
    assert f"nothing was run (`clbench check {plugin}` checks it alone, --no-check runs it all the same)" in said
    assert not (tmp_path / "runs").exists()
