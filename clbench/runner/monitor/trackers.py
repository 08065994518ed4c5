"""Loss, scores and sample images of every run in an experiment tracker, through accelerate.

with trackers("tensorboard", plan) as on_event:
    carry_out(plan, on_event)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Tracker:
    """How one experiment tracker is opened and written to."""

    open: Callable[[str, Path, dict[str, Any]], Any]
    """(name of a run, folder, settings) -> accelerate's tracker, not started yet."""
    log: Callable[[Any, dict[str, Any], int], None]
    """Write values, at a training step, to what `open` returned."""
    log_image: Callable[[Any, str, Image.Image, int], None]
    """Write an image under a name, at a training step."""


def _open_tensorboard(name: str, folder: Path, config: dict[str, Any]) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(name, str(folder))


def _open_wandb(name: str, folder: Path, config: dict[str, Any]) -> Any:
    from accelerate.tracking import WandBTracker

    return WandBTracker("clbench", name=name, config=config, reinit="create_new")  # runs go on side by side


def _open_trackio(name: str, folder: Path, config: dict[str, Any]) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker("clbench", name=name, config=config)


def _log_at_step(run: Any, values: dict[str, Any], step: int) -> None:
    run.log(values, step=step)


def _log_with_step(run: Any, values: dict[str, Any], step: int) -> None:
    """With the step as a value, for trackers whose steps only grow: scoring may come after the next training."""
    run.log({**values, "training step": step})


def _log_array(run: Any, name: str, picture: Image.Image, step: int) -> None:
    run.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")


def _log_image_of(package: str) -> Callable[[Any, str, Image.Image, int], None]:
    """Write the package's own `Image` as a value: accelerate would leave out the step, or has no way to it."""

    def log_image(run: Any, name: str, picture: Image.Image, step: int) -> None:
        _log_with_step(run, {name: import_module(package).Image(picture)}, step)

    return log_image


TRACKERS = {
    "tensorboard": Tracker(_open_tensorboard, _log_at_step, _log_array),
    "wandb": Tracker(_open_wandb, _log_with_step, _log_image_of("wandb")),
    "trackio": Tracker(_open_trackio, _log_with_step, _log_image_of("trackio")),
}
"""Name, which is that of the package it needs -> tracker. A new tracker is one more entry."""


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
    """An event handler that gives every run (variant, track, order, seed) a run of the tracker.

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
        self._tracker = TRACKERS[name]
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
        name = f"{event['suite']}/{event['track']}/{event['variant']}/order-{event['order']}-seed-{event['seed']}"
        if name not in self._runs:
            config = {key: event[key] for key in ("suite", "track", "variant", "method", "order", "seed")}
            config |= self._configs[f"{event['variant']}/{event['track']}"]
            self._runs[name] = _begin(self._name, name, self._folder, config)
        return self._runs[name]

    def _log(self, run: Any, event: Event) -> None:
        if event["event"] == "loss":
            place = place_of(event["step"], event["steps"], self._steps)
            if place is not None:
                self._tracker.log(run, {"loss": event["loss"]}, event["position"] * self._steps + place)
            return
        step = (event["position"] + 1) * self._steps
        self._tracker.log(run, {f"{metric}/{event['task']}": value for metric, value in event["scores"].items()}, step)
        picture = strip(self._store, event["cell"])
        if picture:
            self._tracker.log_image(run, f"cell/{event['task']}", picture, step)

    def finish(self) -> None:
        for run in self._runs.values():
            with self._harmless():
                run.finish()


def place_of(step: int, steps: int, usual: int) -> int | None:
    """Where a step lies on an axis that has room for `usual` steps a task, if the task is trained for `steps`.

    None where an earlier step lies there.
    """
    before, place = ((number * usual) // steps for number in (step - 1, step))
    return place if place > before else None


def _begin(tracker: str, name: str, folder: Path, config: dict[str, Any]) -> Any:
    from accelerate import PartialState

    PartialState(cpu=True)  # the trackers ask it which process writes
    run = TRACKERS[tracker].open(name, folder, config)
    run.start()
    return run


def strip(store: Store, cell: str) -> Image.Image | None:
    """The first image of each prompt of a cell, side by side, if the store has it."""
    path = store.get(cell, ".png")
    return Image.open(path).convert("RGB") if path else None
