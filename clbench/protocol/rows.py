"""Rows of scores in the store, and a whole run read back from them; nothing is trained or drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter

from clbench.errors import WorkFailed
from clbench.metrics import METRICS
from clbench.results.schema import Controls, Run, to_rows
from clbench.scores import RANKED_BY, STATISTICS
from clbench.state import StateSize, regime
from clbench.suite import Track

if TYPE_CHECKING:
    from clbench.protocol.task_sequence import TaskSequence
    from clbench.protocol.track_runtime import TrackRuntime


Seconds = Annotated[FiniteFloat, Field(ge=0)]


class Cost(NamedTuple):
    """The cost of one training."""

    train_seconds: Seconds
    peak_memory_bytes: int | None
    passes_with_gradient: Annotated[int, Field(ge=0)] | None = None
    """U-Net passes of one image in the training and its hooks; None where they were not counted."""
    passes_without: Annotated[int, Field(ge=0)] | None = None
    """Those without a gradient: what hooks drew and predicted."""
    trained_parameters: Annotated[int, Field(ge=0)] | None = None
    """Number of values that the task trained; None where they were not counted."""


@dataclass(frozen=True)
class Row:
    """One row of every score matrix, after one task, and what it cost."""

    scores: dict[str, list[FiniteFloat]]
    """Metric -> scores of the tasks seen so far, in the run's order, and of the next one where the track wants it."""
    size: StateSize
    cells: list[str]
    """The cells' keys in the store."""
    train_seconds: Seconds
    eval_seconds: Seconds
    peak_memory_bytes: int | None
    """The highest use of the processes that trained and scored."""
    leak: dict[str, list[FiniteFloat]] | None = None
    """After the last task, where it is measured: headline metric -> score of each task, in the run's order, for images
    that do not ask for its look."""
    drift: dict[str, list[FiniteFloat]] | None = None
    """After the last task, where it is measured: metric -> for each unrelated prompt, the mean cosine of its images
    with the base model's own."""

    @classmethod
    def read(cls, runtime: TrackRuntime, key: str, position: int) -> Row | None:
        """The row after the task at `position`, if the store holds it, with its images if they are to be kept."""

        def read(stored: Any) -> Row:
            row = _ROW.validate_python(stored)
            track, lengths = runtime.track, {len(row.cells), *map(len, row.scores.values())}
            if set(row.scores) != set(track.metrics) or lengths != {track.measured(position + 1)}:
                raise ValueError("the row is of other tasks or metrics")
            if position + 1 == len(track.tasks):
                _check_probes(row, track)
            return row

        row = runtime.store.get_json(key, read)
        return row if row and runtime.has_images(row.cells) else None

    def write(self, runtime: TrackRuntime, key: str) -> None:
        runtime.store.put_json(key, {**vars(self), "size": vars(self.size)})


def _check_probes(row: Row, track: Track) -> None:
    """Raise a ValueError where a last row lacks what its track measures after the last task."""
    leak = dict.fromkeys(track.headline_metrics, len(track.tasks)) if track.leak_prompt_templates else {}
    drift = dict.fromkeys(track.drift.metrics, len(track.drift.prompts)) if track.drift else {}
    for name, own, expected in (("leak", row.leak, leak), ("drift", row.drift, drift)):
        if {metric: len(values) for metric, values in (own or {}).items()} != expected:
            raise ValueError(f"the row's {name} is of other tasks, prompts or metrics")


SECONDS, COST, _ROW = TypeAdapter[float](Seconds), TypeAdapter(Cost), TypeAdapter(Row)
"""They refuse, with a ValueError, what is no number of seconds, cost or row."""


def read_run(sequence: TaskSequence) -> Run:
    """A finished sequence as its result records it.

    Raises:
        WorkFailed: the store does not hold all of it (names the file that is missing).
    """
    runtime = sequence.runtime
    keys = [sequence.keys.row(position) for position in range(len(sequence.tasks))]
    base, rows = runtime.stored_base_row(), [Row.read(runtime, key, position) for position, key in enumerate(keys)]
    found = [row for row in rows if row is not None]
    costs = [sequence.stored_cost(position) for position in range(len(sequence.tasks))]
    registered = runtime.trainable_parameters
    if base is None or len(found) < len(rows):
        raise _missing(runtime, runtime.keys.base if base is None else keys[rows.index(None)])
    metrics, last = runtime.track.metrics, found[-1]
    leak = {
        metric: (tuple(base[task.name]["leak"][metric] for task in sequence.tasks), tuple(own))
        for metric, own in (last.leak or {}).items()
    }
    base_scores = {metric: [base[task.name]["scores"][metric] for task in sequence.tasks] for metric in metrics}
    return Run(
        order=sequence.order,
        task_order=tuple(task.name for task in sequence.tasks),
        seed=sequence.seed,
        scores={metric: to_rows(score_matrix(metric, base_scores, found)) for metric in metrics},
        state_bytes=tuple(row.size.total for row in found),
        regime="bound" if sequence.host.is_bound else regime([row.size for row in found], runtime.suite.training.rank),
        train_seconds=sum(row.train_seconds for row in found),
        eval_seconds=sum(row.eval_seconds for row in found),
        peak_memory_bytes=max(row.peak_memory_bytes or 0 for row in found) or None,
        trainable_parameters=max(
            registered if cost.trained_parameters is None else cost.trained_parameters for cost in costs
        ),
        training_passes=_training_passes(costs, sequence.training.passes),
        told_task=sequence.is_told,
        leak=leak or None,
        drift={metric: tuple(own) for metric, own in last.drift.items()} if last.drift else None,
    )


def read_kept(sequence: TaskSequence) -> float:
    """Kept of a finished sequence, by the metric that ranks; it needs no other row than the last.

    Raises:
        WorkFailed: the store does not hold that row, the base model's or the controls (names the file).
    """
    runtime, last = sequence.runtime, len(sequence.tasks) - 1
    key = sequence.keys.row(last)
    base, row, controls = runtime.stored_base_row(), Row.read(runtime, key, last), read_controls(runtime)
    if base is None or row is None:
        raise _missing(runtime, runtime.keys.base if base is None else key)
    metric, names = runtime.track.metrics[0], [task.name for task in sequence.tasks]
    scores = [base[name]["scores"][metric] for name in names]
    R = score_matrix(metric, {metric: scores}, [*[None] * last, row])
    real = dict(zip(runtime.track.task_names, controls.real_against_real[metric], strict=True))
    sign = METRICS[metric].sign
    return float(STATISTICS[RANKED_BY].each(sign * R, sign * np.array([real[name] for name in names])))


def _training_passes(costs: Sequence[Cost], own: int) -> float | None:
    """Passes with a gradient in all trainings, in multiples of the suite's `own`; None where they were not counted."""
    passes = [cost.passes_with_gradient for cost in costs if cost.passes_with_gradient is not None]
    return sum(passes) / (len(costs) * own) if len(passes) == len(costs) else None


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


def score_matrix(metric: str, base: Mapping[str, list[float]], rows: Sequence[Row | None]) -> NDArray[np.float64]:
    """One metric's scores, (T + 1, T), nan where not measured: of a row that is None too."""
    matrix = np.full((len(rows) + 1, len(rows)), np.nan)
    matrix[0] = base[metric]
    for index, row in enumerate(rows, start=1):
        scores = row.scores[metric] if row else []
        matrix[index, : len(scores)] = scores
    return matrix
