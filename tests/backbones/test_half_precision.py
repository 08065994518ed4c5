"""A U-Net in half precision under fp32 factors: what is converted, and whose gradients arrive."""

from __future__ import annotations

import pytest
import torch
from adapters import random_adapter
from torch.utils._python_dispatch import TorchDispatchMode

from clbench.backbones.source import PipelineSource
from clbench.errors import WorkFailed
from clbench.lora import PeftAdapter
from clbench.method import Batch, Example
from clbench.protocol.trainer import TaskDataset
from clbench.runner import harness
from clbench.suite import load_suite
from clbench.utils.seeding import generator

SIDE = 64


@pytest.fixture(scope="module")
def load(models):
    """Loads the mock suite's backbone at a precision, once for all tests."""
    loaded = {}

    def backbone(precision: str, checkpointing: bool = False):
        if (precision, checkpointing) not in loaded:
            source = PipelineSource(
                models.folders["backbone"], models.suite.training, precision, gradient_checkpointing=checkpointing
            )
            loaded[precision, checkpointing] = source.load("cpu")
        return loaded[precision, checkpointing]

    return backbone


def data_of(backbone) -> TaskDataset:
    pixels = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return TaskDataset(backbone, [Example(pixels, "a photo of a boot")], SIDE)


def batch_of(data: TaskDataset) -> Batch:
    return next(data.batches(1, load_suite("sdxl-v1").training, generator(1)))


def gradients(backbone, share: float = 1.0) -> torch.Tensor:
    """Those of all factors, for `share` of the loss, divided by it."""
    data = data_of(backbone)
    backbone.deploy({})
    live = backbone.use_adapter(random_adapter(backbone))
    found = torch.autograd.grad(data.loss(batch_of(data)) * share, live.parameters())
    assert {one.dtype for one in found} == {torch.float32}
    return torch.cat([one.flatten() for one in found]) / share


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.05), ("fp16", 0.01)])
def test_gradients_of_fp32_factors_are_those_of_full_precision_but_for_rounding(load, precision, close):
    assert 0 < apart(gradients(load(precision)), gradients(load("fp32"))) < close


def test_small_gradients_in_fp16_are_not_rounded_to_zero(load):
    assert apart(gradients(load("fp16"), 2.0**-10), gradients(load("fp32"))) < 0.02


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_recomputing_activations_changes_no_gradient(load, precision):
    low = load(precision, checkpointing=True)
    assert low.unet.is_gradient_checkpointing
    torch.testing.assert_close(gradients(low), gradients(load(precision)))


class Conversions(TorchDispatchMode):
    """Counts conversions to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_no_adapted_layer_converts_anything(load):
    backbone = load("bf16")
    data = data_of(backbone)
    batch = batch_of(data)
    backbone.use_adapter(random_adapter(backbone))
    with Conversions() as seen:
        data.prediction(batch)
    assert len(backbone.shapes) > 10
    assert 0 < seen.count < 10  # factors, words, noise, times and the output
    backbone.use_adapter(None)
    names = {value.dtype for name, value in backbone.unet.named_parameters() if "lora_" not in name}
    assert names == {torch.bfloat16}
    assert {value.dtype for value in backbone.pipeline.vae.parameters()} == {torch.float32}


def test_what_is_deployed_is_the_fp32_sum_rounded_once(load):
    half, full = load("bf16"), load("fp32")
    delta = random_adapter(full).delta()
    for backbone in (half, full):
        backbone.use_adapter(None)
        backbone.deploy(delta)
    for name, layer in half.layers.items():
        assert torch.equal(layer.base_layer.weight, full.layers[name].base_layer.weight.bfloat16())


def test_another_model_predicts_beside_the_live_adapter_and_leaves_its_graph_alone(load):
    backbone = load("bf16")
    data, delta = data_of(backbone), random_adapter(backbone).delta()
    batch = batch_of(data)
    backbone.deploy({})
    live = backbone.use_adapter(random_adapter(backbone))
    loss = data.loss(batch)
    other, base = data.predict(batch, weights=delta), data.predict(batch, weights={})
    expected = torch.autograd.grad(data.loss(batch), live.parameters())
    assert all(map(torch.equal, torch.autograd.grad(loss, live.parameters()), expected))
    backbone.use_adapter(None)
    assert torch.equal(base, data.predict(batch))
    backbone.deploy(delta)
    assert torch.equal(other, data.predict(batch))
    assert not torch.equal(other, base)


def test_other_adapters_than_lora_are_trained_in_bf16_but_not_in_fp16(load):
    one = PeftAdapter("DORA", {"r": 2, "lora_alpha": 2}, tuple(load("fp32").shapes)[:3], 0)
    found = []
    for precision in ("bf16", "fp32"):
        backbone = load(precision)
        data = data_of(backbone)
        backbone.deploy({})
        live = backbone.use_adapter(one)
        own = torch.autograd.grad(data.loss(batch_of(data)), live.parameters())
        found.append(torch.cat([value.flatten() for value in own]))
        backbone.use_adapter(None)
    assert apart(*found) < 0.1
    with pytest.raises(WorkFailed, match="at fp16 no DORA adapter is trained, only LoRA; give --precision bf16"):
        load("fp16").use_adapter(one)


@pytest.mark.long
@pytest.mark.parametrize("method", ["gpm", "a_gem", "lwf", "merge_dora", "textual_inversion"])
def test_methods_with_code_in_the_training_run_in_half_precision(method, mock_folder, tmp_path):
    """Forward hooks, gradients of losses, other models' predictions, other adapters, learned words."""
    options = {"quick": True, "device": "cpu", "workers": 1, "precision": "bf16", "check": False}
    result = harness.run(method, "styles", mock_folder, output=tmp_path, **options)
    assert result.settings["precision"] == "bf16"
    for metric in result.summary:
        scores = result.runs[0].matrix(metric)
        assert scores[1, 0] != scores[0, 0]  # its first task, after and before
