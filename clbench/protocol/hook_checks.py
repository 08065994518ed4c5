"""Checks of what a method's hooks return, made at once, so that an error message names the hook and the task.

Each function raises MethodFailed with one sentence that begins with `where`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clbench.backbones.architecture import adapter_parameters
from clbench.backbones.peft_layers import parameter_shapes
from clbench.errors import ClbenchError, MethodFailed
from clbench.lora import Adapter, PeftAdapter
from clbench.method import Example
from clbench.state import State
from clbench.tokens import WORD


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
    if isinstance(adapter, PeftAdapter):
        _check_peft_adapter(spec, adapter, where)
    elif isinstance(adapter, Adapter):
        _check_lora(spec, adapter, where)
    else:
        raise MethodFailed(f"{where} returned {type(adapter).__name__}, expected an Adapter")


def _check_lora(spec: AdapterSpec, adapter: Adapter, where: str) -> None:
    if adapter.scale != spec.scale:
        raise MethodFailed(f"{where}: the adapter's scale is {adapter.scale}, expected {spec.scale}")
    for factor, tensors in (("A", adapter.A), ("B", adapter.B)):
        if not isinstance(tensors, Mapping):
            raise MethodFailed(f"{where}: the adapter's {factor} is {type(tensors).__name__}, expected a mapping")
    for factor, other, tensors in (("A", adapter.B, adapter.A), ("B", adapter.A, adapter.B)):
        if missing := sorted(set(other or spec.shapes) - set(tensors)):
            raise MethodFailed(f"{where}: the adapter's {factor} lacks {len(missing)} layers, e.g. {missing[0]!r}")
    for layer, A in adapter.A.items():
        rank = _check_rank(spec, layer, A, where)
        outputs, inputs = spec.shapes[layer]
        _check_tensor(A, (rank, inputs), f"{where}: A of layer {layer!r}")
        _check_tensor(adapter.B[layer], (outputs, rank), f"{where}: B of layer {layer!r}")


def _check_rank(spec: AdapterSpec, layer: str, A: Any, where: str) -> int:
    """The rank of a layer whose A may be a tensor of that rank; else the suite's, for the message of its shape."""
    _check_known(spec, layer, f"{where}: A of layer {layer!r}")
    if not isinstance(A, Tensor) or A.shape[1:] != spec.shapes[layer][1:]:
        return spec.rank
    if not 1 <= len(A) <= spec.rank:
        raise MethodFailed(f"{where}: rank {len(A)} on layer {layer!r}, allowed are 1 to the suite's {spec.rank}")
    return len(A)


def _check_peft_adapter(spec: AdapterSpec, adapter: PeftAdapter, where: str) -> None:
    if not adapter.layers:
        raise MethodFailed(f"{where}: the {adapter.kind} adapter has no layers")
    for layer in adapter.layers:
        _check_known(spec, layer, f"{where}: layer {layer!r}")
    try:
        expected = parameter_shapes(adapter, spec.shapes)
    except ClbenchError as error:
        raise MethodFailed(f"{where}: {error}") from error
    count = sum(value.numel() for values in expected.values() for value in values.values())
    most = adapter_parameters(spec.shapes, spec.rank)
    if count > most:
        raise MethodFailed(
            f"{where}: the {adapter.kind} adapter has {count:,} parameters, and the suite's, the most that is allowed, "
            f"has {most:,}"
        )
    if not adapter.values:
        return
    for layer, values in expected.items():
        for name, value in values.items():
            own = adapter.values.get(layer, {}).get(name)
            _check_tensor(own, tuple(value.shape), f"{where}: {name} of layer {layer!r}")


def _check_known(spec: AdapterSpec, layer: Any, where: str) -> None:
    if layer not in spec.shapes:
        raise MethodFailed(f"{where} is not an adapted layer of this backbone")


def check_state(spec: AdapterSpec, state: Any, where: str) -> None:
    if type(state) is not State:  # a subclass is read back as a State, without what it adds
        raise MethodFailed(f"{where} returned {type(state).__name__}, expected a State")
    check_delta(spec, state.merged, where)
    if state.adapter is not None and not isinstance(state.adapter, Adapter):
        raise MethodFailed(
            f"{where}: the state's adapter is {type(state.adapter).__name__}, expected an Adapter or None; adapters of "
            f"other kinds are merged, as in state.with_merged(state.merged + adapter.delta())"
        )
    factors = [state.adapter.A, state.adapter.B] if state.adapter else []
    if not all(isinstance(part, Mapping) for part in (*factors, state.extra)):
        raise MethodFailed(f"{where}: the state holds something else than mappings of names to tensors")
    if odd := [name for name in state.extra if not isinstance(name, str)]:
        raise MethodFailed(f"{where}: the state's extra has the name {odd[0]!r}, expected a text")
    if state.adapter is not None and not state.adapter.A:
        raise MethodFailed(f"{where}: the state's adapter has no layers, expected None or an adapter that has some")
    for name, value in state.tensors().items():
        checked = name.startswith("merged/")  # by check_delta
        if not isinstance(value, Tensor) or not (checked or _is_finite(value)):
            raise MethodFailed(f"{where}: {name!r} of the state is not a tensor of finite values")
        if value.dtype != torch.float32 and (value.dtype in _TOO_WIDE or not name.startswith("extra/")):
            kind = str(value.dtype).removeprefix("torch.")
            raise MethodFailed(f"{where}: {name!r} of the state is {kind}, and a state's values are float32")


_TOO_WIDE = (torch.float64, torch.complex32, torch.complex64, torch.complex128)
"""Values that `extra` does not take either, which may hold whole numbers and bytes."""


MAX_TOKENS = 64
"""The most learned tokens that a model may have."""


def check_tokens(tokens: Any, widths: Sequence[int] | None, where: str) -> None:
    """Check learned tokens.

    Args:
        widths: of the vectors for each text encoder; None where they are not known.
    """
    if not isinstance(tokens, Mapping):
        raise MethodFailed(f"{where} returned {type(tokens).__name__}, expected a mapping of words to vectors")
    if len(tokens) > MAX_TOKENS:
        raise MethodFailed(f"{where} returned {len(tokens)} tokens, and there may be {MAX_TOKENS}")
    for word, vectors in tokens.items():
        if not isinstance(word, str) or not WORD.fullmatch(word):
            raise MethodFailed(
                f"{where}: {str(word)[:80]!r} is no word of a token, expected one such as '<style-3>': at most 62 "
                f"letters, digits, _ and - within < and >"
            )
        expected = len(widths or (0, 0))
        if not isinstance(vectors, tuple) or len(vectors) != expected:
            raise MethodFailed(
                f"{where}: token {word!r} is not a tuple of {expected} vectors, one for each text encoder"
            )
        for number, vector in enumerate(vectors):
            what = f"{where}: vector {number + 1} of token {word!r}"
            width = widths[number] if widths else vector.numel() if isinstance(vector, Tensor) else 0
            _check_tensor(vector, (width,), what)
            if vector.dtype != torch.float32:
                raise MethodFailed(f"{what} is {str(vector.dtype).removeprefix('torch.')}, expected float32")


def check_words_are_used(words: Iterable[str], prompts: Sequence[str], where: str) -> None:
    for word in words:
        if not any(word in prompt for prompt in prompts):
            raise MethodFailed(f"{where}: {word!r} is in no training prompt; let data() or prompts() put it there")


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
    if not _is_finite(value):
        raise MethodFailed(f"{where} holds NaN or infinity")


def _is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, in one pass over it: NaN is the least and greatest of any."""
    if not value.is_floating_point() or not value.numel():
        return True
    wide = value.float() if value.element_size() == 1 else value  # there is no `aminmax` of eight bits
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(wide.detach()))
