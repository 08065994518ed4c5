"""Store keys: what changes an artifact changes its key."""

import torch

from clbench.protocol.device import DeviceConfig
from clbench.protocol.keys import track_recipe


def test_what_changes_the_last_bits_is_in_the_keys_where_those_are_promised(mock_suite):
    def recipe(device: str, low_memory: bool = False, deterministic: bool = False) -> dict:
        config = DeviceConfig(device=device, deterministic=deterministic)
        return track_recipe(mock_suite, "styles", {}, config.with_low_memory() if low_memory else config)

    assert recipe("cpu") != recipe("cpu", low_memory=True)
    assert recipe("cpu")["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert "instructions" not in recipe("cuda")
    assert recipe("cpu")["threads"] == torch.get_num_threads()
    assert "threads" not in recipe("cuda"), "a GPU's results do not depend on the host's cores"
    assert recipe("cuda") == recipe("cuda", low_memory=True), "within its noise"
    assert recipe("cuda", deterministic=True) != recipe("cuda", deterministic=True, low_memory=True)
