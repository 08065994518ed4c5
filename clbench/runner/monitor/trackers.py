"""Loss, scores and sample images of every run in an experiment tracker, through accelerate.

with trackers("tensorboard", plan) as on_event:
    carry_out(plan, on_event)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clbench.errors import ClbenchError, did_you_mean
from clbench.runner.engine import Event, EventHandler
from clbench.runner.monitor.events import WithUnitParams
from clbench.runner.prepare import ExecutionPlan
from clbench.storage.store import Store

TRACKERS = ("tensorboard", "wandb", "trackio")
"""Called as the packages that they need."""


def usable(name: str | None) -> str:
    """One of `TRACKERS`, or "none"; default TensorBoard where it is installed.

    Raises:
        ClbenchError: there is no such tracker, or it is not installed.
    """
    if name is None:
        return "tensorboard" if find_spec("tensorboard") else "none"
    if name not in (*TRACKERS, "none"):
        raise ClbenchError(f"there is no tracker {name!r}{did_you_mean(name, [*TRACKERS, 'none'])}")
    if name != "none" and find_spec(name) is None:
        raise ClbenchError(f"{name} is not installed; --tracker {name} needs `pip install {name}`")
    return name


@contextmanager
def trackers(name: str, plan: ExecutionPlan) -> Iterator[EventHandler]:
    """An event handler that gives every run (method, track, order, seed) a run of the tracker.

    Args:
        name: as `usable` says it.
    """
    if name == "none":
        yield lambda event: None
        return
    handler = _Trackers(name, plan)
    try:
        yield WithUnitParams(handler)
    finally:
        handler.finish()


class _Trackers:
    """Each run's tracker, begun with its first event; an error of a tracker gives one warning, and the work goes on."""

    def __init__(self, name: str, plan: ExecutionPlan) -> None:
        self._name, self._folder, self._store = name, plan.output / name, plan.executor.store
        self._configs = {spec.name: spec.reference.config for spec in plan.sweep.specs}
        self._steps = plan.sweep.suite.training.steps
        self._runs: dict[str, Any] = {}
        self._well = True

    def __call__(self, event: Event) -> None:
        if event["event"] not in ("loss", "cell") or event.get("order") is None or not self._well:
            return
        with self._harmless():
            self._log(self._run(event), event)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """A tracker's server may be away; the work goes on."""
        try:
            yield
        except Exception as error:
            self._well = False
            warnings.warn(f"{self._name} stopped tracking: {error}", stacklevel=3)

    def _run(self, event: Event) -> Any:
        name = f"{event['suite']}/{event['track']}/{event['method']}/order-{event['order']}-seed-{event['seed']}"
        if name not in self._runs:
            config = {key: event[key] for key in ("suite", "track", "method", "order", "seed")}
            config |= self._configs[f"{event['method']}/{event['track']}"]
            self._runs[name] = _begin(self._name, name, self._folder, config)
        return self._runs[name]

    def _log(self, run: Any, event: Event) -> None:
        if event["event"] == "loss":
            self._values(run, {"loss": event["loss"]}, event["position"] * self._steps + event["step"])
            return
        step = (event["position"] + 1) * self._steps
        self._values(run, {f"{metric}/{event['task']}": value for metric, value in event["scores"].items()}, step)
        picture = strip(self._store, event["cell"])
        if picture:
            self._picture(run, f"cell/{event['task']}", picture, step)

    def _picture(self, run: Any, name: str, picture: Image.Image, step: int) -> None:
        if self._name == "tensorboard":
            run.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
        else:  # accelerate would leave out the step, or has no way to it
            self._values(run, {name: import_module(self._name).Image(picture)}, step)

    def _values(self, run: Any, values: dict[str, float], step: int) -> None:
        """At a training step, which W&B and trackio take as a value: scoring may come after the next training."""
        if self._name == "tensorboard":
            run.log(values, step=step)
        else:
            run.log({**values, "training step": step})

    def finish(self) -> None:
        for run in self._runs.values():
            with self._harmless():
                run.finish()


def _begin(tracker: str, name: str, folder: Path, config: dict[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    PartialState(cpu=True)  # the trackers ask it which process writes
    if tracker == "tensorboard":
        run = TensorBoardTracker(name, str(folder))
    elif tracker == "wandb":
        run = WandBTracker("clbench", name=name, config=config, reinit="create_new")  # runs go on side by side
    else:
        run = TrackioTracker("clbench", name=name, config=config)
    run.start()
    return run


def strip(store: Store, cell: str) -> Image.Image | None:
    """The first image of each prompt of a cell, side by side, if the store has it."""
    path = store.get(cell, ".png")
    return Image.open(path).convert("RGB") if path else None
