from clbench import Method


class MergeDora(Method):
    """Train each task's adapter as DoRA, which learns the length and the direction of weights apart, and merge it.

    W_t = m (W_{t-1} + scale B A) / ||W_{t-1} + scale B A||, with a length for each row of W, an output: m starts as
    ||W_{t-1}||, A at random and B at 0, and all three are trained. No gradient passes through the norm.
    arXiv 2402.09353, as PEFT's code has it.

    Passed on: the merged model.
    Settings: the rank is the suite's less one, so that with m there are no more trained values than in the suite's
    LoRA; the scale is the suite's.
    """

    name = "merge_dora"
    family = "merging"
    paper = "DoRA: Weight-Decomposed Low-Rank Adaptation"
    arxiv = "2402.09353"
    year = "2024"
    code = "https://github.com/NVlabs/DoRA"
    departures = (
        "The paper trains on one task, from the pretrained weights; here each task starts from the merged ones. PEFT's "
        "and the authors' code were read for it, not the paper's text."
    )

    def begin_task(self, ctx, state):
        rank = ctx.rank - 1
        return ctx.peft_adapter("DORA", r=rank, lora_alpha=ctx.scale * rank)
