"""Rows of scores in the store, and a whole run read back from them; nothing is trained or drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clbench.errors import WorkFailed
from clbench.results.schema import Controls, Run, to_rows
from clbench.state import StateSize, regime

if TYPE_CHECKING:
    from clbench.protocol.task_sequence import TaskSequence
    from clbench.protocol.track_runtime import TrackRuntime


class Cost(NamedTuple):
    """The cost of one training."""

    train_seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Row:
    """One row of every score matrix, after one task, and what it cost."""

    scores: dict[str, list[float]]
    """Metric -> scores of the tasks seen so far, in the run's order."""
    size: StateSize
    cells: list[str]
    """The cells' keys in the store."""
    train_seconds: float
    eval_seconds: float
    peak_memory_bytes: int | None
    """The highest use of the processes that trained and scored."""

    @classmethod
    def read(cls, runtime: TrackRuntime, key: str) -> Row | None:
        """A row that the store holds, with its images if they are to be kept."""
        stored = runtime.store.get_json(key)
        if stored is None or not runtime.has_images(stored["cells"]):
            return None
        return cls(**{**stored, "size": StateSize(**stored["size"])})

    def write(self, runtime: TrackRuntime, key: str) -> None:
        runtime.store.put_json(key, {**vars(self), "size": vars(self.size)})


def read_run(sequence: TaskSequence) -> Run:
    """A finished sequence as its result records it.

    Raises:
        WorkFailed: the store does not hold all of it (names the file that is missing).
    """
    runtime = sequence.runtime
    keys = [sequence.keys.row(position) for position in range(len(sequence.tasks))]
    base, rows = runtime.stored_base_row(), [Row.read(runtime, key) for key in keys]
    found = [row for row in rows if row is not None]
    if base is None or len(found) < len(rows):
        raise _missing(runtime, runtime.keys.base if base is None else keys[rows.index(None)])
    metrics = runtime.track.metrics
    base_scores = {metric: [base[task.name]["scores"][metric] for task in sequence.tasks] for metric in metrics}
    return Run(
        order=sequence.order,
        task_order=tuple(task.name for task in sequence.tasks),
        seed=sequence.seed,
        scores={metric: to_rows(score_matrix(metric, base_scores, found)) for metric in metrics},
        state_bytes=tuple(row.size.total for row in found),
        regime=regime([row.size for row in found], runtime.suite.training.rank),
        train_seconds=sum(row.train_seconds for row in found),
        eval_seconds=sum(row.eval_seconds for row in found),
        peak_memory_bytes=max(row.peak_memory_bytes or 0 for row in found) or None,
        trainable_parameters=runtime.trainable_parameters,
    )


def read_controls(runtime: TrackRuntime) -> Controls:
    """A track's controls.

    Raises:
        WorkFailed: the store does not hold them.
    """
    controls = runtime.stored_controls()
    if controls is None:
        raise _missing(runtime, runtime.keys.controls)
    return controls


def _missing(runtime: TrackRuntime, key: str) -> WorkFailed:
    place = runtime.store.location_of(runtime.store.path(key, ".json"))
    return WorkFailed(f"{place} was removed or damaged meanwhile; run the same command again")


def score_matrix(metric: str, base: Mapping[str, list[float]], rows: Sequence[Row]) -> NDArray[np.float64]:
    """One metric's scores, (T + 1, T), nan for tasks not seen yet."""
    matrix = np.full((len(rows) + 1, len(rows)), np.nan)
    matrix[0] = base[metric]
    for index, row in enumerate(rows, start=1):
        matrix[index, :index] = row.scores[metric]
    return matrix
