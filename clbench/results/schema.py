"""The schema of a result: all runs of one variant of a method on one track of one suite.

Result files come from strangers: reading one (`clbench.results.io`) runs nothing, what it says is checked
(`clbench.results.validation`), and its summary is recomputed and never trusted. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field, JsonValue

from clbench.errors import ClbenchError, did_you_mean
from clbench.method import Family
from clbench.results.fields import HttpsUrl, Integer, Licence, Line, Record, Setting, Sha256, SuiteRef, Text
from clbench.results.tuning import Tuning
from clbench.suite import Name
from clbench.utils.formatting import printable
from clbench.variants import VariantName, configuration_text

if TYPE_CHECKING:
    from pandas import DataFrame

    from clbench.results.plot import ResultFigure

Regime = Literal["model", "adapter", "constant", "growing", "bound"]
Rows = tuple[tuple[float | None, ...], ...]
"""A score matrix as JSON has it: null where not measured."""


class MethodRef(Record):
    """Which method was run, and from which source."""

    name: Name
    """The name it is registered under."""
    version: Text
    """The method's own version."""
    family: Family = ""
    """What kind of method it is, by its plugin; "" = it names none."""
    config: dict[str, Setting]
    """Its hyper-parameters, all of them."""
    changed: tuple[Text, ...] | None = None
    """Names of the hyper-parameters that differ from the method's defaults; null: not recorded."""
    source_sha256: Sha256
    """SHA-256 of the plugin's file."""
    distribution: Text | None
    """The installed package it came from, e.g. "my-methods 1.2"; null for a file."""

    @property
    def changed_settings(self) -> dict[str, JsonValue]:
        """The hyper-parameters that differ from the method's defaults."""
        return {name: self.config[name] for name in self.changed or () if name in self.config}

    @property
    def configuration(self) -> str:
        """The method and the settings that differ from its defaults, e.g. "ewc, strength=10"."""
        return configuration_text(self.name, self.changed_settings)

    def configured_as(self, other: MethodRef) -> bool:
        """Whether both are the same method with the same settings; their sources may differ.

        An edited source may have other settings and defaults, so what was changed from the defaults is compared. Where
        that is not recorded, the values of the settings that both have are.
        """
        if self.name != other.name:
            return False
        if self.changed is not None and other.changed is not None:
            return self.changed_settings == other.changed_settings
        both = self.config.keys() & other.config.keys()
        return all(self.config[name] == other.config[name] for name in both)


class BackboneRef(Record):
    """Which base model was adapted."""

    id: Text
    """Where it comes from: a bundled folder, or a hub repository."""
    revision: Text
    """Its checksum or commit."""


class Run(Record):
    """One sequence of tasks."""

    order: Text
    """Name of the order."""
    task_order: tuple[Text, ...]
    """The tasks' names as they were learned."""
    seed: Integer
    """The training seed."""
    scores: dict[Name, Rows]
    """Metric id -> score matrix: T + 1 rows (row 0 = base model), T columns in this run's order."""
    state_bytes: tuple[Integer, ...]
    """Size of what was handed on after each task."""
    regime: Regime
    """What kind of state the method hands on, derived from the measured state."""
    train_seconds: float
    """Time spent training, all tasks together; equal work that was shared counts for every run."""
    eval_seconds: float
    """Time spent sampling, encoding and scoring, all cells together."""
    peak_memory_bytes: Integer | None
    """Highest memory use on the device; null where it cannot be read."""
    trainable_parameters: Integer
    """Number of values that one task trains."""
    training_passes: float | None = None
    """U-Net passes of one image with a gradient, in all trainings and their hooks, in multiples of those of the suite's
    own training; null where they were not counted."""
    told_task: bool = False
    """Whether the method was told which task's images were to be drawn."""
    leak: dict[Name, tuple[tuple[float, ...], tuple[float, ...]]] | None = None
    """Metric id -> for the base model, then after the last task: each task's score, in this run's order, for images
    whose prompts do not ask for its look; null where the track does not measure it."""
    drift: dict[Name, tuple[float, ...]] | None = None
    """Metric id -> for each unrelated prompt, the mean cosine of its images after the last task with the base model's
    own, by the metric's encoder; null where the track does not measure it."""

    def matrix(self, metric: str) -> NDArray[np.float64]:
        """The score matrix with nan for null, (T + 1, T)."""
        return np.array(self.scores[metric], dtype=float)


class Controls(Record):
    """Reference scores to read a method's by; task indices are the definition's, whatever a run's order."""

    real_against_real: dict[Name, tuple[float, ...]]
    """Metric id -> score of each task's real images, treated like generated ones."""
    last_task_floor: dict[Name, tuple[tuple[float, ...], ...]]
    """Metric id -> T x T: row = last task, column = scored task; real images in the last task's look."""


class Spread(Record):
    """A statistic over the runs."""

    mean: float
    """Mean over the runs."""
    std: float | None
    """Standard deviation over the runs, divided by n - 1; null for a single run."""
    n: Integer
    """Number of runs."""


MetricSummary = dict[str, Spread | None]
"""Statistic (`clbench.scores.STATISTICS`) -> its spread; null where it is undefined in any run."""


class Environment(Record):
    """Where it was run, as far as that could be read."""

    python: Text | None = None
    """Version of the interpreter."""
    platform: Text | None = None
    """Operating system and architecture."""
    processor: Text | None = None
    """Name of the CPU."""
    device: Text | None = None
    """Name of the device that trained and sampled."""
    threads: Integer | None = None
    """Number of threads per operation."""
    packages: dict[str, Text | None] = Field(default_factory=dict)
    """Package -> installed version."""
    git_commit: Text | None = None
    """Commit of the checkout, "-dirty" appended where it had changes."""


class Submission(Record):
    """Who submits a result, and where its method comes from."""

    submitter: Line
    """Who stands behind the result."""
    paper: HttpsUrl | None = None
    """The page that describes the method: a paper, a preprint or a report."""
    code: HttpsUrl | None = None
    """Where the method's source is."""
    licence: Licence | None = None
    """The licence of that source: an SPDX identifier or expression."""
    contact: Line | None = None
    """Whom to ask: an address that may be published."""


def _name_of_its_method(fields: dict[str, Any]) -> str:
    """Results had no variant before there were variants. "" where the method is none, which has an error of its own."""
    return fields["method"].name if "method" in fields else ""


class Result(Record):
    """All runs of one variant of a method on one track of one suite."""

    schema_version: Literal["1", "2"]
    """Version of this schema. A result of version 1 lacks what runs measure since then, and has another summary."""
    suite: SuiteRef
    """The definition that was run."""
    track: Name
    """The suite's track."""
    method: MethodRef
    """The method that was run."""
    variant: VariantName = Field(default_factory=_name_of_its_method, validate_default=True)
    """The name of the method's configuration; default the method's own."""
    backbone: BackboneRef
    """The model that was adapted."""
    runs: tuple[Run, ...] = Field(min_length=1)
    """One entry for each (order, seed)."""
    controls: Controls
    """Reference scores to read the runs' scores by."""
    summary: dict[Name, MetricSummary]
    """Metric id -> statistics over the runs; recomputed wherever it is used."""
    checksum: Sha256
    """SHA-256 of the content (`content_sha256`): shows an edit or damage that no statistic shows."""
    partial: bool
    """Whether runs of the protocol are missing."""
    environment: Environment
    """Where it was run."""
    settings: dict[str, str | int | float | bool | None]
    """What the run used: overrides, precision, device."""
    command: Text
    """The command that makes this result again."""
    created_at: AwareDatetime
    """When the last run ended."""
    submitter: Text | None = None
    """Who submits it, in results from before `submission`."""
    submission: Submission | None = None
    """Who submits it, and where its method comes from; null until `clbench submit`."""
    tuning: Tuning | None = None
    """The search that chose the method's settings; null where no search of `clbench tune` did."""

    @property
    def submitted_by(self) -> str | None:
        """Who submits it; None if nobody has."""
        return self.submission.submitter if self.submission else self.submitter

    @property
    def place(self) -> str:
        """Where it lies below `submissions/`."""
        return f"{self.suite.name}/{self.track}/{self.variant}.json"

    def __repr__(self) -> str:
        from clbench.results.table import one_line

        return f"<Result {one_line(self)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The summary as notebooks show it: the table of `clbench run`, as `summary` has it."""
        from clbench.results.table import result_html

        return result_html(self)

    def matrix(self, metric: str) -> NDArray[np.float64]:
        """The mean score matrix over the runs, (T + 1, T): row = after task i (0 = base model), column = position.

        Where the runs' orders differ, a column is a position in the order, and not one task. nan where some run did not
        measure the cell. `runs[0].matrix(metric)` is that of one run.

        Raises:
            ClbenchError: there is no such metric, or the runs' matrices have not one shape.
        """
        return score_stack(self.runs, metric).mean(axis=0)

    def to_frame(self) -> DataFrame:
        """All scores in long form, a row for each metric, run, row of the score matrix and task, in that order.

        Columns:
            metric: the metric's id.
            order: the name of the run's order.
            seed: the run's training seed.
            after: how many tasks were learned, 0 (the base model) to T.
            learned: the name of the task that was learned last; missing after 0.
            task: the name of the task that is scored; tasks come in the run's order.
            score: nan where not measured, mostly before a task is learned: `frame.dropna(subset=["score"])`.

        Raises:
            ClbenchError: pandas is not installed, or the runs' matrices have not one shape.
        """
        from clbench.results.frame import to_frame

        return to_frame(self)

    def plot(self) -> ResultFigure:
        """A matplotlib figure: for each metric the mean score matrix, and the forgetting curve.

        The curve is the mean score of a task k tasks after it was learned, over tasks and runs
        (`clbench.scores.scores_since_learned`), with the standard deviation over the runs as a band. A notebook shows
        the figure where it is a cell's last value; elsewhere `result.plot().savefig("result.png")` writes it.
        `matplotlib.pyplot` is not used, so that no figure has to be closed.

        Raises:
            ClbenchError: matplotlib is not installed, or the runs' matrices have not one shape.
        """
        from clbench.results.plot import plot

        return plot(self)


def to_rows(matrix: NDArray[np.float64]) -> Rows:
    """A score matrix as a result file has it: nan becomes null."""
    return tuple(tuple(None if math.isnan(value) else float(value) for value in row) for row in matrix)


def score_stack(runs: Sequence[Run], metric: str) -> NDArray[np.float64]:
    """The score matrices of one metric in all runs, (runs, T + 1, T); nan where not measured.

    Raises:
        ClbenchError: a run lacks the metric, or has not T tasks and a matrix of (T + 1, T), as valid results do.
    """
    known = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    if metric not in known:
        raise ClbenchError(f"the runs have no metric {metric!r}{did_you_mean(metric, known)}")
    T = len(runs[0].task_order)
    if any((len(run.task_order), *map(len, run.scores[metric])) != (T,) * (T + 2) for run in runs):
        raise ClbenchError(
            f"not all runs have {T} tasks and a {metric} matrix of {T + 1} x {T}; see `clbench validate`"
        )
    return np.array([run.scores[metric] for run in runs], dtype=float)


def content_sha256(
    suite: SuiteRef, track: str, variant: str, method: MethodRef, runs: Sequence[Run], controls: Controls
) -> str:
    """The checksum of a result. It is no signature: whoever edits a file on purpose can write another.

    A variant with its method's name does not count, nor does what earlier results did not have where it is as they had
    it, so that they keep their checksums.
    """
    parts = (suite, method, controls, *runs)
    content = [track, *(part.model_dump(mode="json", warnings=False, exclude={"changed"}) for part in parts)]
    missing = {"family": "", "leak": None, "drift": None, "training_passes": None, "told_task": False}
    for fields in content[2:]:
        for name, value in missing.items():
            if name in fields and fields[name] == value:
                del fields[name]
    if variant != method.name:
        content.append(variant)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def unprintable(content: Any, place: str) -> Iterator[str]:
    """A sentence for each text, names of fields included, that has control characters, marks of direction and such.

    They would change what a page or a terminal shows of the text around them.
    """
    if isinstance(content, str) and not content.isprintable():
        letter = next(letter for letter in content if not letter.isprintable())
        yield f"{place} has the character U+{ord(letter):04X}, which is not printable"
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from unprintable(name, f"a name in {place}")
            yield from unprintable(value, printable(f"{place}.{name}"))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from unprintable(value, f"{place}.{number}")


def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result file; `clbench/results/result.schema.json` is its committed copy."""
    return Result.model_json_schema()
