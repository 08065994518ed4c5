"""What makes a result invalid: every check has a stable id, and all findings are reported at once.

    findings = check_result(load_result(path), load_suite("mini-v2"))      # [] = a valid, complete result

A new check is one function with the next number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clbench.metrics import METRICS
from clbench.results.baselines import on_record
from clbench.results.schema import Result, Rows, Run, Spread, content_sha256
from clbench.results.summary import summarize
from clbench.suite import Suite, Track


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
        return [run for run in self.suite.runs(self.track.name) if run not in have]

    @cached_property
    def readable(self) -> list[tuple[str, Run]]:
        """The runs whose tasks and matrices have the form and range that arithmetic needs."""
        return [(label, run) for label, run in self.runs if self._is_readable(run)]

    def _is_readable(self, run: Run) -> bool:
        matrices = [run.scores.get(metric, ()) for metric in self.track.metrics]
        tasks = len(self.track.tasks)
        return (
            sorted(run.task_order) == sorted(self.track.task_names)
            and all([len(row) for row in rows] == [tasks] * (tasks + 1) for rows in matrices)
            and not (np.abs(np.array(matrices, dtype=float)) > 1).any()
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
    seen, protocol = set(), case.suite.runs(case.track.name)
    for label, run in case.runs:
        if (run.order, run.seed) not in protocol:
            known = ", ".join(f"{order!r} with {seed}" for order, seed in protocol)
            yield f"{label} is not in the protocol, which has (order with seed) {known}"
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
        wrong = [
            (i, j, value)
            for i, row in enumerate(rows)
            for j, value in enumerate(row)
            if value is not None and not -1 <= value <= 1
        ]
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
    for label, run in case.readable:
        for metric in case.track.metrics:
            for task, value in zip(run.task_order, run.scores[metric][0], strict=True):
                if value is not None and abs(value - first.setdefault((metric, task), value)) > 1e-6:
                    earlier = first[metric, task]
                    yield f"{metric} of {label}: base score of {task!r} is {value}, in an earlier run it is {earlier}"


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
    if len(case.readable) < len(case.result.runs) or any(_controls_are_complete(case)):
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
    if case.path is not None and "/".join(case.path.parts[-3:]) != case.result.place:
        yield f"the file belongs at submissions/{case.result.place}"


@_check("CLB018")
def _content_fits_its_checksum(case: _Case) -> Iterator[str]:
    result = case.result
    found = content_sha256(result.suite, result.track, result.method, result.runs, result.controls)
    if found != result.checksum:
        yield f"checksum is {result.checksum[:12]}..., but the content has {found[:12]}...: it was edited or damaged"


@_check("CLB019")
def _base_row_is_the_known_one(case: _Case) -> Iterator[str]:
    """Where it is on record: every method starts from the same public model, so that this row is no method's own."""
    known = on_record(case.suite.name)
    if known is None or known.suite_sha256 != case.suite.sha256:
        return
    for metric, tasks in known.base[case.result.track].items():
        for label, run in case.readable[:1]:  # the others agree with it, or CLB011 says so
            found = dict(zip(run.task_order, run.scores[metric][0], strict=True))
            wrong = [
                task
                for task, score in tasks.items()
                if (value := found.get(task)) is not None and abs(value - score) > known.base_tolerance
            ]
            if wrong:
                yield (
                    f"{metric} of {label}: base score of {wrong[0]!r} is {found[wrong[0]]}, on record is "
                    f"{tasks[wrong[0]]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
                )
