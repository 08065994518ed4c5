"""What is sent to another process arrives as it was, and the values of tensors are not pickled."""

import socket
import threading

import pytest
import torch

from clbench.protocol.sandbox import wire
from clbench.state import State


@pytest.fixture
def sent():
    """Sends an object; what arrives."""
    ours, theirs = socket.socketpair()

    def through(content):
        sending = threading.Thread(target=wire.send_pickle, args=(ours, content))
        sending.start()
        arrived, files = wire.receive_pickle(theirs)
        sending.join()
        assert files == []
        return arrived

    with ours, theirs:
        yield through


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 5),
        torch.randn(4, 6).T,
        torch.arange(7, dtype=torch.int64),
        torch.tensor(2.5),
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.randn(5).bfloat16(),
        torch.randn(9)[2:],
        torch.nn.Parameter(torch.randn(2)),
        torch.randn(3, dtype=torch.complex64),
    ],
    ids=["matrix", "transposed", "whole numbers", "scalar", "empty", "bool", "bf16", "slice", "parameter", "complex"],
)
def test_tensors_of_every_kind_arrive_equal_and_of_the_same_type(sent, value):
    arrived = sent({"value": value, "words": ["a", 1]})
    assert type(arrived["value"]) is type(value)
    assert arrived["value"].dtype == value.dtype
    assert arrived["value"].requires_grad == value.requires_grad
    assert torch.equal(arrived["value"], value)
    assert arrived["words"] == ["a", 1]


def test_what_arrives_lies_as_new_tensors_do_and_may_be_changed(sent):
    state = State().with_extra(first=torch.randn(1000), second=torch.randn(3))
    arrived = sent(state).extra
    assert all(value.data_ptr() % 64 == 0 for value in arrived.values())
    arrived["first"] += 1
    assert torch.equal(arrived["first"], state.extra["first"] + 1)


def test_one_tensor_in_two_places_arrives_once(sent):
    value = torch.randn(4)
    first, second = sent([value, value])
    assert first is second


def test_a_connection_that_ends_early_is_told_apart_from_a_message(sent):
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\1\0\0\0\0\0\0\0\5")
        with pytest.raises(EOFError):
            wire.receive_pickle(theirs)
