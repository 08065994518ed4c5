"""What a method may train: LoRA on fewer layers and of smaller ranks, PEFT's other adapters, and masked entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from clbench.backbones.peft_layers import KINDS
from clbench.lora import Delta, PeftAdapter
from clbench.method import Method
from clbench.plugins import get_method
from clbench.protocol.describe import describe
from clbench.protocol.method_host import MethodProcess
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import State, digest
from clbench.storage.store import Store

SETTINGS: dict[str, dict[str, Any]] = {
    "DORA": {"r": 3, "lora_alpha": 3},
    "LOHA": {"r": 2, "alpha": 2},
    "LOKR": {"r": 2, "alpha": 2},
    "OFT": {"oft_block_size": 8, "use_cayley_neumann": False},
    "VERA": {"r": 4},
}


def trained(runtime: TrackRuntime, method: Method, before: State | None = None):
    """The state and the cost of a second task that `method` trains after `before`."""
    return TaskSequence(runtime, method, "forward", 0)._train(1, before or State())


def some(layers, count: int = 3) -> list[str]:
    """Layers of the beginning, the middle and the end."""
    names = list(layers)
    return names[:: len(names) // count][:count]


def deployed(runtime: TrackRuntime) -> State:
    """A state of earlier merges, so that frozen weights differ from the base weights."""
    draws = torch.Generator().manual_seed(0)
    shapes = runtime.models.shapes
    return State(Delta({name: 0.01 * torch.randn(shape, generator=draws) for name, shape in shapes.items()}))


class Peft(Method):
    """Trains one of PEFT's adapters, and keeps what it saw."""

    def __init__(self, kind: str, layers: list[str] | None = None) -> None:
        super().__init__()
        self.kind, self.layers = kind, layers

    def begin_task(self, ctx, state) -> PeftAdapter:
        return ctx.peft_adapter(self.kind, self.layers, **SETTINGS[self.kind])

    def end_task(self, ctx, state, adapter: Any):
        [batch] = ctx.batches(1)
        self.adapter, self.ctx = adapter, ctx
        after = super().end_task(ctx, state, adapter)
        self.live, self.merged = ctx.predict(batch), ctx.predict(batch, weights=after.merged)
        self.unchanged, self.again = ctx.predict(batch, weights=state.merged), ctx.predict(batch)
        return after


class Few(Method):
    """Trains rank 2 on three layers; a hook in the training keeps its first task from being shared."""

    def begin_task(self, ctx, state):
        start = ctx.fresh_adapter(dict.fromkeys(some(ctx.shapes), 2))
        B = {name: torch.randn(value.shape, generator=ctx.generator) / 10 for name, value in start.B.items()}
        self.start = replace(start, B=B)
        return self.start

    def optimizer(self, ctx, parameters):
        self.parameters = parameters
        return super().optimizer(ctx, parameters)

    def end_task(self, ctx, state, adapter):
        self.adapter = adapter
        return super().end_task(ctx, state, adapter)


# --- LoRA on fewer layers ---


def test_rank_two_on_three_layers_trains_these_parameters_alone_and_as_a_plain_loop_does(runtime, monkeypatch):
    calls: list[tuple[Any, ...]] = []
    backbone, training = runtime.backbone, runtime.suite.training
    predict = backbone.predict
    monkeypatch.setattr(backbone, "predict", lambda *inputs: calls.append(inputs) or predict(*inputs))
    targets: list[torch.Tensor] = []

    class Recorded(Few):
        def loss(self, ctx, batch):
            assert sum(value.requires_grad for value in backbone.unet.parameters()) == len(self.parameters)
            velocity = backbone.noise_scheduler.config.prediction_type == "v_prediction"
            noisy = backbone.noise_scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)
            targets.append(noisy if velocity else batch.noise)
            return 0.0

    method = Recorded()
    state, cost = trained(runtime, method)
    layers = some(runtime.models.shapes)
    assert [tuple(value.shape) for value in method.parameters] == [
        *((2, runtime.models.shapes[name][1]) for name in layers),
        *((runtime.models.shapes[name][0], 2) for name in layers),
    ]
    assert cost.trained_parameters == sum(value.numel() for value in method.parameters)
    assert list(state.merged) == list(method.adapter.A) == list(method.adapter.B) == layers

    unet: Any = UNet2DConditionModel.from_pretrained(runtime.assets.folders["backbone"] / "unet").eval()
    unet.requires_grad_(False)
    alpha: Any = 2 * backbone.scale
    unet.add_adapter(LoraConfig(r=2, lora_alpha=alpha, target_modules=layers))
    factors = [getattr(unet.get_submodule(name), part)["default"] for part in ("lora_A", "lora_B") for name in layers]
    parameters = [factor.weight for factor in factors]
    for parameter, value in zip(parameters, method.start.parameters(), strict=True):
        parameter.data.copy_(value)
    optimizer = torch.optim.AdamW(parameters, training.learning_rate, weight_decay=training.weight_decay, fused=True)
    for (noisy, timesteps, hidden, pooled, time_ids, *_), target in zip(calls, targets, strict=True):
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(predicted, target).backward()
        torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        optimizer.step()
    for value, expected, start in zip(method.adapter.parameters(), parameters, method.start.parameters(), strict=True):
        assert not torch.equal(value, start)
        torch.testing.assert_close(value, expected.detach(), atol=1e-6, rtol=1e-5)


def test_an_adapter_of_fewer_layers_leaves_no_trace_in_the_next_of_all_layers(runtime):
    class Full(Method):
        def loss(self, ctx, batch):
            return 0.0

    full = digest(trained(runtime, Full())[0].tensors())
    assert digest(trained(runtime, Few())[0].tensors()) != full
    assert digest(trained(runtime, Full())[0].tensors()) == full


def test_ranks_differ_between_layers_and_the_first_task_is_shared_by_the_adapter_that_starts_it(runtime):
    class Mixed(Method):
        def begin_task(self, ctx, state):
            return ctx.fresh_adapter({name: rank for rank, name in enumerate(some(ctx.shapes), start=1)})

    class Plain(Method):
        pass

    mixed, plain = (TaskSequence(runtime, method(), "forward", 0) for method in (Mixed, Plain))
    assert mixed.shared_training_key
    assert mixed.shared_training_key != plain.shared_training_key
    state = mixed.state(0)
    ranks = {name: int(torch.linalg.matrix_rank(value, rtol=1e-4)) for name, value in state.merged.items()}
    assert ranks == {name: rank for rank, name in enumerate(some(runtime.models.shapes), start=1)}
    assert mixed._train(0, State())[1].trained_parameters < runtime.trainable_parameters
    assert plain._train(0, State())[1].trained_parameters == runtime.trainable_parameters


def test_an_adapter_of_fewer_layers_is_passed_on_in_a_states_file(runtime, tmp_path):
    class Naive(Few):
        def begin_task(self, ctx, state):
            return state.adapter or super().begin_task(ctx, state)

        def end_task(self, ctx, state, adapter):
            return state.with_adapter(adapter)

    sequence = TaskSequence(runtime, Naive(), "forward", 0)
    first, second = sequence.state(0), sequence.state(1)
    assert first.adapter is not None
    assert second.adapter is not None
    assert list(first.adapter.A) == list(second.adapter.A) == some(runtime.models.shapes)
    second.save(tmp_path / "state")
    assert digest(State.load(tmp_path / "state").tensors()) == digest(second.tensors())
    assert list(sequence.deployed(1, second).weights) == some(runtime.models.shapes)


# --- PEFT's other adapters ---


@pytest.mark.parametrize("kind", SETTINGS)
def test_each_kind_trains_within_the_budget_and_its_delta_is_what_the_live_model_differs_by(kind, runtime):
    before = deployed(runtime)
    method = Peft(kind)
    cost = trained(runtime, method, before)[1]
    assert list(method.adapter.values) == list(runtime.models.shapes)
    assert cost.trained_parameters == sum(value.numel() for value in method.adapter.parameters())
    assert cost.trained_parameters <= runtime.trainable_parameters
    assert all(value.device.type == "cpu" and not value.requires_grad for value in method.adapter.parameters())
    assert all(value.dtype == torch.float32 and bool(value.any()) for value in method.adapter.delta().values())
    torch.testing.assert_close(method.live, method.merged, atol=1e-4, rtol=0)
    assert (method.live - method.unchanged).abs().max() > 10 * (method.live - method.merged).abs().max()
    assert torch.equal(method.live, method.again)
    assert not method.adapter.parameters()[0].requires_grad


def test_all_kinds_are_tested():
    assert list(SETTINGS) == list(KINDS)


def test_dora_and_oft_change_weights_as_their_equations_say(runtime):
    before, layers = deployed(runtime), some(runtime.models.shapes)
    frozen = {name: runtime.backbone.base_weight(name) + before.merged[name] for name in layers}
    dora, oft = Peft("DORA", layers), Peft("OFT", layers)
    for method in (dora, oft):
        trained(runtime, method, before)
        assert list(method.adapter.delta()) == layers
    for name, values in dora.adapter.values.items():
        A, B, length = (values[f"{part}.weight"].double() for part in ("lora_A", "lora_B", "lora_magnitude_vector"))
        direction = frozen[name].double() + B @ A
        expected = length[:, None] * direction / direction.norm(dim=1, keepdim=True) - frozen[name]
        torch.testing.assert_close(dora.adapter.delta()[name], expected.float(), atol=1e-7, rtol=1e-5)
    for name, values in oft.adapter.values.items():
        blocks = []
        for entries in values["oft_R.weight"].double():
            Q = torch.zeros(8, 8, dtype=torch.float64)
            Q[tuple(torch.triu_indices(8, 8, 1))] = entries
            Q, identity = Q - Q.T, torch.eye(8, dtype=torch.float64)
            blocks.append((identity + Q) @ torch.linalg.inv(identity - Q))
        expected = frozen[name].double() @ torch.block_diag(*blocks) - frozen[name]
        torch.testing.assert_close(oft.adapter.delta()[name], expected.float(), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_trainings_are_equal_to_the_bit_and_the_model_is_left_as_it_was(kind, runtime):
    base = base_prediction(runtime)
    digests = [digest(trained(runtime, Peft(kind))[0].tensors()) for _ in range(2)]
    assert digests[0] == digests[1]
    assert torch.equal(base_prediction(runtime), base)
    assert {type(layer.base_layer) for layer in runtime.backbone.layers.values()} == {torch.nn.Linear}


def base_prediction(runtime: TrackRuntime) -> torch.Tensor:
    backbone = runtime.backbone
    backbone.use_adapter(None)
    backbone.deploy({})
    hidden, pooled = backbone.encode_prompts(["a photo of boot"])
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.predict(noisy, torch.tensor([10]), hidden, pooled, torch.zeros(1, 6))


def test_a_trained_adapter_is_trained_on_from_its_values_and_hooks_see_the_live_one(runtime):
    class Twice(Peft):
        calls = 0

        def begin_task(self, ctx, state):
            def count(*_):
                self.calls += 1

            layer = next(iter(ctx.modules))
            self.handle = ctx.modules[layer].register_forward_hook(count)
            return replace(first.adapter, change=None)

        def loss(self, ctx, batch):
            if ctx.step == 0:
                self.began = ctx.adapter.detach()
            [value, *_] = ctx.adapter.parameters()
            assert value.requires_grad
            return value.square().sum()

        def end_task(self, ctx, state, adapter):
            self.handle.remove()
            return super().end_task(ctx, state, adapter)

    first = Peft("LOKR")
    trained(runtime, first)
    second = Twice("LOKR")
    trained(runtime, second)
    assert second.calls >= runtime.suite.training.steps
    for started, ended in zip(second.began.parameters(), first.adapter.parameters(), strict=True):
        assert torch.equal(started, ended)
    assert not torch.equal(second.adapter.parameters()[0], first.adapter.parameters()[0])


@pytest.mark.long
@pytest.mark.parametrize("name", ["merge_dora", "merge_oft"])
def test_in_a_process_of_its_own_a_method_gives_the_same_bits(name, runtime, tmp_path):
    def states(host: Any, folder: str) -> Iterator[str]:
        own = TrackRuntime(runtime.suite, "styles", Store(tmp_path / folder), models=runtime.models)
        sequence = TaskSequence(own, host, "forward", 0)
        assert sequence.shared_training_key is None
        for position in range(2):
            yield digest(sequence.state(position).tensors())

    here = [*states(get_method(name), "here")]
    assert [*states(MethodProcess(describe(name, {}, []), {}), "there")] == here


def test_a_run_says_how_many_values_its_largest_training_had(runtime):
    class Shrinks(Method):
        def begin_task(self, ctx, state):
            return ctx.fresh_adapter(dict.fromkeys(some(ctx.shapes), 3 - ctx.position)) if ctx.position else None

        def end_task(self, ctx, state, adapter):
            return super().end_task(ctx, state, adapter) if adapter else state

    shapes = [runtime.models.shapes[name] for name in some(runtime.models.shapes)]
    run = TaskSequence(runtime, Shrinks(), "forward", 0).run()
    assert run.trainable_parameters == sum(2 * (outputs + inputs) for outputs, inputs in shapes)
    assert run.regime == "model"


# --- masks ---


def test_a_mask_holds_entries_of_an_adapter_with_two_hooks(runtime):
    """The example of docs/methods.md."""

    class Masked(Method):
        def prepare(self, ctx, adapter):
            B = {name: torch.ones_like(value) for name, value in adapter.B.items()}
            self.start, self.mask = (
                B,
                {name: (torch.arange(len(b)) % 2 * torch.ones(b.T.shape)).T for name, b in B.items()},
            )
            self.moved = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in B.items()}
            return replace(adapter, B=B)

        def on_gradients(self, ctx):
            for layer, B in ctx.adapter.B.items():
                B.grad.mul_(self.mask[layer])

        def after_step(self, ctx):
            with torch.no_grad():
                for layer, B in ctx.adapter.B.items():
                    B.copy_(torch.where(self.mask[layer] > 0, B, self.start[layer]))
                    self.moved[layer] |= B != 1

        def end_task(self, ctx, state, adapter):
            self.adapter = adapter
            return super().end_task(ctx, state, adapter)

    method = Masked()
    trained(runtime, method)
    assert all(torch.equal(B[::2], torch.ones_like(B[::2])) for B in method.adapter.B.values())
    # Moved at some step: on some processors one of the entries comes back to exactly 1 with the second of two steps.
    assert all(bool(moved[1::2].all()) for moved in method.moved.values())


def test_the_order_of_an_adapter_s_layers_changes_no_bit(runtime):
    """A file has them by name, and the norm that clips gradients is a sum, whose last bits depend on their order."""
    fresh = TaskSequence(runtime, get_method("merge_init"), "forward", 0)._start().adapter
    assert fresh is not None
    turned = replace(fresh, A=dict(reversed(fresh.A.items())), B=dict(reversed(fresh.B.items())))
    live = runtime.backbone.use_adapter(turned)
    assert list(live.A) == list(live.B) == list(runtime.backbone.layers)
    assert all(torch.equal(live.A[layer], A) for layer, A in fresh.A.items())
