from dataclasses import replace
from typing import Any

from pydantic import Field

from clbench import Method
from clbench.method import Settings
from clbench.subspace import outside


class OPLoRA(Method):
    """Merge each adapter, and keep all of them outside the base weights' main singular directions (OPLoRA).

    What the base model knows is mostly in the directions of the largest singular values of its weights; a change whose
    rows and columns are orthogonal to these leaves them exactly as they are.

    Per layer W_0 = U S V^T, U_k and V_k the first k = `directions` columns. The change of task t is scale P_L B_t A_t
    P_R with P_L = I - U_k U_k^T and P_R = I - V_k V_k^T; the model is W_0 + scale sum_s P_L B_s A_s P_R. The factors
    P_L B and A P_R are trained: their gradients are projected, and after each step so are they, which is the same.

    Passed on: the merged model.
    Settings: `directions` 16 is ours: the paper's was not found. One SVD per layer and task.
    """

    name = "oplora"
    family = "orthogonal"
    paper = "OPLoRA: Orthogonal Projection LoRA Prevents Catastrophic Forgetting during Parameter-Efficient Fine-Tuning"
    arxiv = "2510.13003"
    year = "2025"
    departures = (
        "The equations are those of the paper's abstract; neither its text nor official code was read. The paper tunes "
        "a model once; here the same projections, of the untouched weights, hold in every task."
    )

    class Config(Settings):
        directions: int = Field(16, ge=0, le=10000, description="Singular directions of each weight that are kept.")

    def prepare(self, ctx, adapter):
        self._kept = {layer: self._leading(ctx.base_weight(layer), ctx.adapter.A[layer].device) for layer in ctx.shapes}
        return replace(adapter, A={layer: outside(A, self._kept[layer][1].to(A)) for layer, A in adapter.A.items()})

    def _leading(self, weight, device):
        """U_k [out, k] and V_k [in, k] of a weight [out, in]."""
        import torch

        U, _, Vh = torch.linalg.svd(weight, full_matrices=False)
        k = self.config.directions
        return U[:, :k].to(device), Vh[:k].T.to(device)

    def on_gradients(self, ctx):
        down: dict[str, Any] = ctx.adapter.A
        up: dict[str, Any] = ctx.adapter.B
        for layer, (U, V) in self._kept.items():
            down[layer].grad = outside(down[layer].grad, V)
            up[layer].grad = outside(up[layer].grad.T, U).T

    def after_step(self, ctx):
        import torch

        with torch.no_grad():
            for layer, (U, V) in self._kept.items():
                A, B = ctx.adapter.A[layer], ctx.adapter.B[layer]
                A.copy_(outside(A, V))
                B.copy_(outside(B.T, U).T)
