from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class OPCM(Method):
    """Train each task from the base model, and merge the part of its change that is orthogonal to what is merged.

    The merged change's main singular directions hold what earlier tasks need; a new task's part within them is
    removed, and the sum is rescaled so that its size stays the tasks' mean size.

    Per layer D_{t-1} = U S V^T and P = U^T (scale B_t A_t) V. The new change loses P's diagonal and its leading
    block, whose singular values make up the share `alpha` of their sum: C_t = scale B_t A_t - U (mask * P) V^T. D_t =
    (lambda_{t-1} D_{t-1} + C_t) / lambda_t, lambda_t such that ||D_t|| over all layers is the mean of the tasks'
    ||scale B_s A_s||; lambda_1 = 1, D_1 = scale B_1 A_1. Each adapter is trained on W_0; the model is W_0 + D_t.

    Passed on: the merged model, lambda, and the sum of norms (8 bytes).
    Settings: `alpha` 0.5, as in the paper and its code (CLIP). One thin SVD per layer and task: a second for all of
    mini-v2; on SDXL up to 1280 x 2048, some ten minutes in all.
    """

    name = "opcm"
    family = "merging"
    paper = "Merging Models on the Fly Without Retraining: A Sequential Approach to Scalable Continual Model Merging"
    arxiv = "2501.09522"
    year = "2025"
    code = "https://github.com/tanganke/fusion_bench"
    departures = (
        "The code completes U and V to full bases and removes the diagonal there too; with a merged change of low "
        "rank those vectors are arbitrary, so only directions with a singular value above 0 are looked at."
    )

    class Config(Settings):
        alpha: Annotated[float, SearchRange(0.1, 0.9, log=False)] = Field(
            0.5, ge=0, lt=1, description="Share of the singular values' sum that is protected whole."
        )

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        import torch

        delta = adapter.delta()
        if not state.extra:
            return state.with_merged(delta).with_extra(scalars=torch.stack([torch.tensor(1.0), _norm(delta)]))
        before, norms = state.extra["scalars"]
        norms = norms + _norm(delta)
        cleaned = {layer: self._clean(state.merged[layer], value) for layer, value in delta.items()}
        merged = float(before) * state.merged + cleaned
        after = _norm(merged) / (norms / (ctx.position + 1))
        return state.with_merged(1 / float(after) * merged).with_extra(scalars=torch.stack([after, norms]))

    def _clean(self, merged, new):
        """The new change [out, in] without its part along the merged change's main directions."""
        import torch

        U, s, Vh = torch.linalg.svd(merged, full_matrices=False)
        floor = s[0] * max(merged.shape) * torch.finfo(s.dtype).eps
        U, s, Vh = U[:, s > floor], s[s > floor], Vh[s > floor]
        leading = s.cumsum(0) / s.sum() <= self.config.alpha
        mask = torch.outer(leading, leading) | torch.eye(len(s), dtype=torch.bool)
        return new - U @ (mask * (U.T @ new @ Vh.T)) @ Vh


def _norm(delta):
    """The norm over all layers, a scalar tensor."""
    import torch

    return torch.stack([value.norm() for value in delta.values()]).norm()
