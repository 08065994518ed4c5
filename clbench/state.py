"""What passes from one task to the next: its content, its size, its regime, its file.

state = State().with_merged(adapter.delta())
state.nbytes                       # what a method really hands on
regime([state_1, state_2, ...])    # "model", "adapter", "constant" or "growing": measured, never declared
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


@dataclass(frozen=True)
class State:
    """Everything a method hands from one task to the next; the public base weights are free."""

    merged: Delta = field(default_factory=Delta)
    """Weight changes merged into the model."""
    adapter: Adapter | None = None
    """One adapter that is passed on unmerged."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Anything more: statistics, earlier factors, kept images."""

    def with_merged(self, merged: Mapping[str, Tensor]) -> State:
        return replace(self, merged=Delta(merged))

    def with_adapter(self, adapter: Adapter | None) -> State:
        return replace(self, adapter=adapter)

    def with_extra(self, **tensors: Tensor) -> State:
        return replace(self, extra={**self.extra, **tensors})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under unique names, as they are written to disk."""
        named = {f"merged/{name}": value for name, value in self.merged.items()}
        named |= self.adapter.tensors() if self.adapter else {}
        return named | {f"extra/{name}": value for name, value in self.extra.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values())

    def save(self, path: Path) -> None:
        """Write a safetensors file; an empty state is a file without tensors."""
        # Without an adapter None instead of {}: safetensors cannot read a file whose metadata are an empty dictionary.
        save_tensors(self.tensors(), path, {"scale": repr(self.adapter.scale)} if self.adapter else None)

    @classmethod
    def load(cls, path: Path) -> State:
        groups, metadata = load_groups(path)
        adapter = None
        if groups["adapter.A"]:
            adapter = Adapter(groups["adapter.A"], groups["adapter.B"], float(metadata["scale"]))
        return cls(Delta(groups["merged"]), adapter, groups["extra"])


def regime(states: Sequence[StateSize], rank: int) -> Literal["model", "adapter", "constant", "growing"]:
    """The regime that the states after each task fit, from the strictest to the loosest.

    `model`: merged deltas only. `adapter`: one adapter of at most the registered rank and nothing else. `constant`:
    more than that, but no more after the last task than after the second. `growing`: the rest.
    """
    if all(size.merged == size.total for size in states):
        return "model"
    if all(size.adapter == size.total and size.rank <= rank for size in states):
        return "adapter"
    settled = states[min(1, len(states) - 1) :]
    return "constant" if all(size.total <= settled[0].total for size in settled) else "growing"


@dataclass(frozen=True)
class StateSize:
    """What a regime is read from."""

    total: int
    """Bytes of everything."""
    merged: int
    """Bytes of merged deltas, at most one value a weight."""
    adapter: int
    """Bytes of the adapter."""
    rank: int
    """The adapter's rank; 0 without one."""

    @classmethod
    def of(cls, state: State) -> StateSize:
        merged = State(merged=state.merged).nbytes
        adapter = State(adapter=state.adapter).nbytes
        return cls(state.nbytes, merged, adapter, state.adapter.rank if state.adapter else 0)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of named tensors: names, shapes, types and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha.update(json.dumps([name, list(value.shape), str(value.dtype)]).encode())
        sha.update(value.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return sha.hexdigest()
