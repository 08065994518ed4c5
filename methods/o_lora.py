from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class OLoRA(Method):
    """Merge each adapter, and penalise a new one's A for overlap with the rows of all earlier A (O-LoRA).

    An adapter reads its input through the rows of A; adapters with orthogonal rows read different parts of it, so
    that a new task disturbs the earlier ones less.

    loss + strength * sum over layers and earlier tasks s of the sum of |A_s A_t^T| entries; the model is W_0 + scale
    (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and all earlier A (grows by half an adapter a task).
    Settings: `strength` 0.5, as in O-LoRA's code (T5 and LLaMA). The code's second penalty, on the norms of A and B,
    has the weight 0 by default and is left out.
    """

    name = "o_lora"
    family = "orthogonal"
    paper = "Orthogonal Subspace Learning for Language Model Continual Learning"
    arxiv = "2310.14152"
    year = "2023"
    code = "https://github.com/cmnfriend/O-LoRA"
    departures = (
        "The code's sum of absolute values, where the paper squares them. The strength comes from language models, "
        "whose loss is larger than a diffusion loss. T2I-ConBench penalises B_s^T B_t instead, with 0.1."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(1e-5, 1)] = Field(0.5, ge=0, description="Weight of the penalty.")

    def loss(self, ctx, batch):
        past = ctx.state.extra
        if not past:
            return 0.0
        overlaps = ((past[f"A/{layer}"].to(A) @ A.T).abs().sum() for layer, A in ctx.adapter.A.items())
        return self.config.strength * sum(overlaps)

    def end_task(self, ctx, state, adapter):
        import torch

        rows = {f"A/{layer}": A for layer, A in adapter.A.items()}
        if state.extra:
            rows = {name: torch.cat([state.extra[name], A]) for name, A in rows.items()}
        return state.with_merged(state.merged + adapter.delta()).with_extra(**rows)
