"""What the computer does between the GPU's work: nothing twice, and nothing moved that may stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clbench.lora import Delta
from clbench.protocol.device import DeviceConfig
from clbench.protocol.hook_checks import _is_finite
from clbench.protocol.models import Models
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import digest


class Moved:
    """A backbone that notes where it goes."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def move(self, device: str) -> None:
        self.places.append(device)


@pytest.mark.parametrize(("stays", "places"), [(False, ["cpu", "cuda"]), (True, [])])
def test_models_leave_the_gpu_to_a_training_only_where_both_do_not_fit(mock_suite, stays, places):
    models, moved = Models(mock_suite, DeviceConfig(device="cuda", stays_on_device=stays), {}), Moved()
    vars(models)["backbone"] = moved
    with models.off_device():
        assert moved.places == places[:1]
    assert moved.places == places


def test_all_prompts_of_the_evaluation_are_encoded_before_the_first_picture_and_kept_through_moves(
    runtime, backbone, mock_suite
):
    own = TrackRuntime(mock_suite, "styles", runtime.store, DeviceConfig(device="cuda"), models=runtime.models)
    backbone._encoded_prompts.clear()
    encoded = []
    handle = backbone.pipeline.text_encoder.register_forward_hook(lambda *_: encoded.append(1))
    try:
        first, *_, last = own.track.tasks
        own.draw(own.track.eval_prompts(first), Delta(), digest(Delta()), "a task")
        distinct = {prompt for task in own.track.tasks for prompt in own.track.eval_prompts(task)}
        assert len(encoded) >= len(distinct) > len(own.track.eval_prompts(first))
        encoded.clear()
        backbone.move("cpu")
        own.draw(own.track.eval_prompts(last), Delta(), digest(Delta()), "a task")
        assert encoded == []
    finally:
        handle.remove()


FLOATS = st.sampled_from(["float16", "float32", "float64"])


@given(FLOATS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))))
def test_a_tensor_is_finite_where_all_its_values_are(values):
    value = torch.from_numpy(values)
    assert _is_finite(value) == bool(torch.isfinite(value).all())


def test_eight_bit_values_whole_numbers_and_half_precision_are_checked_too():
    nan = torch.tensor([1.0, float("nan")])
    assert not _is_finite(nan.to(torch.float8_e4m3fn))
    assert _is_finite(torch.ones(2).to(torch.float8_e5m2))
    assert not _is_finite(nan.bfloat16())
    assert _is_finite(torch.tensor([1, 2]))
