"""Checks of what a method's hooks return, made at once, so that an error message names the hook and the task.

Each function raises MethodFailed with one sentence that begins with `where`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clbench.errors import MethodFailed
from clbench.lora import Adapter
from clbench.method import Example
from clbench.state import State


@dataclass(frozen=True)
class AdapterSpec:
    """What a registered adapter of the suite looks like."""

    shapes: Mapping[str, tuple[int, int]]
    """Adapted layer -> (out, in)."""
    rank: int
    scale: float
    """alpha / rank."""


def check_no_hooks(unet: nn.Module, where: str) -> None:
    """Refuse forward and backward hooks left on modules: they would act on whatever the model does next."""
    for name, module in unet.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise MethodFailed(
                f"{where} left a hook on {name or 'the U-Net'}; let end_task() remove it (handle.remove()), and "
                f"shapes_training() return True"
            )


def check_delta(spec: AdapterSpec, delta: Any, where: str) -> None:
    if not isinstance(delta, Mapping):
        raise MethodFailed(f"{where} returned {type(delta).__name__}, expected a mapping of layer to tensor")
    for layer, value in delta.items():
        _check_tensor(value, spec.shapes.get(layer), f"{where}: layer {layer!r}")


def check_adapter(spec: AdapterSpec, adapter: Any, where: str) -> None:
    if not isinstance(adapter, Adapter):
        raise MethodFailed(f"{where} returned {type(adapter).__name__}, expected an Adapter")
    if adapter.scale != spec.scale:
        raise MethodFailed(f"{where}: the adapter's scale is {adapter.scale}, expected {spec.scale}")
    for factor, shapes in (
        ("A", {layer: (spec.rank, inputs) for layer, (_, inputs) in spec.shapes.items()}),
        ("B", {layer: (outputs, spec.rank) for layer, (outputs, _) in spec.shapes.items()}),
    ):
        tensors = getattr(adapter, factor)
        if not isinstance(tensors, Mapping):
            raise MethodFailed(f"{where}: the adapter's {factor} is {type(tensors).__name__}, expected a mapping")
        if missing := sorted(set(shapes) - set(tensors)):
            raise MethodFailed(f"{where}: the adapter's {factor} lacks {len(missing)} layers, e.g. {missing[0]!r}")
        for layer, value in tensors.items():
            _check_tensor(value, shapes.get(layer), f"{where}: {factor} of layer {layer!r}")


def check_state(spec: AdapterSpec, state: Any, where: str) -> None:
    if type(state) is not State:  # a subclass is read back as a State, without what it adds
        raise MethodFailed(f"{where} returned {type(state).__name__}, expected a State")
    check_delta(spec, state.merged, where)
    if state.adapter is not None and not isinstance(state.adapter, Adapter):
        raise MethodFailed(
            f"{where}: the state's adapter is {type(state.adapter).__name__}, expected an Adapter or None"
        )
    factors = [state.adapter.A, state.adapter.B] if state.adapter else []
    if not all(isinstance(part, Mapping) for part in (*factors, state.extra)):
        raise MethodFailed(f"{where}: the state holds something else than mappings of names to tensors")
    if odd := [name for name in state.extra if not isinstance(name, str)]:
        raise MethodFailed(f"{where}: the state's extra has the name {odd[0]!r}, expected a text")
    if state.adapter is not None and not state.adapter.A:
        raise MethodFailed(f"{where}: the state's adapter has no layers, expected None or an adapter that has some")
    for name, value in state.tensors().items():
        if not isinstance(value, Tensor) or (value.is_floating_point() and not bool(torch.isfinite(value).all())):
            raise MethodFailed(f"{where}: {name!r} of the state is not a tensor of finite values")
        if value.dtype != torch.float32 and (value.dtype in _TOO_WIDE or not name.startswith("extra/")):
            kind = str(value.dtype).removeprefix("torch.")
            raise MethodFailed(f"{where}: {name!r} of the state is {kind}, and a state's values are float32")


_TOO_WIDE = (torch.float64, torch.complex32, torch.complex64, torch.complex128)
"""Values that `extra` does not take either, which may hold whole numbers and bytes."""


def check_examples(examples: Any, size: int, where: str) -> None:
    if not isinstance(examples, list) or not examples or not all(isinstance(one, Example) for one in examples):
        raise MethodFailed(f"{where} returned {type(examples).__name__}, expected a list of one or more Examples")
    for number, example in enumerate(examples, start=1):
        _check_tensor(example.pixels, (3, size, size), f"{where}: the pixels of example {number}")


def _check_tensor(value: Any, shape: tuple[int, ...] | None, where: str) -> None:
    if shape is None:
        raise MethodFailed(f"{where} is not an adapted layer of this backbone")
    if not isinstance(value, Tensor):
        raise MethodFailed(f"{where} is {type(value).__name__}, expected a tensor")
    if tuple(value.shape) != shape:
        raise MethodFailed(f"{where} has shape {tuple(value.shape)}, expected {shape}")
    if not bool(torch.isfinite(value).all()):
        raise MethodFailed(f"{where} holds NaN or infinity")
