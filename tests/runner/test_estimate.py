"""What a run is expected to cost, and how much memory there is for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clbench.backbones.architecture import adapted_unet
from clbench.data.published import published_configuration
from clbench.errors import ClbenchError
from clbench.protocol.device import DeviceConfig
from clbench.results.environment import describe
from clbench.runner.estimate import Machine, check_main_memory, device_memory, estimate, fit_memory
from clbench.runner.footprint import LiveBytes, ModelFootprint, count, model_footprint, saved_bytes
from clbench.suite import load_suite

sdxl = load_suite("sdxl-v1")
SDXL = published_configuration("stabilityai/stable-diffusion-xl-base-1.0")
assert SDXL is not None
SDXL_UNET = json.loads((SDXL / "unet" / "config.json").read_text())


@pytest.fixture(scope="module")
def footprint() -> ModelFootprint:
    """That of SDXL; counting compares the 560 layers and 92,897,280 parameters itself."""
    return count(SDXL_UNET, sdxl.training, 128, "bf16")


@pytest.mark.long
def test_at_full_size_the_adapter_and_the_cost_are_the_published_ones(footprint):
    assert footprint.adapter == 64 * 1_451_520
    assert footprint.adapted == pytest.approx(955e6, rel=1e-3)
    lora = 2 * 4096 * 0.04e12 / 4096  # the adapter's own products, about 2 %
    assert footprint.pass_flops == pytest.approx(6.76e12 + lora, rel=0.02)


def test_another_architecture_is_refused():
    with pytest.raises(ClbenchError, match="not the definition's 560"):
        count(SDXL_UNET | {"transformer_layers_per_block": (1, 2, 9)}, sdxl.training, 128)


CONFIG = {
    "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "norm_num_groups": 8,
    "use_linear_projection": True,
    "cross_attention_dim": 48,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
SIDE = 48


def real_unet():
    training = sdxl.training.model_copy(update={"rank": 4, "adapted_layers": None, "adapter_parameters": None})
    unet, *_ = adapted_unet(CONFIG, training)
    unet.to_empty(device="cpu")
    for value in unet.parameters():
        torch.nn.init.normal_(value, std=0.02)
    inputs = (torch.randn(1, 4, SIDE, SIDE), torch.zeros(1), torch.randn(1, 77, 48))
    conditions = {"text_embeds": torch.randn(1, 32), "time_ids": torch.zeros(1, 6)}
    return training, unet, lambda: unet(*inputs, added_cond_kwargs=conditions).sample


def allocated(work: Callable[[], object]) -> tuple[int, int]:
    """By PyTorch's profiler: bytes at the peak of some work, and those that are left while its result lives."""
    with torch.profiler.profile(profile_memory=True) as profile:
        result = work()
    events: Any = profile.profiler
    now = peak = 0
    for event in sorted(events.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert result is not None
    return peak, now


def test_memory_is_what_the_allocator_measures():
    """A fused attention kernel keeps no attention matrix, which would be several times as large as all else."""
    training, unet, forward = real_unet()
    counted = count(CONFIG, training, SIDE)
    forward()  # what is allocated once
    _, left = allocated(forward)
    assert counted.saved == pytest.approx(left, rel=0.05)
    unet.disable_adapters()
    with torch.no_grad():
        peak, _ = allocated(forward)
    assert counted.sampled == pytest.approx(peak, rel=0.25)  # kernels have working memory of their own
    with torch.no_grad(), LiveBytes(unet) as live:
        forward()
    assert counted.sampled == live.peak
    unet.enable_adapters()
    with saved_bytes(unet, []) as (total, _):
        forward()
    assert counted.saved == total[0]


def test_lower_precision_takes_about_half_the_memory():
    training, *_ = real_unet()
    full, half = (count(CONFIG, training, SIDE, precision) for precision in ("fp32", "bf16"))
    assert half.pass_flops == full.pass_flops
    assert 0.4 < half.saved / full.saved < 0.75
    assert 0.4 < half.sampled / full.sampled < 0.75


def test_a_footprint_is_counted_once_and_again_where_its_file_is_damaged_or_cannot_be_written(
    mock_suite, mock_folder, tmp_path, monkeypatch
):
    [pipeline] = Path(mock_folder).parent.rglob("unet/config.json")

    def footprint():
        return model_footprint(mock_suite, {"backbone": pipeline.parent.parent}, "fp32")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counted = footprint()
    [file] = tmp_path.rglob("*.json")
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"pass_flops": 1.0}))
    assert footprint() == replace(counted, pass_flops=1.0), "it is read"
    for damaged in ("{", json.dumps(kept | {"saved": "many"})):
        file.write_text(damaged)
        assert footprint() == counted
        assert json.loads(file.read_text()) == kept
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert footprint() == counted


@pytest.mark.long
def test_at_full_size_a_gpu_of_16_gb_trains_and_draws_fewer_images_at_a_time(footprint):
    config = DeviceConfig(device="cuda", precision="bf16")
    roomy = fit_memory(footprint, sdxl, config, "auto", 80 * 10**9, sharing=1)
    small = fit_memory(footprint, sdxl, config, "auto", 16 * 10**9, sharing=1)
    assert roomy == config.model_copy(update={"stays_on_device": True})
    assert device_memory(footprint, sdxl, roomy) > device_memory(footprint, sdxl, config)
    assert fit_memory(footprint, sdxl, config, "auto", device_memory(footprint, sdxl, config), sharing=1) == config
    assert not fit_memory(footprint, sdxl, config, "low", 80 * 10**9, sharing=1).stays_on_device
    assert not small.stays_on_device
    assert not small.gradient_checkpointing
    assert small.sample_batch_size == 20
    assert device_memory(footprint, sdxl, small) <= 16 * 10**9
    repeats = config.model_copy(update={"deterministic": True})  # another batch size has other last bits
    assert fit_memory(footprint, sdxl, repeats, "auto", 16 * 10**9, sharing=1).sample_batch_size in (None, 4)


@pytest.mark.long
def test_main_memory_that_cannot_hold_sdxl_twice_is_refused_in_time_and_on_a_cpu_it_is_the_device_s_own(footprint):
    config = DeviceConfig(device="cuda", precision="bf16")
    check_main_memory(footprint, config, 64 * 10**9, sharing=1)
    with pytest.raises(ClbenchError, match=r"16\.0 GB of main memory are free, but 1 worker on cuda need about"):
        check_main_memory(footprint, config, 16 * 10**9, sharing=1)
    with pytest.raises(ClbenchError, match="give fewer --workers"):
        check_main_memory(footprint, config, 64 * 10**9, sharing=4)
    check_main_memory(footprint, DeviceConfig(), 0, sharing=1)


@pytest.mark.long
def test_on_a_gpu_a_pass_of_training_is_taken_to_last_four_times_as_long_as_one_of_sampling(footprint):
    machine = Machine(80 * 10**9, 1e15, 10**12, describe("cpu"))

    def seconds(device: str, training: float, drawing: float) -> float:
        config = DeviceConfig(device=device, precision="bf16")
        sweep: Any = SimpleNamespace(suite=sdxl, config=config, keep=())
        sweep.specs = (SimpleNamespace(track="styles", runs=sdxl.runs("styles")),)
        work = {"work": training + drawing, "training": training}
        return estimate(footprint, sweep, machine, **work, workers=1, sharing=1).seconds

    assert seconds("cpu", 1, 0) == seconds("cpu", 0, 1)
    assert seconds("cuda", 1, 0) == pytest.approx(4 * seconds("cuda", 0, 1))
    assert seconds("cuda", 0, 1) == pytest.approx(footprint.pass_flops / 0.4e15)
