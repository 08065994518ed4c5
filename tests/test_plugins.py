"""The hooks carry two methods that the engine does not know: EWC and self-replay, in tests/support/plugins/."""

import pytest
import torch
from paths import PLUGINS
from watching import Events

from clbench.method import Method
from clbench.plugins import get_method
from clbench.protocol.sampling import draw_cell, draw_for_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.protocol.trainer import TaskDataset
from clbench.state import State
from clbench.storage.store import Store
from clbench.utils.seeding import generator


@pytest.fixture
def sequence(runtime, tmp_path):
    """A sequence of a method from tests/support/plugins (or `methods/`), each with a store of its own."""

    def make(name: str, **settings) -> TaskSequence:
        plugins = [path for path in [PLUGINS / f"{name}.py"] if path.exists()]
        own = TrackRuntime(runtime.suite, "styles", Store(tmp_path / f"{name}{settings}"), models=runtime.models)
        return TaskSequence(own, get_method(name, settings, plugins), "forward", 0)

    return make


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def factors(state: State) -> dict[str, torch.Tensor]:
    return State(adapter=state.adapter).tensors()


@pytest.mark.long
@pytest.mark.parametrize(("name", "expected"), [("ewc", "constant"), ("self_replay", "growing")])
def test_three_tasks_run_and_the_regime_is_measured(sequence, name, expected):
    run = sequence(name).run()
    assert run.regime == expected
    assert len(set(run.state_bytes)) == (1 if expected == "constant" else 3)
    assert all(value is not None for rows in run.scores.values() for value in rows[-1])


# --- EWC ---


@pytest.mark.long
def test_ewcs_first_task_is_naives_and_its_penalty_moves_the_later_ones(sequence):
    free, held = sequence("ewc", strength=0), sequence("ewc")
    naive = sequence("naive")
    for position in range(2):
        assert equal(factors(free.state(position)), factors(naive.state(position)))
        assert equal(factors(held.state(position)), factors(naive.state(position))) == (position == 0)


def test_ewc_stays_nearer_to_what_earlier_tasks_needed(sequence):
    def drift(strength: float) -> float:
        """How far the second task moved the adapter, weighed by the first task's Fisher information."""
        made = sequence("ewc", strength=strength)
        first, second = made.state(0), made.state(1)
        before, after = factors(first), factors(second)
        return sum(float((first.extra[name] * (after[name] - before[name]) ** 2).sum()) for name in before)

    assert drift(1e9) < 0.9 * drift(0)


def test_ewcs_fisher_information_is_the_mean_squared_gradient_under_the_trained_adapter(sequence, backbone):
    made = sequence("ewc")
    state = made.state(0)
    examples = made.runtime.examples(made.tasks[0], generator(0, "crop", 0))
    data = TaskDataset(backbone, examples, made.runtime.suite.resolution)
    backbone.deploy({})
    live = State(adapter=backbone.use_adapter(state.adapter)).tensors()
    expected = {name: torch.zeros_like(value) for name, value in live.items()}
    for batch in data.batches(4, made.runtime.suite.training, generator(0, "method batches", 0)):
        gradients = torch.autograd.grad(data.loss(batch), list(live.values()))
        expected = {name: expected[name] + g**2 / 4 for name, g in zip(live, gradients, strict=True)}
    assert state.extra.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state.extra[name], value)


class Inspector(Method):
    """What a method finds in `end_task`; not registered."""

    def end_task(self, ctx, state, adapter):
        live = State(adapter=ctx.adapter).tensors()
        assert equal({name: value.detach() for name, value in live.items()}, State(adapter=adapter).tensors())
        assert all(value.requires_grad and value.grad is None for value in live.values())
        losses = [ctx.denoising_loss(batch) for batch in ctx.batches(2)]
        torch.stack(losses).sum().backward()
        seen = {name: value.grad for name, value in live.items() if value.grad is not None}
        return super().end_task(ctx, state, adapter).with_extra(**seen, losses=torch.stack(losses).detach())


def test_end_task_sees_the_live_trained_adapter_also_where_training_was_found_in_the_store(runtime):
    first, again = (TaskSequence(runtime, Inspector(), "forward", 0) for _ in range(2))
    state = first.state(0)
    runtime.store.drop(first.keys.state(0), ".safetensors")
    seen = Events()
    runtime.emit = seen.append
    assert equal(again.state(0).tensors(), state.tensors())
    assert not seen.trainings, "the first task was trained again"


# --- self-replay ---


def spied(method: Method) -> list[tuple[list, list[set[int]]]]:
    """(examples, rows drawn into each batch) of every training of a method from now on."""
    seen, data, loss = [], method.data, method.loss

    def seen_data(ctx, examples):
        changed = data(ctx, examples)
        seen.append((changed, []))
        return changed

    def seen_loss(ctx, batch):
        seen[-1][1].append(set(batch.examples.tolist()))
        return loss(ctx, batch)

    method.data, method.loss = seen_data, seen_loss
    return seen


def test_replayed_images_of_earlier_prompts_enter_training(sequence):
    made = sequence("self_replay")
    seen = spied(made.host.method)
    state = made.state(2)
    prompts = [made.runtime.track.train_prompt(task) for task in made.tasks]
    for position, (examples, _) in enumerate(seen):
        replayed = [prompt for prompt in prompts[:position] for _ in range(2)]
        assert [example.prompt for example in examples] == [prompts[position]] * 5 + replayed
    assert any(row >= 5 for _, drawn in seen for rows in drawn for row in rows)
    assert bytes(state.extra["prompts"].tolist()).decode().split("\n") == prompts


def test_replayed_images_are_the_previous_models_from_noise_that_is_not_the_evaluations(sequence):
    made = sequence("self_replay")
    runtime, method = made.runtime, made.host.method
    seen = spied(method)
    before = made.state(0)
    made.state(1)
    pixels = torch.stack([example.pixels for example in seen[1][0][5:]])
    prompt = [runtime.track.train_prompt(made.tasks[0])]

    def drawn(weights, noise) -> torch.Tensor:
        suite = runtime.suite
        return draw_for_method(runtime.backbone, prompt, 2, weights, noise, suite.sampling, suite.resolution)

    assert torch.equal(pixels, drawn(method.weights(before), generator(0, "method samples", 1)))
    assert not torch.equal(pixels, drawn({}, generator(0, "method samples", 1)))
    runtime.backbone.deploy(method.weights(before))
    deployed = draw_cell(runtime.backbone, prompt, runtime.suite.sampling, runtime.suite.resolution) * 2 - 1
    assert not torch.equal(pixels, deployed)


def test_replay_changes_later_tasks_but_not_the_first(sequence):
    replay, plain = sequence("self_replay"), sequence("merge_init")
    same = [equal(replay.state(position).merged, plain.state(position).merged) for position in range(2)]
    assert same == [True, False]


class SamplesInTheMiddle(Method):
    """Draws images between gradients and step, and in `end_task`; not registered."""

    def on_gradients(self, ctx):
        ctx.sample(["a photo of boot"], 1, {})

    def end_task(self, ctx, state, adapter):
        (batch,) = ctx.batches(1)
        before = ctx.denoising_loss(batch)
        ctx.sample(["a photo of boot"], 1, {})
        assert torch.equal(ctx.denoising_loss(batch), before)
        return super().end_task(ctx, state, adapter)


def test_drawing_images_during_a_task_leaves_its_training_alone(sequence):
    made = sequence("merge_init")
    expected = made.state(1).merged
    made.runtime.store = Store(made.runtime.store.root, reuse=False)
    assert equal(TaskSequence(made.runtime, SamplesInTheMiddle(), "forward", 0).state(1).merged, expected)
