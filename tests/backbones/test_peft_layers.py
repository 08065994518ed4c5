"""PEFT's layers around linear layers: what they change is what PEFT merges into a model."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, OFTConfig, get_peft_model
from torch import nn

from clbench.backbones import peft_layers
from clbench.lora import PeftAdapter

WIDTHS = {"up": (16, 8), "down": (8, 16)}
"""Layer -> (out, in)."""
CONFIGS: dict[str, tuple[dict[str, Any], Any]] = {
    "DORA": ({"r": 3, "lora_alpha": 6}, LoraConfig(r=3, lora_alpha=6, use_dora=True, target_modules=[*WIDTHS])),
    "OFT": ({"oft_block_size": 4}, OFTConfig(oft_block_size=4, target_modules=[*WIDTHS])),
}


def model() -> nn.ModuleDict:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.ModuleDict({name: nn.Linear(inputs, outputs) for name, (outputs, inputs) in WIDTHS.items()})


def weights() -> dict[str, torch.Tensor]:
    return {name: model().get_parameter(f"{name}.weight").detach() for name in WIDTHS}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_change_is_pefts_merged_model_minus_the_base_model(kind):
    settings, config = CONFIGS[kind]
    tuned: Any = get_peft_model(model(), config)
    draws = torch.Generator().manual_seed(1)
    values: dict[str, dict[str, torch.Tensor]] = {name: {} for name in WIDTHS}
    for name, parameter in tuned.base_model.model.named_parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=draws) / 10
            layer, own = name.replace(".default", "").split(".", 1)
            values[layer][own] = parameter.detach().clone()
    change = peft_layers.change(PeftAdapter(kind, settings, tuple(WIDTHS), 0, values), weights())
    merged: Any = tuned.merge_and_unload()
    for name, weight in weights().items():
        assert change[name].abs().max() > 1e-2
        torch.testing.assert_close(change[name], merged[name].weight - weight, atol=1e-6, rtol=0)


def test_fresh_values_depend_on_the_seed_alone_and_leave_the_global_generator_where_it_was():
    def fresh(seed: int) -> list[torch.Tensor]:
        layers = peft_layers.build(PeftAdapter("DORA", {"r": 3}, tuple(WIDTHS), seed), weights())
        return [value.detach() for layer in layers.values() for value in peft_layers.parameters(layer).values()]

    before = torch.get_rng_state()
    first, again, other = fresh(0), fresh(0), fresh(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def test_shapes_are_known_without_weights():
    found = peft_layers.parameter_shapes(PeftAdapter("OFT", {"oft_block_size": 4}, ("up",), 0), WIDTHS)
    assert {layer: {name: value.shape for name, value in own.items()} for layer, own in found.items()} == {
        "up": {"oft_R.weight": (2, 6)}
    }
