"""What a run's models and photos are known by."""

from __future__ import annotations

from tiny_sdxl import random_picture

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths
from clbench.protocol.track_runtime import TrackRuntime
from clbench.storage.store import Store
from clbench.suite import Suite, Weights, load_suite


def test_weights_without_pins_are_known_by_what_was_found(tiny, world):
    """So that work done with one model is never taken for another's."""
    suite: Suite = load_suite(str(tiny))
    assert isinstance(suite.backbone, Weights)
    keys = []
    for number in range(2):
        photo = world / "dreambooth" / "dataset" / "can" / "00.jpg"
        random_picture(number).save(photo)
        assets = resolve_assets(suite, str(tiny), "objects", AssetPaths(world, tiny))
        keys.append(TrackRuntime(suite, "objects", Store(world / "store"), assets=assets).keys.base)
    assert keys[0] != keys[1]
