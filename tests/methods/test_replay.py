"""Replay: what is kept and how exactly, what the batches hold, and A-GEM's projection."""

from dataclasses import replace

import pytest
import torch
from following import FRESH, RANK, SHAPES, TRAINED, context, dense, in_training, same

from clbench.method import Batch, Context, Example
from clbench.plugins import get_method
from clbench.protocol.rows import COST
from clbench.protocol.task_sequence import TaskSequence
from clbench.replay import interleave, pack_examples, reservoir, unpack_examples
from clbench.state import State
from clbench.suite import load_suite
from clbench.utils.seeding import generator


def pictures(task: int, count: int = 3) -> list[Example]:
    draws = generator("pictures", task)
    pixels = torch.randint(256, (count, 3, 4, 4), generator=draws).float() / 127.5 - 1
    return [Example(image, f"task {task}", (5, 6) if task else None, (1, 2)) for image in pixels]


def equal(a: list[Example], b: list[Example]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.pixels, y.pixels) and replace(x, pixels=y.pixels) == y for x, y in zip(a, b, strict=True)
    )


def test_kept_examples_survive_the_states_file_to_the_last_bit(tmp_path):
    examples = [*pictures(0), *pictures(1)]
    State().with_extra(**pack_examples(examples)).save(tmp_path / "state")
    assert equal(unpack_examples(State.load(tmp_path / "state")), examples)
    assert unpack_examples(State()) == []


def test_half_of_the_examples_are_old_whatever_there_are_more_of():
    new, old = pictures(1, 2), pictures(0, 5)
    mixed = interleave(new, old)
    assert [example.prompt for example in mixed] == ["task 1", "task 0"] * 5
    assert equal(mixed[1::2], old)
    assert [example.prompt for example in interleave(old, new)] == ["task 0", "task 1"] * 5
    assert equal(interleave(new, []), new)


def test_the_reservoir_is_a_uniform_sample_of_bounded_size():
    counts = torch.zeros(6)
    for seed in range(600):
        kept = []
        for task in range(6):
            kept = reservoir(kept, pictures(task, 1), task, 2, generator("reservoir", seed, task))
        assert len(kept) == 2
        for example in kept:
            counts[int(example.prompt.split()[1])] += 1
    assert (counts / 600 - 2 / 6).abs().max() < 0.08


def sequence(name: str, tasks: int, **settings) -> tuple[list[list[Example]], State]:
    method, state, seen = get_method(name, settings), State(), []
    for position in range(tasks):
        ctx = replace(context(position), state=state, prompt=f"task {position}")
        method.begin_task(ctx, state)
        seen.append(method.data(ctx, pictures(position)))
        state = method.end_task(ctx, state, TRAINED[position])
    return seen, state


@pytest.mark.parametrize("name", ["data_replay", "a_gem"])
def test_kept_images_make_half_of_the_examples_and_their_number_is_bounded(name):
    seen, state = sequence(name, 3)
    assert equal(seen[0], pictures(0))
    assert equal(seen[2][1::2], [*pictures(0), *pictures(1)])
    assert {example.prompt for example in seen[2][::2]} == {"task 2"}
    assert len(unpack_examples(state)) == 9
    assert same(state.adapter, TRAINED[2])
    assert len(unpack_examples(sequence(name, 3, memory=4)[1])) == 4


def test_self_replay_trains_on_what_the_previous_model_draws_for_earlier_prompts():
    asked = []

    def sample(prompts, images_each, weights):
        asked.append((list(prompts), images_each, weights))
        return torch.stack([torch.full((3, 4, 4), float(i)) for i in range(len(prompts) * images_each)])

    method, state, examples = get_method("self_replay", {"images": 2}), State(), []
    for position in range(3):
        ctx = replace(context(position), state=state, prompt=f"task {position}", sample=sample)
        examples = method.data(ctx, pictures(position))
        state = method.end_task(ctx, state, TRAINED[position])
    assert [(prompts, count) for prompts, count, _ in asked] == [(["task 0"], 2), (["task 0", "task 1"], 2)]
    assert same(asked[1][2], TRAINED[1].delta())
    assert [example.prompt for example in examples[1::2]] == ["task 0"] * 2 + ["task 1"] * 2
    assert [example.pixels[0, 0, 0].item() for example in examples[1::2]] == [0, 1, 2, 3]
    assert {example.prompt for example in examples[::2]} == {"task 2"}


@pytest.mark.parametrize(
    ("suite", "track", "task", "expected"),
    [
        ("mini-v2", "objects", 0, "a photo of car"),
        ("mini-v2", "styles", 1, "image of star"),
        ("sdxl-v1", "objects", 3, "a photo of stuffed animal"),
        ("sdxl-v1", "styles", 0, None),
    ],
)
def test_prior_preservation_draws_the_tasks_class_from_the_base_model(suite, track, task, expected):
    asked = []

    def sample(prompts, images_each, weights):
        asked.append((prompts, images_each, weights))
        return torch.zeros(len(prompts) * images_each, 3, 4, 4)

    definition = load_suite(suite).track(track)
    one = definition.tasks[task]
    ctx = replace(context(), task=one.name, prompt=definition.train_prompt(one), sample=sample)
    mixed = get_method("prior_preservation").data(ctx, pictures(1, 2))
    prompt = expected or f"image of {one.fields['object']}"
    assert asked == [([prompt], 100, {})]
    assert [example.prompt for example in mixed] == ["task 1", prompt] * 100


def test_joint_trains_a_fresh_adapter_on_the_base_model_with_the_data_of_all_tasks():
    method, state, everything = get_method("joint"), State(), []
    for position, adapter in enumerate(TRAINED):
        ctx, everything = replace(context(position), state=state), [*everything, *pictures(position)]
        assert same(method.begin_task(ctx, state), FRESH[position])
        assert method.frozen(state) == {}
        assert equal(method.data(ctx, pictures(position)), everything)
        state = method.end_task(ctx, state, adapter)
        assert equal(unpack_examples(state), everything)
        assert same(method.weights(state), dense(adapter))


def test_joint_takes_as_many_steps_as_all_tasks_so_far(runtime):
    trained = TaskSequence(runtime, get_method("joint"), "forward", 0)
    for position in range(3):
        trained.state(position)
        cost = runtime.store.get_json(trained.keys.cost(position), COST.validate_python)
        assert cost.passes_with_gradient == (position + 1) * runtime.suite.training.passes


# --- A-GEM ---


def linear(state: State, pulls: torch.Tensor) -> tuple[Context, Batch, list[torch.Tensor]]:
    """A context whose loss has the rows' mean pull as its gradient, after a backward pass; its batch; the values."""
    ctx = in_training(state, TRAINED[1])
    live = [*ctx.adapter.tensors().values()]
    rows = torch.arange(len(pulls))
    batch = Batch(pulls, pulls, rows, rows)

    def loss(batch: Batch) -> torch.Tensor:
        flat = torch.cat([theta.flatten() for theta in live])
        return (batch.latents @ flat).mean()

    ctx.denoising_loss = loss
    loss(batch).backward()
    return ctx, batch, live


def projected(pulls: torch.Tensor, state: State) -> torch.Tensor:
    ctx, batch, live = linear(state, pulls)
    method = get_method("a_gem")
    assert method.loss(ctx, batch) == 0
    method.on_gradients(ctx)
    return torch.cat([theta.grad.flatten() for theta in live if theta.grad is not None])


VALUES = sum(RANK * (outputs + inputs) for outputs, inputs in SHAPES.values())
MEMORY = State(adapter=TRAINED[0]).with_extra(**pack_examples(pictures(0)))


def pulls(agree: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four rows, of which the second and the fourth are kept ones; the new rows' mean and the kept rows' mean."""
    new, kept = torch.randn(2, 2, VALUES, generator=generator("pulls"))
    kept = kept + (1.0 if agree else -1.0) * new
    return torch.stack([new[0], kept[0], new[1], kept[1]]), new.mean(dim=0), kept.mean(dim=0)


def test_a_gem_changes_nothing_where_gradients_agree():
    rows, new, kept = pulls(agree=True)
    assert new @ kept > 0
    torch.testing.assert_close(projected(rows, MEMORY), new, atol=1e-5, rtol=1e-5)


def test_a_gem_projects_a_gradient_that_would_raise_the_kept_loss():
    rows, new, kept = pulls(agree=False)
    assert new @ kept < 0
    found = projected(rows, MEMORY)
    torch.testing.assert_close(found, new - (new @ kept) / (kept @ kept) * kept, atol=1e-5, rtol=1e-5)
    assert abs(found @ kept) < 1e-3


def test_a_gem_leaves_the_first_tasks_gradients_alone():
    rows, _, _ = pulls(agree=False)
    torch.testing.assert_close(projected(rows, State()), rows.mean(dim=0))
