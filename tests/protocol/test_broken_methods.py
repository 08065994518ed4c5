"""Methods that raise or return something unusable: each failure is one sentence, and what was finished is kept."""

import random

import numpy as np
import pytest
import torch
from watching import Events, sentence

from clbench.errors import ClbenchError, WorkFailed
from clbench.lora import Adapter, Delta
from clbench.method import Method
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import State


def broken(called: str = "broken", /, **hooks) -> Method:
    """A method with these hooks, which is not registered."""
    method = type("Broken", (Method,), hooks)
    method.name = called
    return method()


def boom(*_):
    raise ValueError("first line\nsecond line")


def failure(runtime: TrackRuntime, method: Method) -> str:
    """How a sequence of the method ends."""
    sequence = TaskSequence(runtime, method, "forward", 0)
    with pytest.raises(WorkFailed) as caught:
        [sequence.row(position) for position in range(3)]
    assert caught.value.exit_code == 1
    return sentence(caught)


@pytest.mark.parametrize(
    "hook", ["begin_task", "frozen", "data", "prompts", "loss", "on_gradients", "end_task", "weights"]
)
def test_a_hook_that_raises_is_named_with_its_task_file_and_line(runtime, hook):
    message = failure(runtime, broken(**{hook: boom}))
    place = "training" if hook in ("loss", "on_gradients") else f"{hook}()"
    assert f"method broken failed in {place} at task 'byzantine'" in message
    line = boom.__code__.co_firstlineno + 1
    assert f"{__file__}, line {line}, in boom: ValueError: first line second line" in message
    assert "; --debug shows the traceback" in message


def nan(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.full(shape, torch.nan)


FIRST = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
WRONG = {
    "begin_task": [
        lambda self, ctx, state: "an adapter",
        lambda self, ctx, state: Adapter(None, None),  # type: ignore[arg-type]
        lambda self, ctx, state: Adapter({}, {}),
        lambda self, ctx, state: Adapter(ctx.fresh_adapter().A, ctx.fresh_adapter().B, 17.0),
        lambda self, ctx, state: Adapter({**ctx.fresh_adapter().A, FIRST: nan((4, 64))}, ctx.fresh_adapter().B),
        lambda self, ctx, state: Adapter({**ctx.fresh_adapter().A, FIRST: torch.zeros(9, 64)}, ctx.fresh_adapter().B),
        lambda self, ctx, state: Adapter({**ctx.fresh_adapter().A, "no layer": nan((4, 64))}, ctx.fresh_adapter().B),
    ],
    "frozen": [
        lambda self, state: 3,
        lambda self, state: {FIRST: torch.zeros(3)},
        lambda self, state: {FIRST: nan((64, 64))},
        lambda self, state: {"no layer": torch.zeros(64, 64)},
    ],
    "data": [
        lambda self, ctx, examples: None,
        lambda self, ctx, examples: [],
        lambda self, ctx, examples: ["an image"],
        lambda self, ctx, examples: [type(examples[0])(torch.zeros(3, 8, 8), "small")],
        lambda self, ctx, examples: [type(examples[0])(nan((3, 32, 32)), "nan")],
    ],
    "prompts": [
        lambda self, state, prompts: None,
        lambda self, state, prompts: prompts[:1],
        lambda self, state, prompts: [1 for _ in prompts],
    ],
    "loss": [
        lambda self, ctx, batch: "much",
        lambda self, ctx, batch: torch.zeros(3),
    ],
    "end_task": [
        lambda self, ctx, state, adapter: None,
        lambda self, ctx, state, adapter: State(None),  # type: ignore[arg-type]
        lambda self, ctx, state, adapter: State(adapter="one"),  # type: ignore[arg-type]
        lambda self, ctx, state, adapter: State(extra=[1]),  # type: ignore[arg-type]
        lambda self, ctx, state, adapter: state.with_merged({FIRST: torch.zeros(3, 3)}),
        lambda self, ctx, state, adapter: state.with_merged({FIRST: nan((64, 64))}),
        lambda self, ctx, state, adapter: state.with_extra(statistics=nan((2,))),
        lambda self, ctx, state, adapter: state.with_extra(count=3),
    ],
    "weights": [
        lambda self, state: None,
        lambda self, state: Delta({FIRST: torch.zeros(64)}),
        lambda self, state: Delta({FIRST: nan((64, 64))}),
        lambda self, state: Delta({FIRST: "large"}),  # type: ignore[dict-item]
    ],
}


@pytest.mark.parametrize(
    ("hook", "returns"), [(hook, returns) for hook, each in WRONG.items() for returns in each], ids=lambda value: ""
)
def test_a_hook_that_returns_something_unusable_is_one_sentence(runtime, hook, returns):
    message = failure(runtime, broken(**{hook: returns}))
    assert "method broken" in message
    assert ("training" if hook == "loss" else f"{hook}()") in message
    assert "task 'byzantine'" in message


def test_a_loss_that_turns_nan_stops_with_its_task_and_step_and_keeps_earlier_tasks(runtime, monkeypatch):
    def loss(self, ctx, batch):
        return torch.nan if (ctx.position, ctx.step) == (1, 1) else 0.0

    message = failure(runtime, broken(loss=loss))
    assert "the loss became nan in task 'palette knife' (position 2) at step 2 of 2" in message
    seen = Events()
    runtime.emit = seen.append
    assert "palette knife" in failure(runtime, broken(loss=loss))
    assert seen.trainings == 1


def test_weights_that_draw_nan_are_not_scored(runtime):
    message = failure(runtime, broken(weights=lambda self, state: Delta({FIRST: torch.full((64, 64), 3e38)})))
    assert "NaN" in message


def leave_hooks(self, ctx, state):
    next(iter(ctx.modules.values())).register_forward_hook(lambda *_: None)
    return ctx.fresh_adapter()


def test_a_hook_that_is_left_in_the_model_is_named(runtime):
    try:
        message = failure(runtime, broken(begin_task=leave_hooks))
    finally:
        for module in runtime.backbone.unet.modules():
            module._forward_hooks.clear()
    assert "end_task() at task 'byzantine' left a hook on" in message
    assert "let end_task() remove it" in message


@pytest.mark.parametrize(
    ("hook", "change"),
    [
        ("weights", lambda self, state: [value.add_(1) for value in state.merged.values()] and state.merged),
        ("frozen", lambda self, state: state.extra.update(seen=torch.ones(1)) or state.merged),
        ("end_task", lambda self, ctx, state, adapter: state.merged.clear() or state.with_merged(adapter.delta())),
    ],
)
def test_a_state_that_is_changed_in_place_is_refused(runtime, hook, change):
    message = failure(runtime, broken(**{hook: change}))
    assert f"{hook}() at task" in message
    assert "changed the state that it was given" in message


def test_global_random_numbers_of_a_plugin_are_the_same_every_time_and_elsewhere_as_before(runtime):
    def drawn() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]

    def seen(position: int) -> list[list[float]]:
        """What the method draws in a task."""
        found = []
        method = broken(
            begin_task=lambda self, ctx, state: found.append(drawn()) or ctx.fresh_adapter(),
            loss=lambda self, ctx, batch: found.append(drawn()) or 0.0,
        )
        sequence = TaskSequence(runtime, method, "forward", 0)
        sequence._train(position, State())
        return found

    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    first = drawn()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    once = seen(0)
    assert drawn() == first
    assert seen(0) == once
    assert seen(1) != once
    assert len({tuple(values) for values in once}) == len(once) == 3, "begin_task and two steps"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("name = 'my method'", "name"),
        ("name, version = 'mine', 2", "version"),
        ("name, family = 'mine', 'magic'", "family"),
        ("name = 'mine'\n    class Config(BaseModel):\n        thing: object = object()", "config"),
    ],
)
def test_a_method_that_no_result_can_record_is_refused_before_the_work(run, tmp_path, body, field):
    plugin, seen = tmp_path / "plugin.py", Events()
    plugin.write_text(
        f"from pydantic import BaseModel\nfrom clbench import Method\n\nclass Mine(Method):\n    {body}\n"
    )
    with pytest.raises(ClbenchError) as caught:
        run("my method" if field == "name" else "mine", plugins=(plugin,), on_event=seen.append)
    assert f"its {field} cannot be recorded" in sentence(caught)
    assert not seen.trainings
