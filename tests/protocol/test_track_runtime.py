"""What a track's runs share: models, keys and settings."""

import torch

from clbench.data.assets import Assets
from clbench.protocol.track_runtime import Bench
from clbench.storage.store import Store

NOTHING = Assets(folders={}, sha256={})


def test_what_changes_the_last_bits_is_in_the_keys_where_those_are_promised(mock_suite, tmp_path):
    def recipe(device: str, low_memory: bool = False, deterministic: bool = False) -> dict:
        where = (mock_suite, "styles", Store(tmp_path), device, "fp32", NOTHING)
        return Bench(*where, low_memory=low_memory, deterministic=deterministic).recipe

    assert recipe("cpu") != recipe("cpu", low_memory=True)
    assert recipe("cpu")["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert "instructions" not in recipe("cuda")
    assert recipe("cpu")["threads"] == torch.get_num_threads()
    assert "threads" not in recipe("cuda"), "a GPU's results do not depend on the host's cores"
    assert recipe("cuda") == recipe("cuda", low_memory=True), "within its noise"
    assert recipe("cuda", deterministic=True) != recipe("cuda", deterministic=True, low_memory=True)
