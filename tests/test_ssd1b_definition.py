"""`ssd1b-v1` is sdxl-v1 on a smaller model: what differs is what its page says, and the model is the named one."""

from __future__ import annotations

import json

import pytest

from clbench.data.locate import list_assets
from clbench.data.published import LICENCES, SIZES, published_configuration
from clbench.protocol.device import DeviceConfig
from clbench.runner.estimate import device_memory
from clbench.runner.footprint import count
from clbench.suite import load_suite

SSD1B_V1 = "781a0b02dba14a7f9b78605c7fc87332f9fad0aa06dd536bd929ef012c9e11c3"
"""If this differs, ssd1b-v1 was edited. Once it has results, make a new version instead."""

ssd1b, sdxl = load_suite("ssd1b-v1"), load_suite("sdxl-v1")


def test_ssd1b_v1_is_the_definition_that_was_locked():
    assert ssd1b.sha256 == SSD1B_V1


def test_it_differs_from_sdxl_v1_in_model_resolution_sampling_and_seeds_alone():
    own = {"name": sdxl.name, "resolution": sdxl.resolution, "backbone": sdxl.backbone, "seeds": sdxl.seeds}
    fewer = {"steps": 30, "images_per_prompt": 2}
    counts = {name: getattr(ssd1b.training, name) for name in ("adapted_layers", "adapter_parameters")}
    assert sdxl.training.model_copy(update=counts) == ssd1b.training
    assert sdxl.sampling.model_copy(update=fewer) == ssd1b.sampling
    same = own | {"training": sdxl.training, "sampling": sdxl.sampling}
    tracks = {name: track.model_copy(update={"seeds": None}) for name, track in ssd1b.tracks.items()}
    assert ssd1b.model_copy(update=same | {"tracks": tracks}) == sdxl
    assert set(ssd1b.backbone.files or ()) == set(sdxl.backbone.files or ())
    assert len(ssd1b.runs("styles")) == len({order for order, _ in ssd1b.runs("styles")}) == 4


@pytest.mark.long
def test_the_adapter_and_the_model_have_the_sizes_that_are_named_and_fit_into_12_gb():
    folder = published_configuration("segmind/SSD-1B")
    assert folder
    config = json.loads((folder / "unet" / "config.json").read_text())
    price = count(config, ssd1b.training, ssd1b.resolution // 8, "bf16")  # compares layers and parameters itself
    assert price.parameters == 1_331_334_404
    assert price.adapter == 43_319_296
    assert device_memory(price, ssd1b, DeviceConfig(device="cuda", precision="bf16")) < 11e9


def test_what_it_needs_has_a_known_size_and_a_licence():
    sizes = {asset.name: SIZES.get(asset.source) for asset in list_assets(ssd1b, "ssd1b-v1")}
    assert [name for name, size in sizes.items() if size is None] == ["dreambooth", "unlearncanvas"]
    assert LICENCES[ssd1b.backbone.source] == "apache-2.0"
