"""The engine of a Ray cluster: workers are Ray actors.

Ray decides where an actor runs, and gives it its GPU and its memory. An actor opens its executor once and keeps its
models loaded. A unit whose actor or node died is given to another, and an actor that died is asked for again: it takes
part once the cluster has room for it, so that the work goes on with fewer meanwhile.
"""

from __future__ import annotations

import queue
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from clbench.errors import ClbenchError, DeviceFailed, WorkFailed
from clbench.runner.engine.base import End, EventHandler, Executor, Failed, PoolRequest, WorkerDied
from clbench.runner.engine.schedule import Unit
from clbench.runner.engine.slots import WorkerSlots
from clbench.utils.formatting import format_bytes

MAX_FAILED_STARTS = 3
"""Actors in a row that could not open their executor."""
NO_ROOM_WARNING = 60.0
"""Seconds after which a warning says that the cluster has no room."""
EVENT_INTERVAL = 1.0
"""Seconds between two requests for an actor's events."""


class RayWorker:
    """The code of an actor: one thread does a unit, another returns the events since the last request."""

    def __init__(self, open_executor: Callable[[str], Executor], setup: str) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        warnings.showwarning = lambda message, *rest, **more: self._events.put(
            {"event": "warning", "message": str(message)}
        )
        self._executor: Executor | None = None
        self._refused: Failed | None = None
        try:
            self._executor = open_executor(setup)
        except ClbenchError as error:
            self._refused = Failed.of(error)

    def opened(self) -> Failed | None:
        """Why the executor cannot be opened, if so."""
        return self._refused

    def do(self, unit: Unit) -> tuple[bool | Failed, list[dict[str, Any]]]:
        """Do a unit; returns how it ended, and the events since the last request."""
        assert self._executor
        try:
            end = self._executor.do(unit, self._events.put)
        except DeviceFailed:
            raise  # which ends this actor, and another takes the unit up
        except ClbenchError as error:
            end = Failed.of(error)
        return end, self.events()

    def events(self) -> list[dict[str, Any]]:
        """The events since this was last called."""
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events


@dataclass(eq=False)
class _Actor:
    handle: Any
    opened: Any
    """Reference of `opened()`; None once it has answered."""
    has_opened: bool = False
    """True if it has answered at least once."""
    unit: Unit | None = None
    end: Any = None
    """Reference of `do()`."""
    events: Any = None
    """Reference of `events()`."""


class RayEngine:
    """A Ray cluster that this process has joined."""

    def __init__(self, ray: Any, event_interval: float = EVENT_INTERVAL) -> None:
        self._ray, self._event_interval = ray, event_interval

    @classmethod
    def join(cls, address: str | None, event_interval: float = EVENT_INTERVAL) -> RayEngine:
        """Join the cluster at an address; default the one that this machine belongs to, else a new one here.

        Raises:
            ClbenchError: Ray is not installed, or there is no such cluster.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise ClbenchError("ray is not installed; --engine ray needs `pip install 'clbench[ray]'`") from None
        if not ray.is_initialized():
            try:
                _check_address(address)  # Ray itself would try for minutes
                on_term = signal.getsignal(signal.SIGTERM)
                ray.init(address=address, log_to_driver=False, configure_logging=False)
                with suppress(ValueError):  # not the main thread
                    signal.signal(signal.SIGTERM, on_term)  # Ray's own would dump core
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise ClbenchError(
                    f"no Ray cluster lets us in at {address or 'this machine'}: {reason}; is it up, and does it want "
                    f"a token (set RAY_AUTH_MODE=token)?"
                ) from None
        return cls(ray, event_interval)

    def device(self, asked: str | None) -> str:
        """The device that was asked for; by default CUDA if the cluster has a GPU, else the CPU.

        Raises:
            ClbenchError: the cluster does not have it, or has no such thing.
        """
        has_gpu = self._ray.cluster_resources().get("GPU", 0) >= 1
        if asked not in (None, "cpu", "cuda"):
            raise ClbenchError(f"with --engine ray, --device is cpu or cuda (each worker sees one GPU), not {asked!r}")
        if asked == "cuda" and not has_gpu:
            raise ClbenchError("there is no GPU in the Ray cluster for --device cuda")
        return asked or ("cuda" if has_gpu else "cpu")

    def workers(self, asked: int | None, most: int, device: str) -> int:
        return min(asked or self.slots(device), most)

    def slots(self, device: str) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU" if device == "cpu" else "GPU", 1)))

    def sharing(self, workers: int, device: str) -> int:
        return 1  # Ray gives each worker its own memory

    def measure(self, function: Callable[..., Any], device: str, *arguments: Any) -> Any:
        task = self._ray.remote(**_needs(device), max_calls=1)(function)
        answer = task.remote(device, *arguments)
        if not self._ray.wait([answer], timeout=NO_ROOM_WARNING)[0]:
            warnings.warn("waiting for room on the Ray cluster, where the work is measured first", stacklevel=2)
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ClbenchError):
                raise error.cause from None
            raise

    @contextmanager
    def start(self, request: PoolRequest) -> Iterator[RayPool]:
        """Actors for a while.

        Raises:
            ClbenchError: no node has the memory that a worker needs.
        """
        most = max(node["Resources"].get("memory", 0) for node in self._ray.nodes() if node["Alive"])
        if most < request.memory:
            raise ClbenchError(
                f"a worker needs {format_bytes(request.memory)} of main memory, and no node of the Ray cluster offers "
                f"more than {format_bytes(most)}"
            )
        options = {**_needs(request.device), "memory": request.memory, "max_concurrency": 2, "max_restarts": 0}
        actor = self._ray.remote(RayWorker).options(**options)
        with request.setup() as setup:
            pool = RayPool(
                self._ray,
                lambda: actor.remote(request.open_executor, setup),
                request.workers,
                self._event_interval,
            )
            try:
                yield pool
            finally:
                pool.close()


def _needs(device: str) -> dict[str, Any]:
    """The resources of a worker; a CPU worker has one thread, so that all workers give the same bits."""
    gpus = 0 if device == "cpu" else 1
    variables = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}  # as -P: no modules of the working folder
    return {"num_cpus": 1, "num_gpus": gpus, "runtime_env": {"env_vars": variables}}


class RayPool:
    """Actors on a cluster.

    Args:
        start: starts one and returns its handle.
        event_interval: seconds between two requests for an actor's events.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], count: int, event_interval: float) -> None:
        self._event_interval = event_interval
        self._ray, self._start_handle, self._failed_starts, self._asked = ray, start, 0, 0.0
        self._actors = [self._start() for _ in range(count)]
        self._slots, self._began, self._warned = WorkerSlots(count), time.monotonic(), False

    def free_workers(self) -> int:
        return len(self._usable())

    def _usable(self) -> list[int]:
        free = [slot for slot, one in enumerate(self._actors) if one.unit is None and one.opened is None]
        return self._slots.usable(free, any(one.unit is not None for one in self._actors))

    def submit(self, unit: Unit) -> None:
        actor = self._actors[self._usable()[0]]
        actor.unit, actor.end = unit, actor.handle.do.remote(unit)

    def poll(self, seconds: float, on_event: EventHandler) -> Iterator[tuple[Unit, End]]:
        self._request_events()
        self._warn_of_waiting(on_event)
        references = {
            reference: actor
            for actor in self._actors
            for reference in (actor.opened, actor.end, actor.events)
            if reference is not None
        }
        ready, _ = self._ray.wait(list(references), num_returns=len(references), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(references), num_returns=1, timeout=seconds)
        for reference in ready:
            actor = references[reference]
            if actor not in self._actors:  # another reference has shown that it died
                continue
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # it, its node or its answer is lost, or it raised something
                self._ray.kill(actor.handle)
                yield from self._replace(actor, _reason(error))
                continue
            yield from self._received(actor, reference, answer, on_event)

    def _received(
        self, actor: _Actor, reference: Any, answer: Any, on_event: EventHandler
    ) -> Iterator[tuple[Unit, End]]:
        if reference == actor.opened:
            if answer is not None:
                raise WorkFailed(f"a worker on the cluster cannot start: {answer.message}")
            actor.opened, actor.has_opened, self._failed_starts = None, True, 0
        elif reference == actor.events:
            actor.events = None
            self._emit(actor, answer, on_event)
        elif reference == actor.end and actor.unit is not None:
            end, events = answer
            if actor.events is not None:  # from before the end, and so of this unit
                with suppress(self._ray.exceptions.RayError):
                    self._emit(actor, self._ray.get(actor.events), on_event)
                actor.events = None
            self._emit(actor, events, on_event)
            unit, actor.unit, actor.end = actor.unit, None, None
            self._slots.record_success(self._actors.index(actor))
            yield unit, end

    def _emit(self, actor: _Actor, events: list[dict[str, Any]], on_event: EventHandler) -> None:
        for event in events if actor.unit else ():
            on_event({"worker": str(actor.handle._actor_id), "unit": actor.unit.key, **event})  # type: ignore[union-attr]

    def _request_events(self) -> None:
        if time.monotonic() - self._asked < self._event_interval:
            return
        self._asked = time.monotonic()
        for actor in self._actors:
            if actor.unit is not None and actor.events is None:
                actor.events = actor.handle.events.remote()

    def _warn_of_waiting(self, on_event: EventHandler) -> None:
        """Warn once that the cluster has no room for some of the workers."""
        started = sum(actor.has_opened for actor in self._actors)
        if not self._warned and started < len(self._actors) and time.monotonic() - self._began > NO_ROOM_WARNING:
            self._warned = True
            of = f"{started} of {len(self._actors)} workers have started"
            on_event({"event": "warning", "message": f"{of}; the others wait for room on the Ray cluster"})

    def _replace(self, actor: _Actor, reason: str) -> Iterator[tuple[Unit, End]]:
        if not actor.has_opened:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkFailed(f"workers on the cluster cannot start: {reason}")
        slot = self._actors.index(actor)
        self._actors[slot] = self._start()
        for other in self._actors:  # an idle one may have died with it: none gets a unit before it has answered again
            if other.unit is None and other.opened is None:
                other.opened = other.handle.opened.remote()
        if actor.unit is not None:
            self._slots.record_death(slot)
            yield actor.unit, WorkerDied(reason)

    def _start(self) -> _Actor:
        handle = self._start_handle()
        return _Actor(handle, handle.opened.remote())

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)


def _check_address(address: str | None) -> None:
    """See whether anybody answers at `host:port`.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _reason(error: Any) -> str:
    """Why an actor answers no more: what it raised, or what became of it."""
    cause = getattr(error, "cause", None)
    return f"{type(cause).__name__}: {cause}".splitlines()[0] if cause else str(error).splitlines()[0]
