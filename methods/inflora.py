from dataclasses import replace
from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings
from clbench.subspace import grow, input_moments, principal


class InfLoRA(Method):
    """Fix each task's A to what its inputs have outside of earlier tasks' inputs, train B alone, and merge (InfLoRA).

    An adapter whose A reads main directions of the new task's inputs learns it well, and one whose A is orthogonal to
    earlier tasks' inputs leaves them alone; A is chosen before training so that both hold.

    Per layer R_t = X X^T / n of the task's n inputs X before training, and F, with orthonormal columns, holds the
    earlier tasks' inputs. A_t = the first r left singular vectors of (I - F F^T) R_t, over sqrt(3), and fixed; B_t is
    trained from 0. After it F gets the fewest left singular vectors of (I - F F^T) R_t, R_t taken anew, so that
    ||F F^T R_t||_F^2 >= e ||R_t||_F^2, with e = threshold + (1 - threshold) t / tasks for t = 0, 1, ...; the model is
    W_0 + scale (B_1 A_1 + ... + B_t A_t).

    Passed on: the merged model, and F (grows up to in x in per layer).
    Settings: `threshold` 0.95, rising to 1 after 10 `tasks`, as in its code for CIFAR-100 (0.98 for ImageNet-R).
    `batches` 16 is ours: the code goes through all data twice. They cost 32 forward passes a task, and two
    eigendecompositions per layer and task.
    """

    name = "inflora"
    family = "orthogonal"
    paper = "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning"
    arxiv = "2404.00228"
    year = "2024"
    code = "https://github.com/liangyanshuo/InfLoRA"
    departures = (
        "Where F spans half of a layer's inputs, DualGPM stores the complement, which says the same in less memory; in "
        "its first task the code then stores F in place of it. There it also takes one direction fewer than later. "
        "Rows of A that find no free direction are 0. The rule for F is on R_t, as in the code, not on X."
    )

    class Config(Settings):
        threshold: Annotated[float, SearchRange(0.5, 0.99, log=False)] = Field(
            0.95, ge=0, le=1, description="Share of the first task's inputs that is protected."
        )
        tasks: int = Field(10, ge=1, le=1000, description="Tasks after which everything is protected.")
        batches: int = Field(16, ge=1, le=1000, description="Batches whose inputs are looked at.")

    def prepare(self, ctx, adapter):
        moments = self._moments(ctx)
        return replace(adapter, A={layer: self._rows(ctx, layer, moments[layer], A) for layer, A in adapter.A.items()})

    def _rows(self, ctx, layer, moments, A):
        """The layer's A, of the shape of the one given."""
        import torch

        directions = principal(moments, ctx.state.extra.get(layer))[1].T[: len(A)]
        return torch.cat([directions.float() / 3**0.5, torch.zeros_like(A)[len(directions) :]])

    def on_gradients(self, ctx):
        for A in ctx.adapter.A.values():
            A.grad = None  # so that the optimizer leaves it alone, weight decay included

    def end_task(self, ctx, state, adapter):
        share = min(1.0, self.config.threshold + (1 - self.config.threshold) * ctx.position / self.config.tasks)
        memory = {layer: grow(moments, share, state.extra.get(layer)) for layer, moments in self._moments(ctx).items()}
        return state.with_merged(state.merged + adapter.delta()).with_extra(**memory)

    def _moments(self, ctx):
        """Layer -> R R^T, whose eigenvectors are R's left singular vectors."""
        moments = input_moments(ctx, self.config.batches)
        return {layer: R.double() @ R.double() for layer, R in moments.items()}
