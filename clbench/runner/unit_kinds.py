"""The kinds of units: for each its key, its label, its work, what it needs, and what it does. A new kind is one class.

A run is a chain of trainings; each is followed by the scoring of all tasks seen so far, which depends on that state
alone. Before the chain come the first task's training, where several methods share it, and the base row and the
controls, one of each for a track.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from clbench.protocol.artifact_status import ArtifactStatus
from clbench.protocol.probes import drift_passes, leak_passes
from clbench.protocol.rows import Row
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime


class UnitWork(ABC):
    """One unit, bound to the track or sequence that it is a part of."""

    kind: ClassVar[str]
    trains: ClassVar[bool] = False
    """Whether its work is training; else it is drawing."""

    runtime: TrackRuntime
    key: str
    """Its artifact's key in the store."""
    label: str
    """Its name, for people."""
    work: float = 0.0
    """U-Net passes of one image; a backward pass counts as two."""
    needs: tuple[str, ...] = ()
    """Keys of the artifacts that it is made from."""
    wanted: bool = True
    """Whether it is wanted for itself, not only by those that need it."""
    params: dict[str, Any]
    """With the kind, the track and the method, these find the unit again in another process."""

    @abstractmethod
    def is_done(self) -> bool:
        """True if its artifact exists, or existed and is no longer needed.

        What the result is read from is read here too, and does not count where it is damaged or incomplete. A state is
        checked when it is used.
        """

    @abstractmethod
    def run(self) -> None:
        """Make the artifact."""


# --- once for a track ---


class TrackUnit(UnitWork):
    """A unit that all methods share on a track."""

    def __init__(self, runtime: TrackRuntime) -> None:
        self.runtime, self.params = runtime, {}


class BaseUnit(TrackUnit):
    """The base model's scores."""

    kind = "base"

    def __init__(self, runtime: TrackRuntime) -> None:
        super().__init__(runtime)
        self.key, self.label = runtime.keys.base, f"{runtime.track.name}: the base model"
        self.work = len(runtime.track.tasks) * runtime.cell_work + leak_passes(runtime) + drift_passes(runtime)

    def is_done(self) -> bool:
        return self.runtime.stored_base_row() is not None

    def run(self) -> None:
        self.runtime.base_row()


class ControlsUnit(TrackUnit):
    """Real images against real images, and the last-task floor."""

    kind = "controls"

    def __init__(self, runtime: TrackRuntime) -> None:
        super().__init__(runtime)
        self.key, self.label = runtime.keys.controls, f"{runtime.track.name}: controls"

    def is_done(self) -> bool:
        return self.runtime.stored_controls() is not None

    def run(self) -> None:
        self.runtime.controls()


# --- for each task of a sequence ---


@dataclass(frozen=True)
class Place:
    """A task of a sequence."""

    sequence: TaskSequence
    status: ArtifactStatus
    """The artifacts of all sequences of the same method and track."""
    position: int


class TaskUnit(UnitWork):
    """A unit of one method at one task."""

    def __init__(self, place: Place) -> None:
        self.place, self.sequence, self.position = place, place.sequence, place.position
        self.runtime = place.sequence.runtime
        self.params = {
            "order": self.sequence.order,
            "seed": self.sequence.seed,
            "position": self.position,
            "task": self.sequence.tasks[self.position].name,
        }

    @classmethod
    @abstractmethod
    def of(cls, place: Place) -> Iterator[TaskUnit]:
        """The unit of this kind at a task, if there is one."""


class FirstTrainingUnit(TaskUnit):
    """The first task's training, where other methods and orders may share it."""

    kind = "fit"
    trains = True
    wanted = False

    def __init__(self, place: Place, key: str) -> None:
        super().__init__(place)
        self.key, self.label = key, f"{self.sequence.label(0)}: first training"
        self.work = self.runtime.train_work

    @classmethod
    def of(cls, place: Place) -> Iterator[TaskUnit]:
        if place.position == 0 and (key := place.sequence.shared_training_key):
            yield cls(place, key)

    def is_done(self) -> bool:
        return self.runtime.store.has(self.key, ".safetensors")

    def run(self) -> None:
        self.sequence.train_first_task()


class TrainUnit(TaskUnit):
    """A task's training, up to the state that is handed on."""

    kind = "train"
    trains = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        before = self.sequence.keys.state(self.position - 1) if self.position else self.sequence.shared_training_key
        self.key = self.sequence.keys.state(self.position)
        self.label = f"{self.sequence.label(self.position)}: training"
        self.needs = (before,) if before else ()
        self.work = 0.0 if before and not self.position else self.runtime.train_work
        self.wanted = place.status.keep_states

    @classmethod
    def of(cls, place: Place) -> Iterator[TaskUnit]:
        yield cls(place)

    def is_done(self) -> bool:
        return self.place.status.training_not_needed(self.sequence, self.position)

    def run(self) -> None:
        self.sequence.make_state(self.position)  # its lock, which is the unit's, is held
        self.place.status.delete_unneeded(self.sequence, self.position)


class ScoreUnit(TaskUnit):
    """The scores of all tasks seen so far, after a task, and of the next one where it is wanted."""

    kind = "score"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.key = self.sequence.keys.row(self.position)
        self.label = f"{self.sequence.label(self.position)}: scoring"
        self.needs = (self.sequence.keys.state(self.position),)
        learned, runtime = self.position + 1, self.runtime
        self.work = runtime.track.measured(learned) * runtime.cell_work
        if learned == len(self.sequence.tasks):
            self.work += leak_passes(runtime) + drift_passes(runtime)

    @classmethod
    def of(cls, place: Place) -> Iterator[TaskUnit]:
        if place.status.is_scored(place.sequence, place.position):
            yield cls(place)

    def is_done(self) -> bool:
        return Row.read(self.runtime, self.key, self.position) is not None

    def run(self) -> None:
        self.sequence.row(self.position)
        self.place.status.delete_unneeded(self.sequence, self.position)


TRACK_KINDS: dict[str, type[TrackUnit]] = {kind.kind: kind for kind in (BaseUnit, ControlsUnit)}
TASK_KINDS: dict[str, type[TaskUnit]] = {kind.kind: kind for kind in (FirstTrainingUnit, TrainUnit, ScoreUnit)}
"""In the order in which a task's units are wanted."""
