"""What a run is expected to cost, and how much memory there is for it."""

from __future__ import annotations

import pytest

from clbench.errors import ClbenchError
from clbench.runner.estimate import count
from clbench.suite import load_suite

sdxl = load_suite("sdxl-v1")
SDXL_UNET = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def test_at_full_size_the_adapter_and_the_cost_are_the_published_ones():
    price = count(SDXL_UNET, sdxl.training, 128)  # compares the 560 layers and 92,897,280 parameters itself
    assert price.adapter == 64 * 1_451_520
    assert price.adapted == pytest.approx(955e6, rel=1e-3)
    lora = 2 * 4096 * 0.04e12 / 4096  # the adapter's own products, about 2 %
    assert price.pass_flops == pytest.approx(6.76e12 + lora, rel=0.02)


def test_another_architecture_is_refused():
    with pytest.raises(ClbenchError, match="not the definition's 560"):
        count(SDXL_UNET | {"transformer_layers_per_block": (1, 2, 9)}, sdxl.training, 128)
