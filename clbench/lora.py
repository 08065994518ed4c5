"""Adapters, and low-rank algebra on {layer: tensor}.

    adapter = Adapter(A={"attn.to_q": A}, B={"attn.to_q": B}, scale=1.0)
    merged = previous + 0.5 * adapter.delta()           # dense, fp32
    masked = previous * {"attn.to_q": mask}             # entry by entry
    kept = max_magnitude(previous, merged)              # per entry, ties to the newest

A layer's A is [r, in] and its B is [out, r], both fp32; its weight changes by `scale * B @ A`. `PeftAdapter` is any of
PEFT's other adapters, whose change is a dense `delta()` too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # methods import this module, and `clbench list methods` must not load torch
    from torch import Tensor


class Delta(dict[str, "Tensor"]):
    """Dense weight changes, layer -> [out, in] fp32; a missing layer does not change.

    `+` and `-` take another mapping of layers, `*` a number or another mapping, such as masks; `-delta` has all signs
    turned.
    """

    def __add__(self, other: Mapping[str, Tensor]) -> Delta:
        return Delta({**self, **{name: self[name] + value if name in self else value for name, value in other.items()}})

    def __sub__(self, other: Mapping[str, Tensor]) -> Delta:
        return self + -Delta(other)

    def __neg__(self) -> Delta:
        return Delta({name: -value for name, value in self.items()})

    def __mul__(self, factor: float | Mapping[str, Tensor]) -> Delta:
        """Times a number, or entry by entry times tensors that broadcast; a layer that these lack counts as 0 there."""
        if isinstance(factor, Mapping):
            return Delta({name: factor[name] * value for name, value in self.items() if name in factor})
        return Delta({name: factor * value for name, value in self.items()})

    __rmul__ = __mul__


@dataclass(frozen=True)
class Adapter:
    """One low-rank adapter over all adapted layers, or some of them; ranks may differ between layers."""

    A: dict[str, Tensor]
    """Layer -> [r, in]."""
    B: dict[str, Tensor]
    """Layer -> [out, r]."""
    scale: float = 1.0
    """alpha / r of the suite, whatever the rank of a layer."""

    def delta(self) -> Delta:
        """`scale * B @ A` of every layer that the adapter has, in fp32."""
        return Delta({name: self.scale * product(A, self.B[name]) for name, A in self.A.items()})

    def __add__(self, other: Adapter) -> Adapter:
        """The sums of the factors, A + A' and B + B' (not the sum of the products)."""
        if other.scale != self.scale:
            raise ValueError(f"adapters of scale {self.scale} and {other.scale} cannot be added")
        return Adapter(
            {name: A + other.A[name] for name, A in self.A.items()},
            {name: B + other.B[name] for name, B in self.B.items()},
            self.scale,
        )

    def detach(self, device: str | None = None) -> Adapter:
        """A copy without gradients, on a device if one is given."""
        return Adapter(_copied(self.A, device), _copied(self.B, device), self.scale)

    def parameters(self) -> list[Tensor]:
        """All values: each layer's A, then each layer's B."""
        return [*self.A.values(), *self.B.values()]

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max(A.shape[0] for A in self.A.values())

    def tensors(self) -> dict[str, Tensor]:
        """All factors under the names they have in a file: `adapter.A/<layer>` and `adapter.B/<layer>`."""
        named = {f"adapter.A/{name}": A for name, A in self.A.items()}
        return named | {f"adapter.B/{name}": B for name, B in self.B.items()}

    def save(self, path: Path) -> None:
        """Write a safetensors file: the same bytes as those of a `State` that holds this adapter alone."""
        save_tensors(self.tensors(), path, {"scale": repr(self.scale)})

    @classmethod
    def load(cls, path: Path) -> Adapter:
        """Read the adapter of a file that `Adapter.save` or `State.save` wrote.

        Raises:
            KeyError: the file holds no adapter.
        """
        groups, metadata = load_groups(path)
        return cls(groups["adapter.A"], groups["adapter.B"], float(metadata["scale"]))


@dataclass(frozen=True)
class PeftAdapter:
    """One of PEFT's adapters other than LoRA, over adapted layers; it is trained, then merged by its `delta()`."""

    kind: str
    """DORA, LOHA, LOKR, OFT or VERA."""
    settings: Mapping[str, Any]
    """PEFT's own, such as {"r": 8}; those that are not given have PEFT's defaults."""
    layers: tuple[str, ...]
    """The layers that it changes."""
    seed: int
    """Of the first values."""
    values: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Layer -> PEFT's name of a parameter -> its values, fp32; empty: as PEFT initialises them when training starts."""
    change: Delta | None = None
    """The dense change of the frozen weights under which it was trained; None before."""

    def delta(self) -> Delta:
        """The merged weights minus the frozen weights, in fp32.

        Raises:
            ValueError: the adapter is not trained. What DoRA and OFT change depends on the frozen weights.
        """
        if self.change is None:
            raise ValueError(f"the change of a {self.kind} adapter is known after training alone")
        return self.change

    def detach(self, device: str | None = None) -> PeftAdapter:
        """A copy without gradients, on a device if one is given."""
        return replace(self, values={name: _copied(own, device) for name, own in self.values.items()})

    def parameters(self) -> list[Tensor]:
        """All values, layer by layer."""
        return [value for own in self.values.values() for value in own.values()]


AnyAdapter = Adapter | PeftAdapter
"""What a task may train."""


def _copied(tensors: Mapping[str, Tensor], device: str | None) -> dict[str, Tensor]:
    return {name: value.detach().to(device or value.device, copy=True) for name, value in tensors.items()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors of any device and layout as safetensors."""
    from safetensors.torch import save_file

    kept, memory = {}, set()
    for name, value in tensors.items():
        whole = value.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, such as a factor that is also kept in `State.extra`, or a view.
        storage = whole.untyped_storage()
        shared = storage.data_ptr() in memory or storage.nbytes() != whole.nbytes
        kept[name] = whole.clone() if shared else whole
        memory.add(kept[name].untyped_storage().data_ptr())
    save_file(kept, path, metadata)


def load_groups(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """A safetensors file's tensors, named `<group>/<key>` there, as group -> key -> tensor, and its metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in load_file(path).items():
        group, key = name.split("/", 1)
        groups[group][key] = value
    with safe_open(path, "pt") as file:
        return groups, file.metadata() or {}


def product(A: Tensor, B: Tensor) -> Tensor:
    """The dense weight change B @ A, [out, in] fp32, from A [r, in] and B [out, r]."""
    return B.float() @ A.float()


def low_rank(change: Tensor, rank: int, loss: float) -> tuple[Tensor, Tensor]:
    """Factors A [k, in] and B [out, k], fp32, whose product comes closest to a weight change [out, in].

    k is the smallest rank that loses at most the share `loss` of the change's Frobenius norm, and never more than
    `rank`. By the SVD, in fp64, whose singular values are shared evenly between the factors (Eckart and Young 1936).
    """
    import torch

    U, s, Vh = torch.linalg.svd(change.double(), full_matrices=False)
    lost = s.square().flip(0).cumsum(0).flip(0).sqrt()  # by rank 0, 1, ...
    k = min(rank, int((lost > loss * lost[0]).sum()))
    root = s[:k].sqrt()
    return (root[:, None] * Vh[:k]).float(), (U[:, :k] * root).float()


def orthogonal_columns(A: Tensor) -> Tensor:
    """For each column of A [r, n], the last right singular vector of that column, seen as a 1 x r matrix.

    The result [r, n] has unit columns, each orthogonal to A's column of the same index; the signs are LAPACK's. In
    closed form (a Householder reflection), with s = 1 where v_1 >= 0 and -1 elsewhere:
    e_r - v_r (v + s |v| e_1) / (|v| (|v| + |v_1|)); e_r for a zero column. For r = 1 no orthogonal direction exists:
    the result is 1, which is LAPACK's only right singular vector.

    Source: arXiv 2410.04891, Eq. 1; the signs and the closed form were checked against `torch.linalg.svd`.
    """
    import torch

    r = A.shape[0]
    if r == 1:
        return torch.ones_like(A)
    # Scaling a column keeps its direction, and prevents under- and overflow when tiny or huge entries are squared.
    largest = A.abs().amax(dim=0)
    v = A / torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = v.norm(dim=0)
    first, last = v[0], v[-1]
    sign = torch.where(A[0] >= 0, 1.0, -1.0).to(A.dtype)  # from A, because a negative entry may have become zero in v
    weight = last / (norm * (norm + first.abs())).clamp(min=torch.finfo(A.dtype).tiny)
    result = -weight * v
    result[0] -= weight * sign * norm
    result[-1] += 1
    return result


def max_magnitude(previous: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> Delta:
    """For each entry the value of larger magnitude; ties go to `current` (the newest task).

    Layers absent from one side count as zero there. Source: MagMax, Marczak et al. 2024; arXiv 2410.04891, Eq. 2,
    on dense weight changes as in its released code.
    """
    import torch

    kept = Delta(current)
    for name, old in previous.items():
        new = current.get(name, torch.zeros_like(old))
        kept[name] = torch.where(old.abs() > new.abs(), old, new)
    return kept
