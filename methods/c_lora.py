from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import product
from clbench.method import SearchRange, Settings


class CLoRA(Method):
    """Merge each adapter, and penalise a new one for changing the weights that earlier ones changed.

    The sum of the past changes is itself the mask: entries that earlier tasks left alone are free, others cost the
    more the more they were changed.

    loss + strength * sum over layers of ||(B_1 A_1 + ... + B_{t-1} A_{t-1}) * (B_t A_t)||_F^2, with * entry by entry
    and the products without LoRA's scale alpha / r; the model is W_0 + scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model.
    Settings: `strength` 1e6, as in T2I-ConBench (rank 16, alpha 32). Each step multiplies out every layer's B A: on
    SDXL that is one more tensor of the size of the adapted weights (3.8 GB) to build, and one to copy to the device.
    """

    name = "c_lora"
    family = "regularization"
    paper = "Continual Diffusion: Continual Customization of Text-to-Image Diffusion with C-LoRA"
    arxiv = "2304.06027"
    year = "2023"
    code = "https://github.com/K1nght/T2I-ConBench"
    departures = (
        "The paper also trains a token for each concept, from a random start, and adapts keys and values alone; "
        "here tokens are fixed and the suite's layers are adapted. There is no official code; CLoG's is called "
        "wrong in CLoG#4."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(1, 1e6)] = Field(1e6, ge=0, description="Weight of the penalty.")

    def loss(self, ctx, batch):
        live, past = ctx.adapter, ctx.state.merged
        return self.config.strength * sum(
            (past[layer].to(A.device) / live.scale * product(A, live.B[layer])).square().sum()
            for layer, A in live.A.items()
            if layer in past
        )
