"""What the engine costs: `python perf/engine.py {overhead,units} [--ray]`.

`overhead`: one sequence of mini-v2 in a bare loop (train, merge, draw, score; nothing kept, nothing shown), and the
same by the engine with its checks, store, display and events, in this one process: the ratio is the engine's cost. Then
both again with every training, drawing and scoring slept instead, as long as it usually took and with what it
returned: what is left differs by the engine alone, without the noise of a minute's work (`--repeats 0`: only this).
`units`: 10,000 units that do nothing, through two worker processes, and with `--ray` through two actors too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from nothing import open_nothing
from rich.console import Console

from clbench.lora import Adapter, Delta
from clbench.method import Context
from clbench.plugins import get_method
from clbench.protocol import requests, track_runtime
from clbench.protocol.device import one_thread
from clbench.protocol.evaluator import Evaluator
from clbench.protocol.sampling import draw_cell
from clbench.protocol.track_runtime import TrackRuntime
from clbench.protocol.trainer import TaskDataset, fit
from clbench.runner import harness
from clbench.runner.config import RunConfig
from clbench.runner.engine import PoolRequest, Unit, WorkerPool, execute
from clbench.runner.engine.local import LocalEngine
from clbench.runner.monitor.events import event_file
from clbench.runner.monitor.progress import Display, WorkCounter
from clbench.runner.prepare import prepare
from clbench.state import State
from clbench.storage.store import Store
from clbench.suite import Task, load_suite
from clbench.utils.images import to_pil
from clbench.utils.seeding import generator
from clbench.variants import Variant

TRACK, COUNT = "styles", 10_000


def bare_loop() -> list[float]:
    """merge_init on the track's first run (order and seed): the last row's scores."""
    suite = load_suite("mini-v2")
    with tempfile.TemporaryDirectory() as folder:
        runtime = TrackRuntime(suite, TRACK, Store(Path(folder)))  # never written to
    method, (order, seed) = get_method("merge_init"), suite.runs(TRACK)[0]
    tasks = runtime.track.ordered(order)
    runtime.models.evaluator(TRACK).controls()
    for task in tasks:
        score(runtime, task, Delta())
    state, last = State(), []
    for position, task in enumerate(tasks):
        ctx: Any = Context(
            position=position,
            task=task.name,
            prompt=runtime.track.train_prompt(task),
            rank=suite.training.rank,
            scale=runtime.backbone.scale,
            shapes=runtime.backbone.shapes,
            generator=generator(seed, "method", position),
            state=state,
            modules=runtime.backbone.layers,
            sample=lambda *_: None,  # type: ignore[arg-type,return-value]
            base_weight=runtime.backbone.base_weight,
            training=suite.training,
        )
        start = method.begin_task(ctx, state)
        assert start is not None, "merge_init trains on every task"
        runtime.backbone.deploy(state.merged)
        examples = runtime.examples(task, generator(seed, "crop", position))
        data = TaskDataset(runtime.backbone, examples, suite.resolution)
        adapter = fit(runtime.backbone, method, ctx, data, start, seed)
        assert isinstance(adapter, Adapter)
        runtime.backbone.use_adapter(None)
        state = method.end_task(ctx, state, adapter)
        last = [score(runtime, seen, method.weights(state)) for seen in tasks[: position + 1]]
    return last


def score(runtime: TrackRuntime, task: Task, weights: Delta) -> float:
    runtime.backbone.deploy(weights)
    images = draw_cell(
        runtime.backbone, runtime.track.eval_prompts(task), runtime.suite.sampling, runtime.suite.resolution
    )
    return runtime.models.evaluator(TRACK).score(task, to_pil(images))[runtime.track.metrics[0]]


def by_the_engine(beforehand: Clock) -> list[float]:
    """The same with checks, plan, store, display and events, but no tracker, which is somebody else's program.

    Args:
        beforehand: measures the checks, the plan and the estimates, which come first.
    """
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as screen:
        output = Path(folder)
        with beforehand:
            config = RunConfig.of(quick=True, output=output, debug=True)  # training in this process too
            plan = prepare([Variant.of("merge_init")], [TRACK], "mini-v2", config)
        console = Console(file=screen, force_terminal=True, width=120)  # drawn as on a terminal, wherever this runs
        with event_file(output / "events.jsonl") as write, Display(plan.graph.units, console) as display:

            def on_event(event: dict[str, Any]) -> None:
                display.on_event(event)
                write(event)

            (result,) = harness.carry_out(plan, on_event)
        return list(result.runs[0].matrix(plan.sweep.suite.track(TRACK).metrics[0])[-1])


class Clock:
    """Seconds on the wall, and of the processor, that a `with` block takes."""

    def __enter__(self) -> None:
        self._began = np.array([time.perf_counter(), time.process_time()])

    def __exit__(self, *failure: Any) -> None:
        self.took = np.array([time.perf_counter(), time.process_time()]) - self._began


here = sys.modules[__name__]
PLACES: dict[str, tuple[Any, ...]] = {
    "fit": (here, requests),
    "draw_cell": (here, track_runtime),
    "score": (Evaluator,),
    "controls": (Evaluator,),
}
"""Function that does the work -> where the bare loop and the engine find it."""


class Tape:
    """Plays back what some functions returned, asleep for as long as each usually took.

    Args:
        pace: another tape, whose times are taken.
    """

    def __init__(self, pace: Tape | None = None) -> None:
        self._taken: dict[str, list[Any]] = defaultdict(list)
        self._took: dict[str, list[float]] = defaultdict(list)
        self._pace, self._inside = pace or self, False

    @property
    def seconds(self) -> float:
        return sum(len(values) * self._each(name) for name, values in self._taken.items())

    def _each(self, name: str) -> float:
        return statistics.mean(self._pace._took[name])

    @contextmanager
    def recording(self) -> Iterator[None]:
        with self._replaced(self._record):
            yield

    @contextmanager
    def playing(self) -> Iterator[None]:
        with self._replaced(self._play):
            yield

    @contextmanager
    def _replaced(self, change: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, places in PLACES.items():
                changed = change(name, getattr(places[0], name))
                for place in places:
                    stack.enter_context(patch.object(place, name, changed))
            yield

    def _record(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any) -> Any:
            if self._inside:  # the controls score too
                return function(*arguments)
            self._inside, began = True, time.perf_counter()
            value = function(*arguments)
            self._inside = False
            self._taken[name].append(value)
            self._took[name].append(time.perf_counter() - began)
            return value

        return recorded

    def _play(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        values, seconds = iter(self._taken[name]), self._each(name)

        def played(*arguments: Any) -> Any:
            on_step = arguments[-1] if name == "fit" and callable(arguments[-1]) else None
            steps = arguments[-3].steps if on_step else 1
            for step in range(steps):
                time.sleep(seconds / steps)
                if on_step:
                    on_step(step, 0.0)
            return next(values)

        return played


def overhead(repeats: int) -> None:
    """Pairs of both, the order turned round from pair to pair, so that a drift of the machine's speed cancels."""
    bare, engine, beforehand = ([Clock() for _ in range(repeats)] for _ in range(3))
    with one_thread("cpu"):
        if repeats:
            bare_loop()  # warms the disk's cache and the allocator
        for number in range(repeats):
            scores = {}
            for what in ("bare", "engine") if number % 2 else ("engine", "bare"):
                with engine[number] if what == "engine" else bare[number]:
                    scores[what] = by_the_engine(beforehand[number]) if what == "engine" else bare_loop()
            assert scores["bare"] == scores["engine"], "not the same work"
            print(f"pair {number + 1}: bare loop {bare[number].took} s, engine {engine[number].took} s", flush=True)
        if repeats:
            compare("computed", bare, engine, beforehand)
        plain, whole, first = Clock(), Clock(), Clock()
        plain_tape = Tape()
        engine_tape = Tape(pace=plain_tape)
        with plain_tape.recording():
            expected = bare_loop()
        with engine_tape.recording():
            by_the_engine(Clock())
        with plain_tape.playing(), plain:
            bare_loop()
        with engine_tape.playing(), whole:
            assert by_the_engine(first) == expected, "not the same work"
        print(f"played back: {plain_tape.seconds:.2f} s asleep, and {engine_tape.seconds:.2f} s with the engine")
        compare("played back", [plain], [whole], [first])


def compare(how: str, bare: list[Clock], engine: list[Clock], beforehand: list[Clock]) -> None:
    """By how much the engine takes longer, in each pair; always over the bare loop's time on the clock."""
    for column, clock in enumerate(("the clock's", "the processor's")):
        plain, whole, first = (np.array([one.took[column] for one in each]) for each in (bare, engine, beforehand))
        wall = np.array([one.took[0] for one in bare])
        for what, took in (("engine, store, display and events", whole - first), ("with what comes beforehand", whole)):
            ratios = np.sort((took - plain) / wall) * 100
            spread = ", ".join(f"{ratio:+.2f}" for ratio in ratios)
            print(f"{how}, {what}: {np.median(ratios):+.2f} % by {clock} time (median of {spread})", flush=True)


def units(with_ray: bool) -> None:
    chain = [
        Unit(f"unit-{n:05d}", f"unit {n}", 1.0, (f"unit-{n - 100:05d}",) if n >= 100 else ()) for n in range(COUNT)
    ]
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where workers find open_nothing
    with tempfile.TemporaryDirectory() as folder:
        request = PoolRequest(
            executor=open_nothing(folder),
            open_executor=open_nothing,
            setup=lambda: nullcontext(folder),
            workers=2,
            device="cpu",
            memory=10**8,
        )
        with LocalEngine().start(request) as pool:
            timed(f"{COUNT} units through two processes", chain, pool)
        if with_ray:
            from clbench.runner.engine.ray import RayEngine

            with RayEngine.join(None).start(request) as pool:
                timed(f"{COUNT} units through two Ray actors", chain, pool)


def timed(what: str, chain: list[Unit], pool: WorkerPool) -> None:
    """Without the workers' start, which is told apart."""
    began = time.perf_counter()
    failed = execute(chain[:2], pool, lambda event: None)
    started = time.perf_counter()
    counter = WorkCounter(chain)
    failed |= execute(chain, pool, counter.count)
    assert not failed
    assert sum(counter.done.values()) == COUNT
    print(f"{what}: {time.perf_counter() - started:.1f} s, after a start of {started - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("overhead", "units"))
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.what == "units":
        units(arguments.ray)
    else:
        overhead(arguments.repeats)


if __name__ == "__main__":
    main()
