"""Methods that are told the task at sampling, methods that are bounds, and the budget of a training."""

from __future__ import annotations

import pytest

from clbench.errors import WorkFailed
from clbench.lora import Delta
from clbench.method import Method
from clbench.plugins import get_method
from clbench.protocol.task_sequence import TaskSequence


def test_single_task_forgets_nothing_and_is_the_base_model_where_no_task_is_asked_for(runtime):
    sequence = TaskSequence(runtime, get_method("single_task"), "forward", 0)
    run = sequence.run()
    assert run.told_task
    assert run.regime == "bound"
    for metric in runtime.track.metrics:
        matrix = run.matrix(metric)
        for column in range(len(sequence.tasks)):
            after = matrix[column + 1 :, column]
            assert (after == after[0]).all()
    state = sequence.state(2)
    assert sequence.deployed(2, state).weights == Delta()
    own = sequence.deployed(2, state, sequence.tasks[1]).weights
    fresh = TaskSequence(runtime, get_method("merge_init"), "forward", 0)
    first = sequence.deployed(2, state, sequence.tasks[0]).weights
    assert all((first[layer] == value).all() for layer, value in fresh.state(0).merged.items())
    assert any((own[layer] != value).any() for layer, value in first.items())


def test_a_method_that_is_told_nothing_says_so(runtime):
    run = TaskSequence(runtime, get_method("naive"), "forward", 0).run()
    assert not run.told_task
    assert run.training_passes == 1


class Doubles(Method):
    more = 1.0

    def end_task(self, ctx, state, adapter):
        training = ctx.training
        for batch in ctx.batches(int(self.more * training.steps)):
            ctx.denoising_loss(batch)
        return super().end_task(ctx, state, adapter)


class TooMuch(Doubles):
    more = 5.0


class TooMuchButABound(TooMuch):
    family = "bound"


def test_passes_are_counted_in_multiples_of_the_suite_s_training(runtime):
    assert TaskSequence(runtime, Doubles(), "forward", 0).run().training_passes == 2


@pytest.mark.long
def test_a_method_that_trains_longer_than_the_suite_allows_is_stopped_unless_it_is_a_bound(runtime):
    allowed = runtime.suite.training.most_passes
    with pytest.raises(WorkFailed, match=f"with a gradient, and the suite allows {allowed}; train less"):
        TaskSequence(runtime, TooMuch(), "forward", 0).run()
    run = TaskSequence(runtime, TooMuchButABound(), "forward", 0).run()
    assert run.regime == "bound"
    assert run.training_passes == 6
