"""The result of one method on one track of one suite: its schema, its file, its summary and its checks.

    result = load_result(path)                      # well-formed, or a ClbenchError that names file and field
    findings = check_result(result, load_suite(result.suite.name))      # [] = a valid, complete result

Result files come from strangers: reading one runs nothing, `summary` is recomputed and never trusted, and every check
has a stable id. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from clbench.errors import ClbenchError, WorkFailed
from clbench.metrics import METRICS
from clbench.scores import IF_MEASURED, STATISTICS
from clbench.suite import Frozen, Suite, Track

MAX_BYTES = 20_000_000
"""A full `sdxl-v1` result is about 100 kB."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""Safe as a file name and in a page."""
Text = Annotated[str, StringConstraints(max_length=4000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Small enough for arithmetic with floats."""
Regime = Literal["model", "adapter", "constant", "growing", "bound"]
Rows = tuple[tuple[float | None, ...], ...]
"""A score matrix as JSON has it: null where not measured."""


class _Record(Frozen):
    model_config = ConfigDict(use_attribute_docstrings=True)


class SuiteRef(_Record):
    """Which definition was run."""

    name: Name
    """The suite's name."""
    version: Text
    """The suite's version."""
    sha256: Sha256
    """Of the definition's content (`Suite.sha256`)."""


class MethodRef(_Record):
    """Which method was run, and from which source."""

    name: Name
    """The name it is registered under."""
    version: Text
    """The method's own version."""
    config: dict[str, JsonValue]
    """Its hyper-parameters, all of them."""
    source_sha256: Sha256
    """Of the plugin's file."""
    distribution: Text | None
    """The installed package it came from, e.g. "my-methods 1.2"; null for a file."""


class BackboneRef(_Record):
    """Which base model was adapted."""

    id: Text
    """Its place: a bundled folder, or a hub repository."""
    revision: Text
    """Its checksum or commit."""


class Run(_Record):
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
    """Read off the measured state."""
    train_seconds: float
    """Time spent training, all tasks together; equal work that was shared counts for every run."""
    eval_seconds: float
    """Time spent sampling, encoding and scoring, all cells together."""
    peak_memory_bytes: Integer | None
    """Highest memory use on the device; null where it cannot be read."""
    trainable_parameters: Integer
    """Number of values that one task trains."""

    def matrix(self, metric: str) -> NDArray[np.float64]:
        """The score matrix with nan for null, (T + 1, T)."""
        return np.array(self.scores[metric], dtype=float)


class Controls(_Record):
    """What frames every score; task indices are the definition's, whatever a run's order."""

    real_against_real: dict[Name, tuple[float, ...]]
    """Metric id -> score of each task's real images, treated like generated ones."""
    last_task_floor: dict[Name, tuple[tuple[float, ...], ...]]
    """Metric id -> T x T: row = last task, column = scored task; real images in the last task's look."""


class Spread(_Record):
    """A statistic over the runs."""

    mean: float
    """Mean over the runs."""
    std: float
    """Population standard deviation over the runs (ddof 0, as in the paper's tables)."""
    n: Integer
    """Number of runs."""


MetricSummary = dict[str, Spread | None]
"""Statistic (`clbench.scores.STATISTICS`) -> its spread; null where it is undefined in any run."""


class Environment(_Record):
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


class Result(_Record):
    """All runs of one method on one track of one suite."""

    schema_version: Literal["1"]
    """Version of this schema."""
    suite: SuiteRef
    """The definition that was run."""
    track: Name
    """The suite's track."""
    method: MethodRef
    """The method that was run."""
    backbone: BackboneRef
    """The model that was adapted."""
    runs: tuple[Run, ...] = Field(min_length=1)
    """One entry for each (order, seed)."""
    controls: Controls
    """What frames the scores."""
    summary: dict[Name, MetricSummary]
    """Metric id -> statistics over the runs; recomputed wherever it is used."""
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
    """Who submits it."""


def to_rows(matrix: NDArray[np.float64]) -> Rows:
    """A score matrix as a result holds it: nan becomes null."""
    return tuple(tuple(None if math.isnan(value) else float(value) for value in row) for row in matrix)


def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result file; `clbench/result.schema.json` is its committed copy."""
    return Result.model_json_schema()


# --- Summary ---


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and population standard deviation; None if there is no value, or one is nan or beyond all measure."""
    if not len(values):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(np.mean(values)), float(np.std(values))
    return Spread(mean=mean, std=std, n=len(values)) if math.isfinite(mean) and math.isfinite(std) else None


def floor_row(controls: Controls, metric: str, run: Run, track: Track) -> NDArray[np.float64]:
    """(T,) in the run's order: the last-task floor of that run's last task; nan where the metric has no floor."""
    if metric not in controls.last_task_floor:
        return np.full(len(run.task_order), np.nan)
    index = [track.task_names.index(name) for name in run.task_order]
    return np.array(controls.last_task_floor[metric])[index[-1], index]


def past_floor(result: Result, metric: str, track: Track) -> list[float]:
    """For each run, the mean of its last-task floor over the past tasks; nan for a single task."""
    rows = [floor_row(result.controls, metric, run, track)[:-1] for run in result.runs]
    return [float(np.mean(row)) if row.size else math.nan for row in rows]


def summarize(runs: Sequence[Run], controls: Controls, track: Track) -> dict[str, MetricSummary]:
    """Metric id -> every statistic over the runs, from the score matrices alone."""
    summary: dict[str, MetricSummary] = {}
    for metric in track.metrics:
        pairs = [(run.matrix(metric), floor_row(controls, metric, run, track)) for run in runs]
        spreads = {name: spread([statistic(*pair) for pair in pairs]) for name, statistic in STATISTICS.items()}
        summary[metric] = {name: value for name, value in spreads.items() if value or name not in IF_MEASURED}
    return summary


# --- File ---


def write_atomic(path: Path, text: str) -> None:
    """Write a whole text file or nothing, creating its folder.

    Raises:
        WorkFailed: the file cannot be written (no space, no permission, ...); an earlier file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WorkFailed(f"cannot write {path}: {error.strerror}; free space or choose another folder") from None


def save_result(result: Result, path: Path) -> None:
    """Write a result file: atomic, and the same bytes for the same result.

    Raises:
        WorkFailed: the file cannot be written.
    """
    text = json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    # One line a matrix row: a JSON string holds no raw newline, so this meets lists of numbers and nulls only.
    text = re.sub(r'\[\n([^\[\]{}"]*)\n\s*\]', lambda match: "[" + " ".join(match[1].split()) + "]", text)
    write_atomic(path, text + "\n")


def load_result(path: Path) -> Result:
    """Read a result file. Its form is checked here, its meaning by `check_result`.

    Raises:
        ClbenchError: unreadable, over 20 MB, not JSON (duplicate keys, NaN, numbers out of range and extreme nesting
            included), or a field that does not fit the schema.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ClbenchError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB, which no result of `clbench run` is")
    try:
        text = raw.decode("utf-8")
        # Once for what pydantic's parser lets pass (duplicate keys, infinities in free fields), once for the schema.
        json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
        return Result.model_validate_json(text, strict=True)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False)
        field = ".".join(str(part) for part in first["loc"]) or "(top)"
        reason = f"field {_plain(field)}: {_plain(first['msg'])}" + (f" (and {len(more)} more)" if more else "")
    except ValueError as error:
        reason = _plain(str(error))
    raise ClbenchError(f"{path} is not a result file: {reason}; use the file as `clbench run` wrote it")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)} appears twice")
    return fields


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal[:20]} is not a finite number")
    return value


def _plain(text: str) -> str:
    """Text of a stranger's file, fit for one line of a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


# --- Checks ---


@dataclass(frozen=True)
class Finding:
    """Something that makes a result invalid."""

    code: str
    """Stable id of the check, e.g. "CLB006"."""
    message: str
    """What is wrong and where, in one sentence."""


@dataclass(frozen=True)
class _Case:
    result: Result
    suite: Suite
    allow_partial: bool
    path: Path | None

    @property
    def track(self) -> Track:
        return self.suite.tracks[self.result.track]

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """The runs, each with what messages call it."""
        return [
            (f"run {number} (order {run.order!r}, seed {run.seed})", run)
            for number, run in enumerate(self.result.runs, start=1)
        ]

    @property
    def matrices(self) -> Iterator[tuple[str, str, Rows]]:
        """(run, metric, rows) of every score matrix."""
        return ((label, metric, rows) for label, run in self.runs for metric, rows in run.scores.items())

    @property
    def missing(self) -> list[tuple[str, int]]:
        have = {(run.order, run.seed) for run in self.result.runs}
        return [(order, seed) for order in self.track.orders for seed in self.suite.seeds if (order, seed) not in have]

    def readable(self, run: Run) -> bool:
        """Whether the run's tasks and matrices have the form and range that arithmetic needs."""
        matrices = [run.scores.get(metric, ()) for metric in self.track.metrics]
        tasks = len(self.track.tasks)
        return (
            sorted(run.task_order) == sorted(self.track.task_names)
            and all([len(row) for row in rows] == [tasks] * (tasks + 1) for rows in matrices)
            and all(_is_cosine(value) for rows in matrices for row in rows for value in row if value is not None)
        )


def _is_cosine(value: float) -> bool:
    return abs(value) <= 1


_CHECKS: list[tuple[str, Callable[[_Case], Iterator[str]]]] = []


def _check(code: str) -> Callable[[Callable[[_Case], Iterator[str]]], Callable[[_Case], Iterator[str]]]:
    """Register a check: it yields one sentence for each thing that is wrong. Codes are never reused."""

    def register(function: Callable[[_Case], Iterator[str]]) -> Callable[[_Case], Iterator[str]]:
        _CHECKS.append((code, function))
        return function

    return register


def check_result(
    result: Result, suite: Suite, *, allow_partial: bool = False, path: Path | None = None
) -> list[Finding]:
    """Everything that is wrong with a result, measured against its suite's definition; empty = valid.

    Args:
        result: as loaded; a field that `load_result` would refuse may raise here.
        suite: the definition that the result names.
        allow_partial: accept a result that misses runs of the protocol (it must say so).
        path: the file's place under `submissions/`, where it lies there: it must be <suite>/<track>/<method>.json.
    """
    case = _Case(result, suite, allow_partial, path)
    if result.track not in suite.tracks:
        known = ", ".join(suite.tracks)
        return [Finding("CLB002", f"suite {suite.name} has no track {result.track!r} (known: {known})")]
    return [Finding(code, message[:500]) for code, function in _CHECKS for message in function(case)]


@_check("CLB001")
def _suite_is_the_known_one(case: _Case) -> Iterator[str]:
    for field in ("name", "version", "sha256"):
        ours, theirs = getattr(case.suite, field), getattr(case.result.suite, field)
        if ours != theirs:
            yield f"suite.{field} is {theirs!r}, but the known suite {case.suite.name} has {ours!r}"


# CLB002, an unknown track, is in check_result: no other check can run without the track.


@_check("CLB003")
def _runs_belong_to_the_protocol(case: _Case) -> Iterator[str]:
    seen = set()
    for label, run in case.runs:
        if run.order not in case.track.orders or run.seed not in case.suite.seeds:
            yield f"{label} is not in the protocol: orders {', '.join(case.track.orders)}, seeds {case.suite.seeds}"
        if (run.order, run.seed) in seen:
            yield f"{label} appears twice"
        seen.add((run.order, run.seed))


@_check("CLB004")
def _runs_are_complete(case: _Case) -> Iterator[str]:
    if case.missing and not case.allow_partial:
        listed = ", ".join(f"order {order!r} seed {seed}" for order, seed in case.missing[:3])
        more = ", ..." if len(case.missing) > 3 else ""
        yield f"partial result, {len(case.missing)} runs are missing ({listed}{more}); only --allow-partial accepts it"


@_check("CLB005")
def _partial_says_the_truth(case: _Case) -> Iterator[str]:
    if case.result.partial != bool(case.missing):
        yield f"partial is {case.result.partial}, but {len(case.missing)} runs of the protocol are missing"


@_check("CLB006")
def _task_orders_are_the_definitions(case: _Case) -> Iterator[str]:
    for label, run in case.runs:
        if run.order in case.track.orders:
            expected = tuple(task.name for task in case.track.ordered(run.order))
            if run.task_order != expected:
                yield f"wrong task order in {label}: {list(run.task_order)} instead of {list(expected)}"


@_check("CLB007")
def _metrics_are_the_tracks(case: _Case) -> Iterator[str]:
    for label, run in case.runs:
        if set(run.scores) != set(case.track.metrics):
            yield f"{label} has scores for {sorted(run.scores)} instead of {sorted(case.track.metrics)}"


@_check("CLB008")
def _matrices_have_the_right_shape(case: _Case) -> Iterator[str]:
    tasks = len(case.track.tasks)
    for label, metric, rows in case.matrices:
        if [len(row) for row in rows] != [tasks] * (tasks + 1):
            yield f"{metric} of {label} is not a matrix of {tasks + 1} rows and {tasks} columns"


@_check("CLB009")
def _scores_are_cosines(case: _Case) -> Iterator[str]:
    for label, metric, rows in case.matrices:
        cells = ((i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row))
        wrong = [cell for cell in cells if cell[2] is not None and not _is_cosine(cell[2])]
        for i, j, value in wrong[:1]:
            yield f"{metric} of {label} has {len(wrong)} values outside [-1, 1]: row {i}, column {j} is {value}"


@_check("CLB010")
def _seen_tasks_are_measured(case: _Case) -> Iterator[str]:
    for label, metric, rows in case.matrices:
        needed = [row if i == 0 else row[:i] for i, row in enumerate(rows)]
        wrong = [(i, row.index(None)) for i, row in enumerate(needed) if None in row]
        for i, j in wrong[:1]:
            yield f"{metric} of {label} is null in row {i}, column {j}, which every run must measure"


@_check("CLB011")
def _base_rows_agree(case: _Case) -> Iterator[str]:
    """The base row is drawn once a track, so that it is the same number in every run."""
    first: dict[tuple[str, str], float] = {}
    for label, run in case.runs:
        if case.readable(run):
            for metric in case.track.metrics:
                for task, value in zip(run.task_order, run.scores[metric][0], strict=True):
                    if value is not None and abs(value - first.setdefault((metric, task), value)) > 1e-6:
                        yield f"{metric} of {label}: base score of {task!r} is {value}, in an earlier run it is " + (
                            f"{first[metric, task]}"
                        )


@_check("CLB012")
def _state_sizes_are_sizes(case: _Case) -> Iterator[str]:
    for label, run in case.runs:
        if len(run.state_bytes) != len(case.track.tasks):
            yield f"state_bytes of {label} has {len(run.state_bytes)} entries instead of one a task"
        if any(size < 0 for size in run.state_bytes):
            yield f"state_bytes of {label} has a negative size"


@_check("CLB013")
def _costs_are_possible(case: _Case) -> Iterator[str]:
    for label, run in case.runs:
        for field in ("train_seconds", "eval_seconds", "peak_memory_bytes", "trainable_parameters"):
            value = getattr(run, field)
            if value is not None and not 0 <= value < math.inf:
                yield f"{field} of {label} is {value}, which cannot be"


@_check("CLB014")
def _regime_fits_the_state_sizes(case: _Case) -> Iterator[str]:
    """From the second task on, a state that does not grow keeps its size (1 % for headers)."""
    for label, run in case.runs:
        settled = run.state_bytes[1:]
        if run.regime in ("model", "adapter", "constant") and settled and max(settled) > 1.01 * settled[0]:
            yield f"regime of {label} is {run.regime!r}, but its state grows from {settled[0]} to {max(settled)} bytes"


@_check("CLB015")
def _controls_are_complete(case: _Case) -> Iterator[str]:
    tasks = len(case.track.tasks)
    headline = {metric for metric in case.track.metrics if not METRICS[metric].secondary}
    real, floor = case.result.controls.real_against_real, case.result.controls.last_task_floor
    for field, values in (("real_against_real", real), ("last_task_floor", floor)):
        if not headline <= set(values) <= set(case.track.metrics):
            yield f"controls.{field} has {sorted(values)}, but needs {sorted(headline)}"
    for metric, row in real.items():
        if len(row) != tasks or not all(map(_is_cosine, row)):
            yield f"controls.real_against_real.{metric} is not {tasks} cosines"
    for metric, rows in floor.items():
        if [len(row) for row in rows] != [tasks] * tasks or not all(_is_cosine(value) for row in rows for value in row):
            yield f"controls.last_task_floor.{metric} is not {tasks} x {tasks} cosines"
        elif metric in real and len(real[metric]) == tasks and not np.allclose(np.diag(rows), real[metric], 0, 1e-6):
            yield f"the diagonal of controls.last_task_floor.{metric} differs from real_against_real"


@_check("CLB016")
def _summary_is_what_the_runs_give(case: _Case) -> Iterator[str]:
    if not all(case.readable(run) for run in case.result.runs) or any(_controls_are_complete(case)):
        return  # reported above
    expected, given = summarize(case.result.runs, case.result.controls, case.track), case.result.summary
    if set(given) != set(expected):
        yield f"summary has metrics {sorted(given)} instead of {sorted(expected)}"
        return
    for metric, statistics in expected.items():
        if set(given[metric]) != set(statistics):
            yield f"summary.{metric} has {sorted(given[metric])} instead of {sorted(statistics)}"
        for name, ours in statistics.items():
            theirs = given[metric].get(name)
            if name in given[metric] and not _same(ours, theirs):
                yield f"summary.{metric}.{name} is {theirs}, but the runs give {ours}"


def _same(a: Spread | None, b: Spread | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.n == b.n and abs(a.mean - b.mean) <= 1e-9 and abs(a.std - b.std) <= 1e-9


@_check("CLB017")
def _file_lies_where_it_says(case: _Case) -> Iterator[str]:
    result = case.result
    expected = (result.suite.name, result.track, f"{result.method.name}.json")
    if case.path is not None and case.path.parts[-3:] != expected:
        yield f"the file belongs at submissions/{'/'.join(expected)}"
