from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class IsoC(Method):
    """Train each task from the base model, sum the changes, and make all singular values of the sum equal.

    A sum of changes is dominated by the few directions that tasks share; a flat spectrum gives each direction that
    some task uses the same weight.

    D_t = D_{t-1} + scale B_t A_t, each adapter trained on W_0. Per layer D_t = U S V^T; the model is W_0 + strength *
    mean(S) U V^T, over the singular values that are not 0.

    Passed on: the merged model (D_t).
    Settings: `strength` 1, as in fusion_bench (CLIP). One SVD per layer whenever weights are deployed: a second for
    all of mini-v2; SDXL has 560 layers, of up to 1280 x 2048.
    """

    name = "iso_c"
    family = "merging"
    paper = "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces"
    arxiv = "2502.04959"
    year = "2025"
    code = "https://github.com/tanganke/fusion_bench"
    departures = (
        "The sources fine-tune whole matrices and take the mean over all min(out, in) singular values. A sum of few "
        "LoRA products has a null space, whose singular vectors are arbitrary, so it is left out of the mean and "
        "the sum."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.5, 10)] = Field(1.0, ge=0, description="Factor of the merged change.")

    def frozen(self, state):
        return Delta()

    def weights(self, state):
        return self.config.strength * Delta({layer: _isotropic(value) for layer, value in state.merged.items()})


def _isotropic(matrix):
    """The matrix [out, in] with each singular value that is not 0 replaced by their mean."""
    import torch

    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    floor = s[0] * max(matrix.shape) * torch.finfo(s.dtype).eps
    used = (s > floor).to(s)
    return (s * used).sum() / used.sum().clamp(min=1) * (U * used) @ Vh
