"""What methods share that keep new tasks out of a subspace: a layer's inputs, and directions that hold most of them.

moments = input_moments(ctx, 16)                        # in `prepare` or `end_task`
basis = grow(moments[layer], 0.97, basis)               # [in, k], orthonormal columns
A = outside(A, basis)                                   # rows that do not read what lies in the subspace
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from clbench.method import Context

if TYPE_CHECKING:  # methods import this module, and `clbench list methods` must not load torch
    from torch import Tensor


def input_moments(ctx: Context, count: int) -> dict[str, Tensor]:
    """Layer -> mean of x x^T over its inputs x in `count` new batches, fp32 [in, in], on the CPU; with live weights."""
    import torch

    moments: dict[str, Any] = {}

    def watch(layer: str) -> Any:
        def seen(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].flatten(0, -2).float()  # [all tokens, in]
            with torch.autocast(x.device.type, enabled=False):  # which would round the products to bf16
                moments[layer] = moments.get(layer, 0.0) + (x.T @ x).cpu() / (len(x) * count)

        return seen

    with ExitStack() as hooks, torch.no_grad():
        for layer, module in ctx.modules.items():
            hooks.callback(module.register_forward_hook(watch(layer)).remove)
        for batch in ctx.batches(count):
            ctx.denoising_loss(batch)
    return moments


def principal(moments: Tensor, basis: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of `moments` [in, in] outside of a basis [in, k], without zero ones, largest first.

    If moments = X X^T, they are the squared singular values and the left singular vectors of (I - F F^T) X, where the
    columns of F are the basis.

    Returns:
        float64 [n] and [in, n].
    """
    import torch

    part = moments.double()
    if basis is not None:
        exact = torch.linalg.qr(basis.double()).Q  # `basis` is orthonormal to fp32 alone
        part = outside(outside(part, exact).T, exact)
    values, vectors = torch.linalg.eigh(part)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > moments.double().trace() * len(values) * torch.finfo(values.dtype).eps
    return values[kept], vectors[:, kept]


def grow(moments: Tensor, share: float, basis: Tensor | None = None) -> Tensor:
    """Add the fewest directions to a basis with which it holds a share of the trace of `moments` [in, in].

    Returns:
        The new basis, fp32 [in, k] with orthonormal columns.

    Source: Gradient Projection Memory, arXiv 2103.09762, Eq. 5, 8 and 9.
    """
    import torch

    values, vectors = principal(moments, basis)
    total = moments.double().trace()
    missing = values.sum() - (values.cumsum(0) - values)  # before each direction is added
    added = vectors[:, missing > (1 - share) * total].float()
    return added if basis is None else torch.cat([basis, added], dim=1)


def outside(rows: Tensor, basis: Tensor | None) -> Tensor:
    """Rows [r, in] without their parts in the span of a basis [in, k] of orthonormal columns."""
    return rows if basis is None else rows - rows @ basis @ basis.T
