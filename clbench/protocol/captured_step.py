"""A training step that is the same work every time, and so is recorded once and repeated: on a GPU as one CUDA graph.

A step of SDXL with one image is thousands of kernels, and launching them one by one takes longer than they take
themselves. A graph is launched as a whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before the recording, as PyTorch asks for: they choose kernels, and make what the optimizer keeps."""

Repeat = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes, of some work, what does it whenever it is called."""


class CapturedStep:
    """A step of a training that no method's code is in; what it reads and writes lies in the same memory every time.

    Args:
        loss: of inputs that lie on the device.
        parameters: what is trained.
        repeat: such as `CudaGraph`.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        parameters: list[Tensor],
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        repeat: Repeat,
    ) -> None:
        self._compute, self._parameters, self._optimizer = loss, parameters, optimizer
        self._max_grad_norm, self._repeat = max_grad_norm, repeat(self._work)
        self._inputs: tuple[Tensor, ...] = ()
        self._loss = torch.zeros(())

    def __call__(self, *inputs: Tensor) -> float:
        """Take a step; returns the loss before it."""
        if not self._inputs:
            self._inputs = tuple(map(torch.empty_like, inputs))
        for own, new in zip(self._inputs, inputs, strict=True):
            own.copy_(new)
        self._repeat()
        return self._loss.item()

    def _work(self) -> None:
        on_gpu = self._parameters[0].is_cuda
        for group in self._optimizer.param_groups:  # which warns where this is said outside of a recording
            group["capturable"] = on_gpu and torch.cuda.is_current_stream_capturing()
        self._optimizer.zero_grad(set_to_none=True)  # a repetition then writes gradients, and does not add them
        loss = self._compute(*self._inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._loss = loss.detach()


class CudaGraph:
    """Does work as it is the first times, then records it, and repeats the recording.

    Where it cannot be recorded, it goes on as it is, with a warning.

    Args:
        device: a GPU.
    """

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        self._work, self._device, self._warm_up = work, device, WARM_UP
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device)

    def __call__(self) -> None:
        with torch.cuda.device(self._device):
            if self._warm_up == 0:
                self._record()
            self._warm_up -= 1
            if self._graph is not None:
                self._graph.replay()
                return
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._work()
            torch.cuda.current_stream().wait_stream(self._stream)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._work()  # its kernels are recorded, not run
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"training steps are slower than they could be: no CUDA graph of one ({reason})", stacklevel=2
            )
        else:
            self._graph = graph
