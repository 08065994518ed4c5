"""The checks of a result: each is one function with a code, and yields a sentence for each thing that is wrong.

A new check is one more function here, with the next number. Codes are never reused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from clbench.metrics import METRICS
from clbench.results.baselines import on_record
from clbench.results.case import Case
from clbench.results.copies import copied_run
from clbench.results.find import replicate_number, replicate_place
from clbench.results.schema import Spread, content_sha256, unprintable
from clbench.results.tuning import outside
from clbench.utils.files import is_device_name

Check = Callable[[Case], Iterator[str]]

MOST = 1e15
"""Seconds, bytes or values that no run needs: boards add, multiply and show those of many runs."""
CHECKS: dict[str, Check] = {}
"""Code -> check, in the order of the codes."""


def check(code: str) -> Callable[[Check], Check]:
    """Register a check."""

    def register(function: Check) -> Check:
        CHECKS[code] = function
        return function

    return register


@check("CLB001")
def _suite_is_the_known_one(case: Case) -> Iterator[str]:
    for field in ("name", "version", "sha256"):
        ours, theirs = getattr(case.suite, field), getattr(case.result.suite, field)
        if ours != theirs:
            yield f"suite.{field} is {theirs!r}, but the known suite {case.suite.name} has {ours!r}"


# CLB000, an unreadable file, and CLB002, an unknown track, are in `validation`: no other check can run then.


@check("CLB003")
def _runs_belong_to_the_protocol(case: Case) -> Iterator[str]:
    seen, protocol = set(), case.suite.runs(case.track.name)
    for label, run in case.runs:
        if (run.order, run.seed) not in protocol:
            known = ", ".join(f"{order!r} with {seed}" for order, seed in protocol)
            yield f"{label} is not in the protocol, which has (order with seed) {known}"
        if (run.order, run.seed) in seen:
            yield f"{label} appears twice"
        seen.add((run.order, run.seed))


@check("CLB004")
def _runs_are_complete(case: Case) -> Iterator[str]:
    if case.missing and not case.allow_partial:
        listed = ", ".join(f"order {order!r} seed {seed}" for order, seed in case.missing[:3])
        more = ", ..." if len(case.missing) > 3 else ""
        yield f"partial result, {len(case.missing)} runs are missing ({listed}{more}); only --allow-partial accepts it"


@check("CLB005")
def _partial_says_the_truth(case: Case) -> Iterator[str]:
    if case.result.partial != bool(case.missing):
        yield f"partial is {case.result.partial}, but {len(case.missing)} runs of the protocol are missing"


@check("CLB006")
def _task_orders_are_the_definitions(case: Case) -> Iterator[str]:
    for label, run in case.runs:
        if run.order in case.track.orders:
            expected = tuple(task.name for task in case.track.ordered(run.order))
            if run.task_order != expected:
                yield f"wrong task order in {label}: {list(run.task_order)} instead of {list(expected)}"


@check("CLB007")
def _metrics_are_the_tracks(case: Case) -> Iterator[str]:
    for label, run in case.runs:
        if set(run.scores) != set(case.track.metrics):
            yield f"{label} has scores for {sorted(run.scores)} instead of {sorted(case.track.metrics)}"


@check("CLB008")
def _matrices_have_the_right_shape(case: Case) -> Iterator[str]:
    tasks = len(case.track.tasks)
    for label, metric, rows in case.matrices:
        if [len(row) for row in rows] != [tasks] * (tasks + 1):
            yield f"{metric} of {label} is not a matrix of {tasks + 1} rows and {tasks} columns"


@check("CLB009")
def _scores_are_in_the_metrics_range(case: Case) -> Iterator[str]:
    for label, metric, rows in case.matrices:
        low, high = METRICS[metric].range if metric in METRICS else (-math.inf, math.inf)
        cells = ((i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row) if value is not None)
        wrong = [f"row {i}, column {j} is {value}" for i, j, value in cells if not low <= value <= high]
        if wrong:
            yield f"{metric} of {label} has {len(wrong)} values outside [{low:g}, {high:g}]: {wrong[0]}"


@check("CLB010")
def _seen_tasks_are_measured(case: Case) -> Iterator[str]:
    measured = [case.track.measured(learned) for learned in range(len(case.track.tasks) + 1)]
    for label, metric, rows in case.matrices:
        needed = [row[:count] for row, count in zip(rows, measured, strict=False)]  # of other shapes CLB008 tells
        wrong = [(i, row.index(None)) for i, row in enumerate(needed) if None in row]
        for i, j in wrong[:1]:
            yield f"{metric} of {label} is null in row {i}, column {j}, which every run must measure"


@check("CLB011")
def _base_rows_agree(case: Case) -> Iterator[str]:
    """The base row is drawn once a track, so that it is the same number in every run."""
    first: dict[tuple[str, str], float] = {}
    for label, run in case.readable:
        for metric in case.track.metrics:
            for task, value in zip(run.task_order, run.scores[metric][0], strict=True):
                if value is not None and abs(value - first.setdefault((metric, task), value)) > 1e-6:
                    earlier = first[metric, task]
                    yield f"{metric} of {label}: base score of {task!r} is {value}, in an earlier run it is {earlier}"


@check("CLB012")
def _state_sizes_are_sizes(case: Case) -> Iterator[str]:
    for label, run in case.runs:
        if len(run.state_bytes) != len(case.track.tasks):
            yield f"state_bytes of {label} has {len(run.state_bytes)} entries instead of one a task"
        if any(size < 0 for size in run.state_bytes):
            yield f"state_bytes of {label} has a negative size"
        if any(size > MOST for size in run.state_bytes):
            yield f"state_bytes of {label} has {max(run.state_bytes)}, which cannot be"


@check("CLB013")
def _costs_are_possible(case: Case) -> Iterator[str]:
    for field in ("train_seconds", "eval_seconds", "peak_memory_bytes", "trainable_parameters", "training_passes"):
        values = [(label, getattr(run, field)) for label, run in case.runs]
        wrong = [(label, value) for label, value in values if value is not None and not 0 <= value <= MOST]
        if wrong:
            (label, value), more = wrong[0], f" (and in {len(wrong) - 1} more runs)" if len(wrong) > 1 else ""
            yield f"{field} of {label} is {value}, which cannot be{more}"


@check("CLB014")
def _regime_fits_the_state_sizes(case: Case) -> Iterator[str]:
    """From the second task on, a state that does not grow keeps its size (1 % for headers)."""
    for label, run in case.runs:
        settled = run.state_bytes[1:]
        if run.regime in ("model", "adapter", "constant") and settled and max(settled) > 1.01 * settled[0]:
            yield f"regime of {label} is {run.regime!r}, but its state grows from {settled[0]} to {max(settled)} bytes"


@check("CLB015")
def _controls_are_complete(case: Case) -> Iterator[str]:
    yield from case.control_errors


@check("CLB016")
def _summary_is_what_the_runs_give(case: Case) -> Iterator[str]:
    if case.analysis is None or case.result.schema_version == "1":
        return  # other checks say why; or it is recomputed anyway
    expected, given = case.analysis.result.summary, case.result.summary
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
    return a.n == b.n and abs(a.mean - b.mean) <= 1e-9 and _close(a.std, b.std)


def _close(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= 1e-9


@check("CLB017")
def _file_lies_where_it_says(case: Case) -> Iterator[str]:
    if case.path is None:
        return
    place = case.result.place
    if "/".join(case.path.parts[-3:]) != replicate_place(place, replicate_number(case.path)):
        yield f"the file belongs at submissions/{place}, or beside it at {replicate_place(place, 2)} and so on"


@check("CLB018")
def _content_fits_its_checksum(case: Case) -> Iterator[str]:
    result = case.result
    found = content_sha256(result.suite, result.track, result.variant, result.method, result.runs, result.controls)
    if found != result.checksum:
        yield f"checksum is {result.checksum[:12]}..., but the content has {found[:12]}...: it was edited or damaged"


@check("CLB019")
def _base_row_is_the_known_one(case: Case) -> Iterator[str]:
    """Where it is on record: every method starts from the same public model, so that this row is no method's own."""
    known = on_record(case.suite.name)
    if known is None or known.suite_sha256 != case.suite.sha256:
        return
    for metric, tasks in known.base[case.result.track].items():
        for label, run in case.readable[:1]:  # the others agree with it, or CLB011 says so
            base = zip(run.task_order, run.scores[metric][0], strict=True)
            found = {task: value for task, value in base if value is not None}
            wrong = [one for one in tasks if one in found and abs(found[one] - tasks[one]) > known.base_tolerance]
            if wrong:
                task, more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
                yield f"{metric} of {label}: base score of {task!r} is {found[task]}, on record is {tasks[task]}{more}"


@check("CLB020")
def _texts_are_printable(case: Case) -> Iterator[str]:
    """Those of runs, controls and summary are names that other checks compare with the definition."""
    content = case.result.model_dump(mode="json", exclude={"runs", "controls", "summary"})
    for name, value in content.items():
        yield from unprintable(value, name)


@check("CLB021")
def _file_name_is_portable(case: Case) -> Iterator[str]:
    """A submission's file must fit into a checkout on Windows; names that differ in case alone are CLB025's to find."""
    if case.path is not None and is_device_name(case.result.variant):
        yield f"{case.result.variant!r} is a name that Windows keeps for a device; choose another with --variant"


@check("CLB022")
def _no_run_is_a_copy(case: Case) -> Iterator[str]:
    """Runs train on other tasks at other positions, or from another seed, so that they do not give equal scores."""
    runs, metric = [run for _, run in case.readable], case.track.metrics[0]
    if len({(run.order, run.seed) for run in runs}) < len(case.result.runs):
        return  # other checks say why
    if found := copied_run(runs, metric):
        later, earlier = (case.readable[number][0] for number in found)
        yield f"{metric} of {later} is that of {earlier} but for jitter: one was not measured"


@check("CLB023")
def _controls_are_the_known_ones(case: Case) -> Iterator[str]:
    """Where they are on record: real images and encoders are the suite's, so that they are no method's own."""
    known = on_record(case.suite.name)
    if known is None or known.suite_sha256 != case.suite.sha256 or known.controls is None or case.control_errors:
        return
    recorded = known.controls[case.result.track]
    for field, expected in recorded:
        given = getattr(case.result.controls, field)
        if set(given) != set(expected):
            yield f"controls.{field} has {sorted(given)}, on record are {sorted(expected)}"
            continue
        for metric in expected:
            off = float(np.abs(np.array(given[metric]) - np.array(expected[metric])).max())
            if off > known.base_tolerance:
                yield f"controls.{field}.{metric} differs from what is on record by up to {off:.3g}"


@check("CLB027")
def _probes_are_the_tracks(case: Case) -> Iterator[str]:
    """Leak and drift have the metrics, tasks and prompts of the track."""
    yield from chain.from_iterable(case.probe_errors)


@check("CLB028")
def _training_keeps_to_the_budget(case: Case) -> Iterator[str]:
    """Only a bound takes more passes with a gradient than the suite allows."""
    training = case.suite.training
    most = training.most_passes / training.passes
    for label, run in case.runs:
        if run.training_passes is not None and run.training_passes > most and run.regime != "bound":
            yield f"training_passes of {label} is {run.training_passes:g}, and the suite allows {most:g}"


@check("CLB029")
def _settings_are_those_that_the_search_chose(case: Case) -> Iterator[str]:
    tuning, method = case.result.tuning, case.result.method
    if tuning is None:
        return
    if tuning.track != case.result.track:
        yield f"tuning.track is {tuning.track!r}, but the result is of {case.result.track!r}"
    if tuning.suite.sha256 == case.suite.sha256 and not case.suite.for_development:
        yield f"tuning.suite is {tuning.suite.name!r}, on whose own tasks nothing may be tuned"
    if wrong := outside(tuning.chosen, tuning.space):
        yield f"tuning.chosen: {wrong}"
    for name, value in tuning.chosen.items():
        if method.config.get(name) != value:
            yield f"tuning.chosen.{name} is {value:g}, but the method was run with {method.config.get(name)!r}"
    if others := sorted(set(method.changed_settings) - set(tuning.chosen)):
        yield f"the method's {others[0]} differs from its default, but the search did not choose that"


# CLB024, a copy of another submission, CLB025, its name in other letters, and CLB026, another source or other settings
# than those of the submissions that it lies beside, are in `copies`: they need other results.
