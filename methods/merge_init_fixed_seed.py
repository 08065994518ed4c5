from dataclasses import replace

from clbench import Method


class MergeInitFixedSeed(Method):
    """Merge each task's adapter into the weights, as `merge_init` does, but start every task from the same A.

    The paper's released code sets one seed at the start of each task, so that all tasks begin with the same random A;
    this isolates what that does.

    W_t = W_{t-1} + scale B_t A_t, with A_t = A_0 and B_t = 0 at the start of every task.

    Passed on: the merged model, and the seed of A_0 (8 bytes).
    Settings: none.
    """

    name = "merge_init_fixed_seed"
    family = "paper"
    paper = "Low-Rank Continual Personalization of Diffusion Models"
    arxiv = "2410.04891"
    year = "2024"
    departures = "The paper argues for a new random start in each task (`merge_init`); its released code does this."

    def begin_task(self, ctx, state):
        import torch

        self._seed = int(state.extra["seed"][0]) if state.extra else ctx.generator.initial_seed()
        return replace(ctx, generator=torch.Generator().manual_seed(self._seed)).fresh_adapter()

    def end_task(self, ctx, state, adapter):
        import torch

        return state.with_merged(state.merged + adapter.delta()).with_extra(seed=torch.tensor([self._seed]))
