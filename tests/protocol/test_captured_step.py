"""Training steps that a GPU repeats as one graph: the same numbers, the same memory, and no method's code left out."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapters import random_adapter

from clbench.errors import MethodFailed
from clbench.lora import Adapter
from clbench.method import Method
from clbench.protocol.captured_step import WARM_UP, CudaGraph
from clbench.protocol.trainer import TaskDataset, fit
from clbench.utils.seeding import generator

STEPS = 5


def start_of(backbone) -> Adapter:
    random = random_adapter(backbone)
    return replace(random, B={name: torch.zeros_like(value) for name, value in random.B.items()})


def trained(runtime, method: Method, repeat: Any, start: Adapter | None = None):
    """The adapter after some steps, and their losses."""
    backbone, training = runtime.backbone, runtime.suite.training.model_copy(update={"steps": STEPS})
    backbone.deploy({})
    data = TaskDataset(backbone, runtime.examples(runtime.track.tasks[0], generator(0)), runtime.suite.resolution)
    ctx: Any = SimpleNamespace(position=0, task="task", training=training)
    losses: list[float] = []
    adapter = fit(
        backbone, method, ctx, data, start or start_of(backbone), 0, lambda _, loss: losses.append(loss), repeat
    )
    assert isinstance(adapter, Adapter)
    return adapter, losses


def as_it_is(work):
    return work


def never(work):
    raise AssertionError("the step was recorded")


def test_captured_steps_train_to_the_same_bits_and_count_as_many_passes(runtime):
    plain, losses = trained(runtime, Method(), None)
    runtime.backbone.passes.clear()
    captured, own_losses = trained(runtime, Method(), as_it_is)
    assert runtime.backbone.passes[True] == STEPS * runtime.suite.training.batch_size
    assert own_losses == losses
    assert len(set(losses)) == STEPS
    assert captured.tensors().keys() == plain.tensors().keys()
    assert all(torch.equal(captured.tensors()[name], value) for name, value in plain.tensors().items())


def test_what_a_recording_would_read_and_write_lies_in_the_same_memory_at_every_step(runtime):
    seen = []

    def watched(work):
        step = work.__self__

        def repeat() -> None:
            work()
            moments = [value for own in step._optimizer.state.values() for value in own.values()]
            seen.append([value.data_ptr() for value in (*step._inputs, *step._parameters, *moments)])

        return repeat

    trained(runtime, Method(), watched)
    assert len(seen) == STEPS
    assert all(addresses == seen[0] for addresses in seen)


def overriding(hook: str) -> Method:
    def same(self, *arguments):
        return getattr(super(own, self), hook)(*arguments)

    own = type("Own", (Method,), {hook: same})
    return own()


@pytest.mark.parametrize("hook", ["optimizer", "loss", "on_gradients", "after_step", "shapes_training"])
def test_a_method_with_code_inside_the_step_is_not_captured(runtime, hook):
    with pytest.raises(AssertionError, match="recorded"):
        trained(runtime, Method(), never)
    assert trained(runtime, overriding(hook), never)[1] == trained(runtime, Method(), None)[1]


def test_a_loss_that_is_not_finite_ends_a_captured_training_too(runtime):
    start = start_of(runtime.backbone)
    name = next(iter(start.A))
    broken = Adapter(start.A, {**start.B, name: torch.full_like(start.B[name], float("nan"))}, start.scale)
    with pytest.raises(MethodFailed, match=r"the loss became nan in task 'task' \(position 1\) at step 1 of 5"):
        trained(runtime, Method(), as_it_is, broken)


# --- the recording itself, with a stand-in for CUDA ---


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for what a graph needs of `torch.cuda`; notes what is done."""
    done: list[str] = []

    @contextmanager
    def recording(graph, stream):
        done.append("record")
        yield
        if done.count("refuse"):
            raise RuntimeError("operation not permitted when stream is capturing")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_ins: dict[str, Any] = {
        "Stream": lambda device: stream,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: done.append("repeat")),
        "graph": recording,
        "current_stream": lambda: stream,
        "stream": nullcontext,
        "device": nullcontext,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return done


def test_a_graph_is_recorded_once_and_then_repeated(cuda):
    repeat = CudaGraph(lambda: cuda.append("work"), torch.device("cuda:1"))
    for _ in range(WARM_UP + 3):
        repeat()
    assert cuda == ["work"] * WARM_UP + ["record", "work", "repeat", "repeat", "repeat"]


def test_work_that_cannot_be_recorded_is_done_at_every_step_with_one_warning(cuda):
    repeat = CudaGraph(lambda: cuda.append("work"), torch.device("cuda"))
    for _ in range(WARM_UP):
        repeat()
    cuda[:] = ["refuse"]
    with pytest.warns(UserWarning, match="no CUDA graph of one .operation not permitted"):
        repeat()
    repeat()
    assert cuda == ["refuse", "record", "work", "work", "work"]
