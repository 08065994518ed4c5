from dataclasses import replace

from clbench import Method
from clbench.lora import Adapter, Delta


class SLAO(Method):
    """Go on training one adapter whose A is made orthonormal before each task; deploy the newest A and an average B.

    A and B play different parts: tasks share much of A and little of B, so A is replaced and B averaged, with a
    weight that falls with the number of tasks.

    Start of task t > 1: A = Q^T from the QR decomposition of A_{t-1}^T with R's diagonal positive, and B = B_{t-1},
    both as trained on task t - 1. After it: Bm_t = Bm_{t-1} + (B_t - Bm_{t-1}) / sqrt(t), with Bm_1 = B_1. The model
    is W_0 + scale Bm_t A_t; training is on W_0 + scale B A.

    Passed on: the adapter (A_t, Bm_t), and B_t (one and a half adapters, constant).
    Settings: none; the exponent 1/2 is the paper's.
    """

    name = "slao"
    family = "merging"
    paper = "Merge before Forget: A Single LoRA Continual Learning via Continual Merging"
    arxiv = "2512.23017"
    year = "2025"
    departures = (
        "None known. There is no official code, and of the paper only the abstract was read; the algorithm is as "
        "two independent public reimplementations state it, which agree."
    )

    def begin_task(self, ctx, state):
        if state.adapter is None:
            return ctx.fresh_adapter()
        A = {layer: _orthonormal_rows(value) for layer, value in state.adapter.A.items()}
        return Adapter(A, {layer: state.extra[f"B/{layer}"] for layer in A}, state.adapter.scale)

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        merged = adapter
        if state.adapter is not None:
            weight = (ctx.position + 1) ** -0.5
            old = state.adapter.B
            merged = replace(adapter, B={k: old[k] + weight * (B - old[k]) for k, B in adapter.B.items()})
        return state.with_adapter(merged).with_extra(**{f"B/{layer}": B for layer, B in adapter.B.items()})


def _orthonormal_rows(A):
    """The rows' Gram-Schmidt basis [r, in]."""
    import torch

    Q, R = torch.linalg.qr(A.T)
    return (Q * torch.where(R.diagonal() < 0, -1.0, 1.0)).T.contiguous()
