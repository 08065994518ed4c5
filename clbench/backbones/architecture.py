"""The layers that an adapter changes, and their shapes, from a model's configuration without loading its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from clbench.errors import ClbenchError
from clbench.suite import Training

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Name of a precision -> its type."""


def check_architecture(shapes: Mapping[str, tuple[int, int]], training: Training) -> None:
    """Check that a U-Net's adapted layers, layer -> (out, in), agree with the definition.

    Raises:
        ClbenchError: their number or the number of adapter parameters differs.
    """
    parameters = adapter_parameters(shapes, training.rank)
    for what, found, expected in (
        ("adapted layers", len(shapes), training.adapted_layers),
        ("adapter parameters", parameters, training.adapter_parameters),
    ):
        if expected is not None and found != expected:
            raise ClbenchError(f"the backbone has {found} {what}, not the definition's {expected}: it is another model")


def token_widths(pipeline: Path) -> tuple[int, ...]:
    """Width of a token's vector in each text encoder of a diffusers folder."""
    configs = (pipeline / encoder / "config.json" for encoder in ("text_encoder", "text_encoder_2"))
    return tuple(json.loads(config.read_text())["hidden_size"] for config in configs)


def adapter_parameters(shapes: Mapping[str, tuple[int, int]], rank: int) -> int:
    """Number of parameters of one adapter."""
    return sum(rank * (out + inputs) for out, inputs in shapes.values())


def add_adapter(unet: Any, training: Training) -> dict[str, Any]:
    """Inject an adapter with uninitialised factors into a U-Net; returns adapted layer -> PEFT's layer."""
    unet.add_adapter(
        LoraConfig(
            r=training.rank,
            lora_alpha=training.alpha,  # type: ignore[arg-type]  # PEFT scales by any number
            target_modules=list(training.targets),
            init_lora_weights=False,
        )
    )
    return {name: module for name, module in unet.named_modules() if isinstance(module, LoraLayer)}


def lora_factors(layers: Mapping[str, Any]) -> dict[str, Tensor]:
    """The U-Net's name of each factor of the adapter in its layers -> the factor."""
    return {
        f"{name}.{side}.default.weight": getattr(layer, side)["default"].weight
        for name, layer in layers.items()
        for side in ("lora_A", "lora_B")
    }


def adapted_unet(config: Mapping[str, Any], training: Training) -> tuple[Any, int, dict[str, tuple[int, int]]]:
    """A U-Net with an adapter on the meta device, its own number of parameters, and adapted layer -> (out, in)."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(dict(config))
        unet.requires_grad_(False)
        parameters = sum(value.numel() for value in unet.parameters())
        layers = add_adapter(unet, training)
        unet.to("meta")
    weights: dict[str, Any] = {name: layer.base_layer.weight for name, layer in layers.items()}
    shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in weights.items()}
    check_architecture(shapes, training)
    return unet, parameters, shapes


def adapted_shapes(backbone: Path, training: Training) -> dict[str, tuple[int, int]]:
    """Adapted layer -> (out, in) in the model's order, read from a pipeline folder's U-Net configuration.

    Raises:
        ClbenchError: the architecture is not the one that the definition names.
    """
    return adapted_unet(json.loads((backbone / "unet" / "config.json").read_text()), training)[2]


def set_precision(unet: Any, dtype: torch.dtype) -> None:
    """Convert all of a U-Net but an adapter's factors, which stay in fp32."""
    for name, value in (*unet.named_parameters(), *unet.named_buffers()):
        if "lora_" not in name:
            value.data = value.data.to(dtype)
