"""A crew of actors on a Ray cluster.

    cluster = Cluster.join(address)
    with cluster.crew(open_workshop, setup, count=8, device="cuda", memory=23 * 10**9) as crew:
        work_off(units, crew, watch)

Ray decides where an actor runs, and gives it its GPU and its memory. An actor opens the workshop once and keeps its
models warm. A unit whose actor or node died is given to another, and an actor that died is asked for again: it takes
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
from clbench.runner.engine.loop import End, Failed, Watcher, WorkerDied, Workshop
from clbench.runner.engine.schedule import Unit
from clbench.runner.engine.slots import Places
from clbench.utils.formatting import format_bytes

GIVES_UP = 3
"""Actors in a row that could not open the workshop."""
NO_ROOM = 60.0
"""Seconds after which it is told that a cluster has no room."""
POLL = 1.0
"""Seconds between two questions to an actor how far it is."""


class Hand:
    """What runs in an actor: one thread does a unit, another tells how far it is."""

    def __init__(self, open_workshop: Callable[[str], Workshop], setup: str) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        warnings.showwarning = lambda message, *rest, **more: self._events.put(
            {"event": "warning", "message": str(message)}
        )
        self._workshop: Workshop | None = None
        self._refused: Failed | None = None
        try:
            self._workshop = open_workshop(setup)
        except ClbenchError as error:
            self._refused = Failed(str(error), error.exit_code)

    def opened(self) -> Failed | None:
        """Why the workshop cannot be opened, if so."""
        return self._refused

    def do(self, unit: Unit) -> tuple[bool | Failed, list[dict[str, Any]]]:
        """How a unit ended, and what happened since it was last told."""
        assert self._workshop
        try:
            end = self._workshop.do(unit, self._events.put)
        except DeviceFailed:
            raise  # which ends this actor, and another takes the unit up
        except ClbenchError as error:
            end = Failed(str(error), error.exit_code)
        return end, self.told()

    def told(self) -> list[dict[str, Any]]:
        """What happened since this was last asked."""
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
    """Whether it has ever answered."""
    unit: Unit | None = None
    end: Any = None
    """Reference of `do()`."""
    news: Any = None
    """Reference of `told()`."""


class Cluster:
    """A Ray cluster that this process has joined."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @classmethod
    def join(cls, address: str | None) -> Cluster:
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
                _knock(address)  # Ray itself would try for minutes
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
        return cls(ray)

    def device(self, asked: str | None) -> str:
        """What was asked for; default CUDA where the cluster has a GPU, else the CPU.

        Raises:
            ClbenchError: the cluster does not have it, or has no such thing.
        """
        has_gpu = self._ray.cluster_resources().get("GPU", 0) >= 1
        if asked not in (None, "cpu", "cuda"):
            raise ClbenchError(f"with --engine ray, --device is cpu or cuda (each worker sees one GPU), not {asked!r}")
        if asked == "cuda" and not has_gpu:
            raise ClbenchError("there is no GPU in the Ray cluster for --device cuda")
        return asked or ("cuda" if has_gpu else "cpu")

    def slots(self, device: str) -> int:
        """How many workers fit, one a GPU or one a CPU."""
        return max(1, int(self._ray.cluster_resources().get("CPU" if device == "cpu" else "GPU", 1)))

    def on_a_worker(self, function: Callable[..., Any], *arguments: Any, device: str, **options: Any) -> Any:
        """A function's value where units will run; it is given the device too.

        Raises:
            ClbenchError: as the function does.
        """
        task = self._ray.remote(**_needs(device), max_calls=1)(function)
        answer = task.remote(*arguments, device=device, **options)
        if not self._ray.wait([answer], timeout=NO_ROOM)[0]:
            warnings.warn("waiting for room on the Ray cluster, where the work is measured first", stacklevel=2)
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ClbenchError):
                raise error.cause from None
            raise

    @contextmanager
    def crew(
        self, open_workshop: Callable[[str], Workshop], setup: str, count: int, device: str, memory: int
    ) -> Iterator[Actors]:
        """A crew for a while.

        Args:
            memory: bytes of main memory that each worker needs.

        Raises:
            ClbenchError: no node has that much.
        """
        most = max(node["Resources"].get("memory", 0) for node in self._ray.nodes() if node["Alive"])
        if most < memory:
            raise ClbenchError(
                f"a worker needs {format_bytes(memory)} of main memory, and no node of the Ray cluster offers more "
                f"than {format_bytes(most)}"
            )
        options = {**_needs(device), "memory": memory, "max_concurrency": 2, "max_restarts": 0}
        kind = self._ray.remote(Hand).options(**options)
        crew = Actors(self._ray, lambda: kind.remote(open_workshop, setup), count)
        try:
            yield crew
        finally:
            crew.close()


def _needs(device: str) -> dict[str, Any]:
    """What a worker asks the cluster for; one thread of a CPU, so that it gives the bits of any other worker."""
    gpus = 0 if device == "cpu" else 1
    return {"num_cpus": 1, "num_gpus": gpus, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}


class Actors:
    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start_handle, self._failed_starts, self._asked = ray, start, 0, 0.0
        self._actors = [self._start() for _ in range(count)]
        self._places, self._began, self._warned = Places(count), time.monotonic(), False

    def free(self) -> int:
        return len(self._ready())

    def _ready(self) -> list[int]:
        free = [place for place, one in enumerate(self._actors) if one.unit is None and one.opened is None]
        return self._places.ready(free, any(one.unit is not None for one in self._actors))

    def give(self, unit: Unit) -> None:
        actor = self._actors[self._ready()[0]]
        actor.unit, actor.end = unit, actor.handle.do.remote(unit)

    def hear(self, seconds: float, watch: Watcher) -> Iterator[tuple[Unit, End]]:
        self._ask_for_news()
        self._say_who_waits(watch)
        references = {
            reference: actor
            for actor in self._actors
            for reference in (actor.opened, actor.end, actor.news)
            if reference is not None
        }
        ready, _ = self._ray.wait(list(references), num_returns=len(references), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(references), num_returns=1, timeout=seconds)
        for reference in ready:
            actor = references[reference]
            if actor not in self._actors:  # another reference told that it died
                continue
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # it, its node or its answer is lost, or it raised something
                self._ray.kill(actor.handle)
                yield from self._replace(actor, _reason(error))
                continue
            yield from self._heard(actor, reference, answer, watch)

    def _heard(self, actor: _Actor, reference: Any, answer: Any, watch: Watcher) -> Iterator[tuple[Unit, End]]:
        if reference == actor.opened:
            if answer is not None:
                raise WorkFailed(f"a worker on the cluster cannot start: {answer.message}")
            actor.opened, actor.has_opened, self._failed_starts = None, True, 0
        elif reference == actor.news:
            actor.news = None
            self._pass_on(actor, answer, watch)
        elif reference == actor.end and actor.unit is not None:
            end, events = answer
            if actor.news is not None:  # told before the end, and so of this unit
                with suppress(self._ray.exceptions.RayError):
                    self._pass_on(actor, self._ray.get(actor.news), watch)
                actor.news = None
            self._pass_on(actor, events, watch)
            unit, actor.unit, actor.end = actor.unit, None, None
            self._places.did(self._actors.index(actor))
            yield unit, end

    def _pass_on(self, actor: _Actor, events: list[dict[str, Any]], watch: Watcher) -> None:
        for event in events if actor.unit else ():
            watch({"worker": str(actor.handle._actor_id), "unit": actor.unit.key, **event})  # type: ignore[union-attr]

    def _ask_for_news(self) -> None:
        if time.monotonic() - self._asked < POLL:
            return
        self._asked = time.monotonic()
        for actor in self._actors:
            if actor.unit is not None and actor.news is None:
                actor.news = actor.handle.told.remote()

    def _say_who_waits(self, watch: Watcher) -> None:
        """Tell once that the cluster has no room for some of the workers."""
        started = sum(actor.has_opened for actor in self._actors)
        if not self._warned and started < len(self._actors) and time.monotonic() - self._began > NO_ROOM:
            self._warned = True
            of = f"{started} of {len(self._actors)} workers have started"
            watch({"event": "warning", "message": f"{of}; the others wait for room on the Ray cluster"})

    def _replace(self, actor: _Actor, reason: str) -> Iterator[tuple[Unit, End]]:
        if not actor.has_opened:
            self._failed_starts += 1
            if self._failed_starts >= GIVES_UP:
                raise WorkFailed(f"workers on the cluster cannot start: {reason}")
        place = self._actors.index(actor)
        self._actors[place] = self._start()
        for other in self._actors:  # an idle one may have died with it: none gets a unit before it has answered again
            if other.unit is None and other.opened is None:
                other.opened = other.handle.opened.remote()
        if actor.unit is not None:
            self._places.died(place)
            yield actor.unit, WorkerDied(reason)

    def _start(self) -> _Actor:
        handle = self._start_handle()
        return _Actor(handle, handle.opened.remote())

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)


def _knock(address: str | None) -> None:
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
