"""What a dry run says of common GPUs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from clbench.data.published import published_configuration
from clbench.protocol.device import DeviceConfig
from clbench.runner.cards import REACHED, Card, forecast
from clbench.runner.config import SweepSpec
from clbench.runner.estimate import GPU_EFFICIENCY
from clbench.runner.footprint import count
from clbench.suite import load_suite


@pytest.mark.long
def test_a_card_takes_its_time_by_its_rate_as_long_as_the_work_fits_into_it():
    suite, folder = load_suite("sdxl-v1"), published_configuration("stabilityai/stable-diffusion-xl-base-1.0")
    assert folder
    footprint = count(json.loads((folder / "unet" / "config.json").read_text()), suite.training, 128, "bf16")
    spec: Any = SimpleNamespace(track="styles", runs=suite.runs("styles"))
    config = DeviceConfig(device="cpu", precision="bf16", gradient_checkpointing=True)
    sweep = SweepSpec.model_construct(suite=suite, specs=(spec,), config=config, keep=frozenset())
    cards = (Card("tiny", 4e9, 1e15), Card("slow", 80e9, 1e14), Card("fast", 80e9, 1e15))
    tiny, slow, fast = (own.expected for own in forecast(footprint, sweep, 10.0, 4.0, cards))
    assert tiny is None
    assert slow
    assert fast
    assert slow.seconds == pytest.approx(10 * fast.seconds)
    trains, draws = GPU_EFFICIENCY
    assert fast.seconds == pytest.approx((4 / trains + 6 / draws) * footprint.pass_flops / (REACHED * 1e15))
    assert fast.device_bytes < 80e9
