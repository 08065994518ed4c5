"""A wrong plugin is found in seconds, by the real engine on a toy model; and what that check leaves behind: nothing."""

import re
from pathlib import Path

import pytest
import torch
from watching import Events, sentence, watch

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import WorkFailed
from clbench.plugins import get_method
from clbench.protocol.hook_lint import hook_warnings
from clbench.runner import harness, plugin_check
from clbench.runner.plugin_check import MethodCheck, check_method
from clbench.runner.toy import ToyModels, toy_suite
from clbench.suite import load_suite, suite_folder
from clbench.variants import Variant

HEAD = """
from dataclasses import replace
import torch
from clbench import Method, State
from clbench.lora import Adapter, Delta

class Mine(Method):
    name = "mine"
"""


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin with the method `mine`."""

    def write(body: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + body)
        return path

    return write


@pytest.fixture
def checked(plugin):
    """The check of the method `mine`, on mini-v2."""
    suite = load_suite("mini-v2")
    paths = AssetPaths(default_data_root(), suite_folder("mini-v2"))
    folders = resolve_assets(suite, "mini-v2", "styles", paths).folders

    def check(body: str) -> MethodCheck:
        return check_method("cpu", "fp32", "mine", {}, [plugin(body)], suite, "styles", folders)

    return check


WRONG = {
    "an adapter of another shape": (
        "def begin_task(self, ctx, state): return Adapter(ctx.fresh_adapter().B, ctx.fresh_adapter().A)",
        r"begin_task\(\) at task 'dapple': A of layer .* has shape \(64, 32\), expected \(32, 64\)",
    ),
    "an adapter without some layers": (
        "def begin_task(self, ctx, state): return Adapter({}, {}, ctx.scale)",
        r"begin_task\(\) .*the adapter's A lacks 28 layers",
    ),
    "weights that are not finite": (
        "def weights(self, state): return Delta({n: v / 0 for n, v in state.merged.items()})",
        r"weights\(\) after task 'dapple': layer .* holds NaN or infinity",
    ),
    "a state that is none": (
        "def end_task(self, ctx, state, adapter): return adapter",
        r"end_task\(\) at task 'dapple' returned Adapter, expected a State",
    ),
    "prompts of another type": (
        "def prompts(self, state, prompts): return prompts[0]",
        r"prompts\(\) at task 'dapple' returned str, expected a list of texts",
    ),
    "images of another size": (
        "def data(self, ctx, examples): return [replace(examples[0], pixels=torch.zeros(3, 8, 8))]",
        r"data\(\) at task 'dapple': the pixels of example 1 has shape",
    ),
    "a loss that is nan": (
        "def loss(self, ctx, batch): return torch.nan",
        r"the loss became nan in task 'dapple' \(position 1\) at step 1 of 2$",
    ),
    "a loss that raises": (
        "def loss(self, ctx, batch):\n        return 1 / 0",
        r"in training at task 'dapple': .*mine.py, line 11, in loss: ZeroDivisionError: division by zero",
    ),
    "gradients that are not there": (
        "def on_gradients(self, ctx): ctx.adapter.gradients",
        r"in training at task 'dapple': .*mine.py, line 10, in on_gradients: AttributeError",
    ),
    "a signature that nobody calls": (
        "def frozen(self): return Delta()",
        r"failed in frozen\(\) at task 'dapple': .*mine.py: TypeError: .* takes 1 positional argument",
    ),
    "something kept in the object and not in the state": (
        "def begin_task(self, ctx, state):\n"
        "        if ctx.position: return self.kept\n"
        "        self.kept = ctx.fresh_adapter()\n"
        "        return self.kept",
        r"begin_task\(\) at task .*mine.py, line 11, in begin_task: AttributeError: 'Mine' object has no attribute",
    ),
    "a state that is stored as another class": (
        "def end_task(self, ctx, state, adapter): return type('Counted', (State,), {})(adapter=adapter)",
        r"end_task\(\) at task 'dapple' returned Counted, expected a State",
    ),
    "names that become texts in the file": (
        "def end_task(self, ctx, state, adapter): return State(extra={0: torch.ones(1)})",
        r"end_task\(\) .*the state's extra has the name 0, expected a text",
    ),
    "an adapter that the file cannot hold": (
        "def end_task(self, ctx, state, adapter): return State(adapter=Adapter({}, {}))",
        r"end_task\(\) .*the state's adapter has no layers",
    ),
    "the third task": (
        "def begin_task(self, ctx, state): return [] if ctx.position == 2 else ctx.fresh_adapter()",
        r"begin_task\(\) at task .* returned list, expected an Adapter",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_hook_is_one_sentence_of_the_engines(checked, what):
    body, says = WRONG[what]
    check = checked(f"\n    {body}\n")
    assert check.error is not None
    assert check.error.exit_code == 1
    message = str(check.error).removesuffix("; --debug shows the traceback")
    assert re.search(says, message), message
    assert "\n" not in message
    assert "earlier tasks are kept" not in message


def test_a_method_that_passes_is_told_with_its_hooks_and_the_regime_of_its_state(checked):
    check = checked(
        "\n    def begin_task(self, ctx, state):\n        print('task', ctx.position)\n"
        "        return state.adapter or ctx.fresh_adapter()\n"
        "\n    def end_task(self, ctx, state, adapter):\n        return state.with_adapter(adapter)\n"
    )
    assert (check.error, check.warnings, check.regime, check.tasks) == (None, (), "adapter", 3)
    assert check.hooks == ("begin_task", "end_task")
    assert len(set(check.state_bytes)) == 1
    assert [event["text"] for event in check.output] == ["task 0", "task 1", "task 2"]


@pytest.mark.parametrize(
    ("function", "warns"),
    [
        ("on_end_task(self, ctx, state, adapter)", r"mine.py, line 10: on_end_task\(\) is no hook.*mean 'end_task'"),
        ("end_tasks(self, ctx, state, adapter)", "mean 'end_task'"),
        ("begin(self, ctx, state)", "mean 'begin_task'"),
        ("task_end(self, ctx)", "mean 'end_task'"),
        ("on_gradient(self, ctx)", "mean 'on_gradients'"),
        ("weights(self)", r"line 10: weights\(\) is called as weights\(state\), which it does not take: too many"),
        ("end_task(self, state, adapter)", r"called as end_task\(ctx, state, adapter\), which it does not take"),
        ("fisher(self)", None),
        ("_end_tasks(self)", None),
        ("weights(self, state, scale=1.0)", None),
        ("loss(self, *anything)", None),
    ],
)
def test_what_looks_like_a_hook_and_is_none_is_warned_of(plugin, function, warns):
    path = plugin(f"\n    def {function}: pass\n")
    found = hook_warnings(get_method("mine", {}, [path]))
    assert len(found) == (warns is not None)
    assert all(re.search(warns, warning) for warning in found)


def test_a_helper_that_the_method_calls_itself_is_no_misnamed_hook(plugin):
    path = plugin("\n    def losses(self): pass\n\n    def on_gradients(self, ctx): self.losses()\n")
    assert hook_warnings(get_method("mine", {}, [path])) == []


# --- before a run ---

COUNTS = """
    def end_task(self, ctx, state, adapter):
        seen.append(ctx.task)
        print("seen", len(seen))
        return state.with_adapter(adapter)

seen = []
"""


def test_a_wrong_plugin_is_refused_before_any_work_with_what_it_printed(run, plugin, tmp_path):
    seen = Events()
    path = plugin(COUNTS.replace("return state", "return ctx.no"))
    with pytest.raises(WorkFailed) as caught:
        run("mine", plugins=(path,), on_event=seen.append)
    assert "has no attribute 'no'" in sentence(caught)
    advice = f"; nothing was run (`clbench check {path}` checks it alone, --no-check runs it all the same)"
    assert str(caught.value).endswith(advice)
    assert [event["text"] for event in seen if event["event"] == "output"] == ["seen 1"]
    assert not (tmp_path / "runs").exists()
    with pytest.raises(WorkFailed) as caught:
        run("mine", plugins=(path,), on_event=seen.append, debug=True)
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.long
def test_a_plugin_is_checked_once_in_a_store_and_again_when_it_or_its_settings_change(ready, plugin, monkeypatch):
    checks = watch(monkeypatch, plugin_check, "check_method")
    setting = "\n    from pydantic import BaseModel\n    class Config(BaseModel):\n        strength: float = 1.0\n"
    path = plugin(setting)
    strong = Variant.of("mine", {"strength": 2}, "strong")
    for count, variant in ((1, "mine"), (1, "mine"), (2, strong), (2, strong)):
        ready((variant, "naive"), ("styles", "objects"), plugins=(path,))
        assert len(checks) == count
    other = path.with_name("other.py")
    other.write_text(path.read_text() + "# changed\n")
    ready(("mine",), plugins=(other,))
    assert len(checks) == 3


def test_bundled_methods_are_not_checked(ready, monkeypatch):
    checks = watch(monkeypatch, plugin_check, "check_method")
    ready(("naive", "magmax"))
    assert checks == []


@pytest.mark.long
def test_what_a_plugin_keeps_in_its_module_during_the_check_does_not_meet_the_run(ready, plugin):
    seen = Events()
    harness.carry_out(ready(("mine",), plugins=(plugin(COUNTS),)), seen.append)
    assert [event["text"] for event in seen if event["event"] == "output"] == ["seen 1"] * 3


@pytest.mark.long
def test_the_check_leaves_the_global_random_numbers_alone(checked):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    checked("")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.long
def test_a_toy_has_the_layers_of_the_suites_own_model_whatever_its_width(tiny, world):
    suite = load_suite(str(tiny))
    folders = resolve_assets(suite, str(tiny), "objects", AssetPaths(world, tiny)).folders
    toy = ToyModels(toy_suite(suite, "objects"), plugin_check.DeviceConfig(), folders)
    assert len(toy.shapes) == suite.training.adapted_layers
    check = check_method("cpu", "fp32", "naive", {}, [], suite, "objects", folders)
    assert (check.error, check.regime) == (None, "adapter")


def test_a_method_that_needs_more_than_the_toy_has_can_be_run_unchecked(mock_folder, models, plugin, tmp_path):
    demanding = plugin(
        "    def end_task(self, ctx, state, adapter):\n"
        "        assert ctx.state is not None and len(ctx.shapes) > 1000, 'too small a model'\n"
        "        return state\n"
    )
    options = {"quick": True, "device": "cpu", "workers": 1, "output": tmp_path / "runs", "plugins": (demanding,)}
    with pytest.raises(WorkFailed, match="--no-check runs it all the same"):
        harness.run("mine", "styles", mock_folder, models=models, **options)
    seen = Events()
    with pytest.raises(WorkFailed, match="too small a model"):  # the mock is small too, but it was tried
        harness.run("mine", "styles", mock_folder, models=models, on_event=seen.append, check=False, **options)
    assert seen.trainings


@pytest.mark.long
def test_a_hook_may_take_as_many_passes_as_in_the_whole_suite_though_the_check_has_two_steps():
    found = plugin_check.check("ewc")
    assert (found.error, found.regime) == (None, "constant")
    assert found.state_sha256 == plugin_check.check("ewc").state_sha256
    assert len(set(found.state_sha256)) == 3
