"""The state that a method passes from one task to the next: its content, size, regime and file.

state = State().with_merged(adapter.delta())
state.nbytes                       # the size of all that the method passes on
regime([state_1, state_2, ...])    # "model", "adapter", "constant" or "growing", from the measured sizes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from clbench.lora import Adapter, Delta, load_groups, save_tensors
from clbench.tokens import Tokens, named_tensors, tokens_among


@dataclass(frozen=True)
class State:
    """Everything that a method passes from one task to the next; the public base weights do not count."""

    merged: Delta = field(default_factory=Delta)
    """Weight changes merged into the model."""
    adapter: Adapter | None = None
    """One adapter, passed on unmerged."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Anything else: statistics, earlier factors, kept images."""

    def with_merged(self, merged: Mapping[str, Tensor]) -> State:
        return replace(self, merged=Delta(merged))

    def with_adapter(self, adapter: Adapter | None) -> State:
        return replace(self, adapter=adapter)

    def with_extra(self, **tensors: Tensor) -> State:
        return replace(self, extra={**self.extra, **tensors})

    def with_tokens(self, tokens: Tokens) -> State:
        """The state with learned tokens in `extra`, which replace those of the same words."""
        return self.with_extra(**named_tensors(tokens))

    @property
    def tokens(self) -> Tokens:
        """The learned tokens in `extra`."""
        return tokens_among(self.extra)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under the unique names that they have in the file."""
        named = {f"merged/{name}": value for name, value in self.merged.items()}
        named |= self.adapter.tensors() if self.adapter else {}
        return named | {f"extra/{name}": value for name, value in self.extra.items()}

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return _nbytes(self.tensors())

    def save(self, path: Path) -> None:
        """Write a safetensors file; an empty state is a file without tensors."""
        # None instead of {} without an adapter: safetensors cannot read a file whose metadata are an empty dictionary.
        save_tensors(self.tensors(), path, {"scale": repr(self.adapter.scale)} if self.adapter else None)

    @classmethod
    def load(cls, path: Path) -> State:
        groups, metadata = load_groups(path)
        adapter = None
        if groups["adapter.A"]:
            adapter = Adapter(groups["adapter.A"], groups["adapter.B"], float(metadata["scale"]))
        return cls(Delta(groups["merged"]), adapter, groups["extra"])


def regime(states: Sequence[StateSize], rank: int) -> Literal["model", "adapter", "constant", "growing"]:
    """The strictest regime that fits the states after each task.

    `model`: only merged deltas. `adapter`: only one adapter, of at most the registered rank. `constant`: more than
    that, but never larger than after the second task. `growing`: anything else.
    """
    if all(size.merged == size.total for size in states):
        return "model"
    if all(size.adapter == size.total and size.rank <= rank for size in states):
        return "adapter"
    settled = states[min(1, len(states) - 1) :]
    return "constant" if all(size.total <= settled[0].total for size in settled) else "growing"


@dataclass(frozen=True)
class StateSize:
    """The sizes that determine a regime."""

    total: int
    """Bytes of all tensors."""
    merged: int
    """Bytes of the merged deltas, at most one value for each weight."""
    adapter: int
    """Bytes of the adapter."""
    rank: int
    """The adapter's rank; 0 without an adapter."""

    @classmethod
    def of(cls, state: State) -> StateSize:
        adapter, rank = (_nbytes(state.adapter.tensors()), state.adapter.rank) if state.adapter else (0, 0)
        return cls(state.nbytes, _nbytes(state.merged), adapter, rank)


def _nbytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, shapes, dtypes and bytes of tensors."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha.update(json.dumps([name, list(value.shape), str(value.dtype)]).encode())
        if value.numel():
            sha.update(value.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()
