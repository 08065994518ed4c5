"""How a task's batches are drawn, and which optimizer takes the steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clbench import get_method
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.trainer import TaskDataset
from clbench.suite import Suite, Training
from clbench.utils.seeding import generator

STEPS = 1000


class Scheduler:
    class config:
        num_train_timesteps = STEPS


class Model:
    noise_scheduler = Scheduler()
    device = torch.device("cpu")


def drawn(images: int, size: int, count: int, **asked: bool):
    """`count` batches of `size` from a task of `images` pictures."""
    task = object.__new__(TaskDataset)
    task.backbone = Model()  # type: ignore[assignment]
    task.mean = task.std = torch.zeros(images, 1, 2, 2)
    training = Training(
        rank=1,
        alpha=1,
        targets=("to_q",),
        steps=count,
        batch_size=size,
        learning_rate=1e-3,
        weight_decay=0,
        max_grad_norm=1,
        balanced_batches=asked.get("balanced"),
        stratified_timesteps=asked.get("stratified"),
    )
    return list(task.batches(count, training, generator(0, "test")))


@given(images=st.integers(1, 12), size=st.integers(1, 24), count=st.integers(1, 6))
def test_balanced_batches_show_every_image_as_often_as_the_others(images, size, count):
    batches = drawn(images, size, count, balanced=True)
    for examples in (*(batch.examples for batch in batches), torch.cat([batch.examples for batch in batches])):
        seen = torch.bincount(examples, minlength=images)
        assert seen.max() - seen.min() <= 1


@given(size=st.integers(1, 40))
def test_stratified_time_steps_take_one_from_each_part_of_the_range(size):
    for batch in drawn(5, size, 3, stratified=True):
        steps = batch.timesteps.sort().values
        assert steps[0] >= 0
        assert steps[-1] < STEPS
        for part, step in enumerate(steps.tolist()):
            assert part * STEPS / size - 1 <= step <= (part + 1) * STEPS / size


def test_which_image_gets_which_part_of_the_range_is_drawn():
    orders = {tuple(batch.timesteps.argsort().tolist()) for batch in drawn(5, 10, 8, balanced=True, stratified=True)}
    assert len(orders) == 8


def test_without_those_settings_batches_are_what_they_always_were():
    (batch,) = drawn(5, 4, 1)
    source = generator(0, "test")
    assert torch.equal(batch.examples, torch.randint(5, (4,), generator=source))
    torch.randn((2, 4, 1, 2, 2), generator=source)
    assert torch.equal(batch.timesteps, torch.randint(STEPS, (4,), generator=source))


@pytest.mark.parametrize(("epsilon", "used"), [(None, 1e-8), (1e-3, 1e-3)])
def test_a_suite_may_name_the_optimizers_epsilon(runtime, monkeypatch, epsilon, used):
    training = runtime.suite.training.model_copy(update={"epsilon": epsilon})
    runtime.suite = Suite.model_validate({**runtime.suite.model_dump(), "training": training.model_dump()})
    seen = []
    real = torch.optim.AdamW

    def spy(parameters, **options):
        seen.append(options["eps"])
        return real(parameters, **options)

    monkeypatch.setattr(torch.optim, "AdamW", spy)
    TaskSequence(runtime, get_method("naive"), "forward", 0).make_state(0)
    assert seen == [used]
