"""What a method may not train, or not pass on: each is refused in a sentence that names hook, task and layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clbench.errors import WorkFailed
from clbench.lora import Adapter, PeftAdapter
from clbench.method import Method
from clbench.protocol.task_sequence import TaskSequence
from clbench.state import State


def _with_rank(ctx, rank: int) -> Adapter:
    [layer, *_] = ctx.shapes
    outputs, inputs = ctx.shapes[layer]
    return Adapter({layer: torch.ones(rank, inputs)}, {layer: torch.ones(outputs, rank)}, ctx.scale)


REFUSED = {
    "a rank above the suite's": (
        lambda ctx: _with_rank(ctx, 5),
        r"begin_task\(\) at task '.+': rank 5 on layer '.+', allowed are 1 to the suite's 4",
    ),
    "no rank": (lambda ctx: _with_rank(ctx, 0), r"rank 0 on layer '.+', allowed are 1 to the suite's 4"),
    "a B of another rank": (
        lambda ctx: replace(_with_rank(ctx, 2), B=_with_rank(ctx, 3).B),
        r"B of layer '.+' has shape \(.+, 3\), expected \(.+, 2\)",
    ),
    "an A without its B": (
        lambda ctx: replace(ctx.fresh_adapter(), B=_with_rank(ctx, 4).B),
        r"the adapter's B lacks \d+ layers",
    ),
    "a layer that there is not": (
        lambda ctx: Adapter({"other": torch.ones(2, 3)}, {"other": torch.ones(3, 2)}, ctx.scale),
        r"A of layer 'other' is not an adapted layer",
    ),
    "another kind": (
        lambda ctx: ctx.peft_adapter("DORRA"),
        r"begin_task\(\) at task '.+': there is no adapter kind 'DORRA'; did you mean 'DORA'\?",
    ),
    "a setting that trains more": (
        lambda ctx: ctx.peft_adapter("DORA", bias="all"),
        r"DORA takes no setting 'bias', only r, lora_alpha",
    ),
    "a value that PEFT does not take": (
        lambda ctx: ctx.peft_adapter("DORA", r=-1),
        r"PEFT builds no DORA with \{'r': -1\}: .*positive",
    ),
    "too many parameters": (
        lambda ctx: ctx.peft_adapter("DORA", r=4),
        r"the DORA adapter has [\d,]+ parameters, and the suite's, the most that is allowed, has [\d,]+",
    ),
    "an unknown layer for PEFT": (
        lambda ctx: ctx.peft_adapter("OFT", ["other"], oft_block_size=4),
        r"layer 'other' is not an adapted layer",
    ),
    "tensors of another shape": (
        lambda ctx: replace(
            ctx.peft_adapter("LOHA", [next(iter(ctx.shapes))], r=2), values={next(iter(ctx.shapes)): {}}
        ),
        r"hada_w1_a of layer '.+' is NoneType, expected a tensor",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_begin_task_gives_wrongly_is_refused_in_a_sentence(case, runtime):
    make, sentence = REFUSED[case]

    class Wrong(Method):
        def begin_task(self, ctx, state):
            return make(ctx)

    with pytest.raises(WorkFailed, match=sentence):
        TaskSequence(runtime, Wrong(), "forward", 0)._train(1, State())


def test_an_adapter_of_another_kind_is_not_passed_on_unmerged(runtime):
    class Unmerged(Method):
        def begin_task(self, ctx, state):
            return ctx.peft_adapter("DORA", r=2)

        def end_task(self, ctx, state, adapter):
            return state.with_adapter(adapter)

    with pytest.raises(WorkFailed, match=r"end_task\(\) .*is PeftAdapter, .*are merged, as in state\.with_merged"):
        TaskSequence(runtime, Unmerged(), "forward", 0)._train(1, State())


def test_the_change_of_an_adapter_is_not_known_before_its_training():
    with pytest.raises(ValueError, match="after training alone"):
        PeftAdapter("OFT", {}, ("a",), 0).delta()
