"""What a run is expected to cost, and how much memory there is for it."""

from __future__ import annotations

import json

import pytest

from clbench.data.published import published_configuration
from clbench.errors import ClbenchError
from clbench.runner.estimate import count
from clbench.suite import load_suite

sdxl = load_suite("sdxl-v1")
SDXL = published_configuration("stabilityai/stable-diffusion-xl-base-1.0")
assert SDXL is not None
SDXL_UNET = json.loads((SDXL / "unet" / "config.json").read_text())


def test_at_full_size_the_adapter_and_the_cost_are_the_published_ones():
    price = count(SDXL_UNET, sdxl.training, 128)  # compares the 560 layers and 92,897,280 parameters itself
    assert price.adapter == 64 * 1_451_520
    assert price.adapted == pytest.approx(955e6, rel=1e-3)
    lora = 2 * 4096 * 0.04e12 / 4096  # the adapter's own products, about 2 %
    assert price.pass_flops == pytest.approx(6.76e12 + lora, rel=0.02)


def test_another_architecture_is_refused():
    with pytest.raises(ClbenchError, match="not the definition's 560"):
        count(SDXL_UNET | {"transformer_layers_per_block": (1, 2, 9)}, sdxl.training, 128)
