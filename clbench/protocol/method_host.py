"""Where a method's code runs: in processes of its own, one for each request, or in this one (`--debug`, studies)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from clbench.errors import WorkFailed
from clbench.method import BOUND, Method
from clbench.plugins import open_method, source_of
from clbench.protocol.describe import MethodDescription
from clbench.protocol.device import DeviceConfig, peak_memory, prepare_process, reset_peak_memory
from clbench.protocol.hook_lint import own_hooks
from clbench.protocol.models import Models
from clbench.protocol.requests import EmitEvent, Reply, Request
from clbench.protocol.sandbox.client import sandbox
from clbench.protocol.sandbox.confine import confine
from clbench.state import State
from clbench.utils.output import captured

STATE_FILE = "state.safetensors"
"""The reply's tensors, in the folder of the process."""


class MethodHost(Protocol):
    """Answers requests with a method's code."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> dict[str, Any]:
        """What of the method is in the store's keys."""
        ...

    @property
    def own_hooks(self) -> frozenset[str]:
        """The hooks that the method defines itself; of the others it has the defaults."""
        ...

    @property
    def is_bound(self) -> bool:
        """Whether the method is a bound: not continual, and without a rank."""
        ...

    def ask(self, request: Request, models: Models, emit: EmitEvent) -> Reply:
        """A request's reply.

        Raises:
            ClbenchError: a hook raised or returned something unusable, or the work failed.
        """
        ...


@dataclass(frozen=True)
class MethodProcess:
    """A method that this process never imports."""

    description: MethodDescription
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.description.reference.name

    @property
    def identity(self) -> dict[str, Any]:
        reference = self.description.reference
        return {"method": reference.name, "config": reference.config, "source": reference.source_sha256}

    @property
    def own_hooks(self) -> frozenset[str]:
        return frozenset(self.description.own_hooks)

    @property
    def is_bound(self) -> bool:
        return self.description.is_bound

    def ask(self, request: Request, models: Models, emit: EmitEvent) -> Reply:
        job = RequestJob(
            request,
            self.name if request.needs_method else None,
            dict(self.settings),
            self.description.file,
            self.description.reference.source_sha256,
            models.config,
            torch.get_num_threads(),
        )
        source = models.backbone_source if request.needs_backbone else None
        room: AbstractContextManager[None] = models.off_device() if request.needs_backbone else nullcontext()
        with room, sandbox().ask(job, self.name, source, emit) as reply:
            file = reply.folder / STATE_FILE
            try:
                state = State.load(file) if file.is_file() and not file.is_symlink() else State()
            except Exception as error:  # it may be any file
                raise WorkFailed(f"method {self.name}: its process gave no tensors that can be read: {error}") from None
            return Reply(reply.fields, state)


@dataclass(frozen=True)
class RequestJob:
    """A request, answered in a process that ends then."""

    request: Request
    method: str | None
    """None: the base class."""
    settings: dict[str, Any]
    file: Path | None
    sha256: str
    """The checksum that the method's source must have."""
    config: DeviceConfig
    threads: int

    def run(self, folder: Path, backbone: Any, emit: EmitEvent) -> dict[str, Any]:
        files = [self.file] if self.file and self.method else []
        confine(folder, files, self.config.device)
        prepare_process(self.config)
        torch.set_num_threads(self.threads)
        method = self._open() if self.method else Method()
        if backbone is not None and self.config.device != "cpu":
            backbone.move(self.config.device)
        hooks = self.request.task.hooks(method, emit)
        reply = self.request.answer(hooks, backbone, emit)
        if reply.state.tensors():
            save = partial(reply.state.save, folder / STATE_FILE)
            hooks.call_plugin(self.request.hook, self.request.task.position, save)
        return {**reply.fields, "peak_memory_bytes": peak_memory(self.config.device)}

    def _open(self) -> Method:
        assert self.method
        with captured(lambda line: None):  # it was seen when the method was described
            method = open_method(self.method, self.settings, self.file)
        if source_of(method).sha256 != self.sha256:
            raise WorkFailed(f"{source_of(method).path} has changed meanwhile; run the same command again")
        return method


class MethodHere:
    """A method whose code runs in this process.

    Args:
        make: makes an instance, for each request.
    """

    def __init__(self, method: Method, make: Callable[[], Method] | None = None) -> None:
        self.method, self._make = method, make or (lambda: method)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def identity(self) -> dict[str, Any]:
        method = self.method
        config = method.config.model_dump(mode="json")
        return {"method": method.name, "config": config, "source": source_of(method).sha256}

    @property
    def own_hooks(self) -> frozenset[str]:
        return frozenset(own_hooks(type(self.method)))

    @property
    def is_bound(self) -> bool:
        return self.method.family == BOUND

    def ask(self, request: Request, models: Models, emit: EmitEvent) -> Reply:
        method = self._make() if request.needs_method else Method()
        backbone = models.backbone if request.needs_backbone else None
        if backbone is not None:  # as it is in a new process, whatever was deployed before
            backbone.use_adapter(None)
            backbone.deploy({})
        reset_peak_memory(models.config.device)
        reply = request.answer(request.task.hooks(method, emit), backbone, emit)
        return replace(reply, fields={**reply.fields, "peak_memory_bytes": peak_memory(models.config.device)})
