"""The hooks that act inside a training: what they see, what they change, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from clbench.errors import WorkFailed
from clbench.lora import Adapter, Delta
from clbench.method import Method
from clbench.protocol.task_sequence import TaskSequence
from clbench.state import State, digest


def sequence(runtime, method: Method) -> TaskSequence:
    return TaskSequence(runtime, method, "forward", 0)


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def test_prepare_sees_batches_and_gradients_and_its_adapter_is_the_one_that_is_trained(runtime):
    class Prepared(Method):
        def prepare(self, ctx, adapter):
            assert ctx.adapter.A.keys() == ctx.shapes.keys()
            [batch] = ctx.batches(1)
            ctx.denoising_loss(batch).backward()
            self.seen = {layer: gradient(B) for layer, B in ctx.adapter.B.items()}
            return replace(adapter, B={layer: value.sign() for layer, value in self.seen.items()})

        def loss(self, ctx, batch):
            if ctx.step == 0:
                self.started = {layer: B.detach().clone() for layer, B in ctx.adapter.B.items()}
            return 0.0

    method = Prepared()
    sequence(runtime, method).state(0)
    assert any(bool(value.any()) for value in method.seen.values())
    assert all(torch.equal(method.started[layer], value.sign()) for layer, value in method.seen.items())


def test_what_prepare_returns_is_checked_like_what_begin_task_returns(runtime):
    class Broken(Method):
        def prepare(self, ctx, adapter):
            return Adapter({}, {}, adapter.scale)

    with pytest.raises(WorkFailed, match=r"prepare\(\) at task '.*': the adapter's A lacks"):
        sequence(runtime, Broken()).state(0)


def test_a_method_chooses_its_optimizer_and_changes_the_factors_after_each_step(runtime):
    steps = runtime.suite.training.steps

    class Signs(Method):
        calls = 0

        def optimizer(self, ctx, parameters):
            return torch.optim.SGD(parameters, lr=ctx.training.learning_rate)

        def after_step(self, ctx):
            self.calls += 1
            with torch.no_grad():
                for B in ctx.adapter.B.values():
                    B.fill_(0.5)

    method = Signs()
    state = sequence(runtime, method).state(0)
    assert method.calls == steps
    assert all(torch.allclose(value, value[:1].expand_as(value)) for value in state.merged.values())  # equal rows


def test_the_learning_rate_that_is_set_is_the_one_that_trains_and_shares_no_training_with_others(runtime):
    class Plain(Method):
        pass

    default, same, slower = (sequence(runtime, Plain(learning_rate=rate)) for rate in (None, None, 1e-6))
    before = digest(default.state(0).tensors())
    assert digest(same.state(0).tensors()) == before
    assert default.shared_training_key == same.shared_training_key != slower.shared_training_key
    assert slower.training.learning_rate == 1e-6
    assert digest(slower.state(0).tensors()) != before


def test_base_weights_are_the_untouched_model_s_whatever_was_deployed_before(runtime):
    seen: list[dict[str, torch.Tensor]] = []

    class Looks(Method):
        def begin_task(self, ctx, state):
            layers = list(ctx.shapes)[:2]
            seen.append({layer: ctx.base_weight(layer) for layer in layers})
            modules: Any = ctx.modules
            seen.append({layer: modules[layer].base_layer.weight.clone() for layer in layers})
            ctx.base_weight(layers[0]).zero_()  # a copy
            return ctx.fresh_adapter()

        def loss(self, ctx, batch):
            return 0.0

    own = sequence(runtime, Looks())
    own.state(0)
    runtime.backbone.deploy({layer: torch.ones(shape) for layer, shape in runtime.models.shapes.items()})
    own.state(1)
    assert all(torch.equal(first[layer], other[layer]) for first, other in pairwise(seen) for layer in first)


def test_predictions_of_another_model_are_those_that_it_makes_when_it_is_deployed(runtime):
    class Teacher(Method):
        def loss(self, ctx, batch):
            return 0.0

        def end_task(self, ctx, state, adapter):
            backbone: Any = runtime.backbone
            [batch] = ctx.batches(1)
            other = Delta({layer: torch.full(shape, 0.01) for layer, shape in ctx.shapes.items()})
            self.live, self.without = ctx.predict(batch), ctx.predict(batch, weights=state.merged)
            self.other = ctx.predict(batch, weights=other)
            self.reworded = ctx.predict(batch, prompts=["a boot"] * len(batch.latents))
            self.again = ctx.predict(batch)
            with backbone.temporary_weights(other):
                self.deployed_other = ctx.predict(batch)
            with backbone.temporary_weights({}):
                self.deployed_nothing = ctx.predict(batch)
            return super().end_task(ctx, state, adapter)

    method = Teacher()
    sequence(runtime, method).state(0)
    assert torch.equal(method.live, method.again)
    assert torch.equal(method.other, method.deployed_other)
    assert torch.equal(method.without, method.deployed_nothing)
    assert not torch.equal(method.live, method.without)
    assert not torch.equal(method.live, method.reworded)


def test_a_prediction_within_the_loss_leaves_the_gradients_as_they_are(runtime):
    class Watches(Method):
        asks = False

        def loss(self, ctx, batch):
            if self.asks:
                ctx.predict(batch, weights=Delta({layer: torch.ones(shape) for layer, shape in ctx.shapes.items()}))
            return 0.0

    class Asks(Watches):
        asks = True

    assert states_of(runtime, Watches()) == states_of(runtime, Asks())


def test_the_live_prediction_is_at_hand_in_the_loss_with_its_gradient_and_at_no_cost(runtime):
    class Looks(Method):
        seen = 0

        def loss(self, ctx, batch):
            backbone: Any = runtime.backbone
            self.seen += 1
            assert backbone.passes[True] == self.seen * len(batch.latents)
            assert ctx.predicted.requires_grad
            assert torch.equal(ctx.predicted.detach(), ctx.predict(batch))
            return 0.0

    method = Looks()
    sequence(runtime, method).state(0)
    assert method.seen == runtime.suite.training.steps


def test_a_method_chooses_the_number_of_steps(runtime):
    class Longer(Method):
        seen = 0

        def steps(self, ctx):
            return ctx.training.steps + 2

        def loss(self, ctx, batch):
            self.seen += 1
            assert ctx.training.steps == runtime.suite.training.steps + 2
            return 0.0

    method = Longer()
    own = sequence(runtime, method)
    own.state(0)
    assert method.seen == runtime.suite.training.steps + 2
    assert own.shared_training_key is None


@pytest.mark.parametrize("count", [0, 2.5, None])
def test_a_number_of_steps_is_a_positive_whole_number(runtime, count):
    class Broken(Method):
        def steps(self, ctx):
            return count

    with pytest.raises(WorkFailed, match=rf"steps\(\) at task '.*' returned {count}, expected a number of steps"):
        sequence(runtime, Broken()).state(0)


def states_of(runtime, method: Method) -> str:
    own = sequence(runtime, method)
    return digest(own._train(0, State())[0].tensors())
