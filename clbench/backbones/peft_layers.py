"""PEFT's adapters other than LoRA: built around linear layers, and measured as the change of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig, VeraConfig, get_peft_model
from torch import Tensor, nn

from clbench.errors import ClbenchError, did_you_mean
from clbench.lora import Delta, PeftAdapter


@dataclass(frozen=True)
class Kind:
    """One of PEFT's kinds of adapters."""

    config: type[PeftConfig]
    settings: tuple[str, ...]
    """What a method may set; settings that choose modules, train biases or drop values are not among them."""
    fixed: Mapping[str, Any]
    """What makes it this kind."""


KINDS = {
    "DORA": Kind(LoraConfig, ("r", "lora_alpha"), {"use_dora": True}),
    "LOHA": Kind(LoHaConfig, ("r", "alpha"), {}),
    "LOKR": Kind(LoKrConfig, ("r", "alpha", "decompose_both", "decompose_factor"), {}),
    "OFT": Kind(
        OFTConfig,
        ("r", "oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann", "num_cayley_neumann_terms"),
        {},
    ),
    "VERA": Kind(VeraConfig, ("r", "d_initial", "projection_prng_key"), {}),
}


def build(adapter: PeftAdapter, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """PEFT's layers with an adapter's values, or with fresh ones, around linear layers of these weights without bias.

    Args:
        weights: layer -> [out, in], of the device on which they are built; `meta` gives names and shapes alone.

    Raises:
        ClbenchError: PEFT builds no such adapter.
    """
    kind = KINDS.get(adapter.kind)
    if kind is None:
        raise ClbenchError(f"there is no adapter kind {adapter.kind!r}{did_you_mean(adapter.kind, list(KINDS))}")
    for name in adapter.settings:
        if name not in kind.settings:
            raise ClbenchError(f"{adapter.kind} takes no setting {name!r}, only {', '.join(kind.settings)}")
    linears = nn.ModuleList()
    for layer in adapter.layers:
        outputs, inputs = weights[layer].shape
        linears.append(nn.Linear(inputs, outputs, bias=False, device="meta"))
        linears[-1].weight = nn.Parameter(weights[layer], requires_grad=False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(adapter.seed)
            config: Any = kind.config  # each has fields of its own
            get_peft_model(linears, config(**adapter.settings, **kind.fixed, target_modules=r"\d+"))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ClbenchError(f"PEFT builds no {adapter.kind} with {dict(adapter.settings)}: {reason}") from error
    layers = dict(zip(adapter.layers, linears.eval(), strict=True))  # PEFT put its layers in their places
    with torch.no_grad():
        for layer, values in adapter.values.items():
            for name, parameter in parameters(layers[layer]).items():
                parameter.copy_(values[name])
    return layers


def parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters of one of PEFT's layers, under the names that PEFT's files give them."""
    named = layer.named_parameters()
    return {name.replace(".default", ""): value for name, value in named if value.requires_grad}


def parameter_shapes(adapter: PeftAdapter, shapes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, Tensor]]:
    """Layer -> parameter -> a tensor of its shape on the meta device, found without the model.

    Raises:
        ClbenchError: PEFT builds no such adapter.
    """
    weights = {layer: torch.empty(shape, device="meta") for layer, shape in shapes.items()}
    return {name: {**parameters(layer)} for name, layer in build(replace(adapter, values={}), weights).items()}


def change(adapter: PeftAdapter, weights: Mapping[str, Tensor]) -> Delta:
    """What merging an adapter changes: PEFT's merged weight minus the weight, subtracted in fp64.

    Args:
        weights: layer -> the frozen weight, fp32 [out, in], on the CPU.
    """
    changes = Delta()
    for name, layer in build(adapter, weights).items():
        layer.double().merge(safe_merge=True)
        changes[name] = (layer.get_base_weight() - weights[name].double()).float()
    return changes
