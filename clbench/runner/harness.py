"""The whole protocol: results of methods on tracks, with all their sequences.

    result = run(method="merge_init", track="styles", quick=True)
    results = sweep(methods=["naive", "magmax"], tracks=["styles"], workers=2)

Both are the same: what is asked for is prepared and planned as one graph of units, a crew works it off, and each result
is written as soon as its runs are done.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from clbench.errors import ClbenchError, WorkFailed
from clbench.protocol.device import one_thread
from clbench.results.io import save_result
from clbench.results.schema import BackboneRef, Result, SuiteRef, content_sha256
from clbench.results.summary import summarize
from clbench.runner.config import Options
from clbench.runner.engine import Crew, Event, Watcher, work_off
from clbench.runner.engine.inline import Inline
from clbench.runner.engine.local import local
from clbench.runner.estimate import LIBRARIES
from clbench.runner.prepare import Assignment, Prepared, prepare
from clbench.runner.units import SUFFIX, open_workshop, setup_of
from clbench.suite import Weights

STATES = 8 * 2**30
"""Bytes of main memory that a worker with a GPU takes for its states, beside the libraries."""


def run(
    method: str,
    track: str,
    suite: str = "mini-v2",
    *,
    settings: Mapping[str, Any] | None = None,
    watch: Watcher = lambda event: None,
    **options: Any,
) -> Result:
    """Run a method through the protocol and write `<output>/<suite>/<track>/<method>.json`.

    Args:
        settings: the method's hyper-parameters.
        watch: told what happens, as events.
        options: fields of `clbench.runner.config.Options`.

    Raises:
        ClbenchError: bad input. WorkFailed: the work failed; what was finished is kept.
    """
    (result,) = sweep([method], [track], suite, settings={method: settings or {}}, watch=watch, **options)
    return result


def sweep(
    methods: Sequence[str],
    tracks: Sequence[str],
    suite: str = "mini-v2",
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    watch: Watcher = lambda event: None,
    **options: Any,
) -> list[Result]:
    """Run several methods on several tracks, doing equal work once.

    Args:
        settings: method -> its hyper-parameters.
        watch: told what happens, as events.
        options: fields of `clbench.runner.config.Options`.

    Raises:
        ClbenchError: bad input. WorkFailed: a method failed; the others' results are written, and what was finished is
            kept.
    """
    return carry_out(prepare(methods, tracks, suite, settings or {}, Options(**options), watch), watch)


def carry_out(prepared: Prepared, watch: Watcher = lambda event: None) -> list[Result]:
    """Do what was prepared, and write the results.

    Raises:
        WorkFailed: as `sweep`.
    """
    plan = prepared.plan
    with one_thread(prepared.device):
        watch({"event": "plan", "units": len(plan.units), "work": plan.work, "workers": prepared.workers})
        book = _Book(prepared, watch)
        with _crew(prepared) as crew:
            failures = work_off(plan.units, crew, book.watch)
        if failures:
            watch({"event": "stage", "what": "failed"})
            told = list(dict.fromkeys(failure.message for failure in failures.values()))
            more = f" (and {len(told) - 1} more: {'; '.join(told[1:])})" if len(told) > 1 else ""
            kind = WorkFailed if any(failure.exit_code == 1 for failure in failures.values()) else ClbenchError
            raise kind(told[0] + more)
        watch({"event": "stage", "what": "done"})
        return [book.results[assignment.job.name] for assignment in prepared.assignments]


@contextmanager
def _crew(prepared: Prepared) -> Iterator[Crew]:
    """This process where one is enough, else others, here or on the cluster."""
    count, device = prepared.workers, prepared.device
    if count == 1 and prepared.cluster is None and not prepared.jobs[0].deterministic:
        yield Inline(prepared.workshop)
        return
    with setup_of(prepared.workshop) as setup:
        if prepared.cluster is None:
            kind = local(open_workshop, setup, [_surroundings(device, number) for number in range(count)])
        else:
            memory = prepared.expected.device_bytes if device == "cpu" else LIBRARIES + STATES
            kind = prepared.cluster.crew(open_workshop, setup, count, device, memory)
        with kind as crew:
            yield crew


def _surroundings(device: str, number: int) -> dict[str, str]:
    """Environment variables of a worker: one thread of a CPU, or one GPU, which it calls `cuda` as all others do."""
    if device == "cpu":
        return {"OMP_NUM_THREADS": "1"}
    return {"CUDA_VISIBLE_DEVICES": _visible()[number]} if device == "cuda" else {}


def _visible() -> list[str]:
    """The GPUs that this process may use, as the environment variable names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


class _Book:
    """Which results are still open; each is written when its last unit is done."""

    def __init__(self, prepared: Prepared, watch: Watcher) -> None:
        self._prepared, self._tell = prepared, watch
        self.results: dict[str, Result] = {}
        self._open: dict[str, set[str]] = defaultdict(set)
        self._groups = {unit.key: unit.groups for unit in prepared.plan.units}
        for key, groups in self._groups.items():
            for group in groups:
                self._open[group].add(key)
        for number, assignment in enumerate(prepared.assignments):
            if not self._open[assignment.job.name]:
                self._conclude(number, assignment)

    def watch(self, event: Event) -> None:
        """Pass an event on, and see whether it was a result's last."""
        self._tell(event)
        if event["event"] != "end" or event["how"] == "failed":
            return
        for group in self._groups[event["unit"]]:
            self._open[group].discard(event["unit"])
        for number, assignment in enumerate(self._prepared.assignments):
            name = assignment.job.name
            if name in self._groups[event["unit"]] and not self._open[name] and name not in self.results:
                self._conclude(number, assignment)

    def _conclude(self, number: int, assignment: Assignment) -> None:
        result = conclude(self._prepared, number)
        path = result_path(self._prepared.output, result)
        save_result(result, path)
        self.results[assignment.job.name] = result
        self._tell({"event": "result", "path": str(path), "method": result.method.name, "track": result.track})


def conclude(prepared: Prepared, number: int) -> Result:
    """A job's result, from what the store holds."""
    assignment, suite, workshop = prepared.assignments[number], prepared.suite, prepared.workshop
    job, bench = assignment.job, workshop.bench(number)
    for unit in prepared.plan.everything:
        if unit.goal and job.name in unit.groups and not workshop.is_whole(unit):
            place = workshop.store.location_of(workshop.store.path(unit.key, SUFFIX[unit.where["kind"]]))
            raise WorkFailed(f"{place} was removed or damaged meanwhile; run the same command again")
    runs = tuple(sequence.run() for sequence in workshop.sequences(number))
    controls = bench.controls()
    reference = SuiteRef(name=suite.name, version=suite.version, sha256=suite.sha256)
    return Result(
        schema_version="1",
        suite=reference,
        track=job.track,
        method=assignment.method,
        backbone=_backbone(suite.backbone, job.assets.sha256["backbone"]),
        runs=runs,
        controls=controls,
        summary=summarize(runs, controls, bench.track),
        checksum=content_sha256(reference, job.track, assignment.method, runs, controls),
        partial=assignment.partial,
        environment=prepared.environment,
        settings={
            "device": job.device,
            "precision": job.precision,
            "workers": prepared.workers,
            "low_memory": job.low_memory,
            **({"deterministic": True} if job.deterministic else {}),
        },
        command=assignment.command,
        created_at=datetime.now(UTC).replace(microsecond=0),
        submitter=None,
    )


def _backbone(weights: Weights, found: str) -> BackboneRef:
    """The pinned model, or whichever was found where nothing is pinned."""
    return BackboneRef(id=weights.source, revision=weights.sha256 or weights.revision or found)


def result_path(output: Path, result: Result) -> Path:
    """Where `run` puts a result; a partial one gets a name of its own, so that it never replaces a whole one."""
    name = f"{result.method.name}.partial.json" if result.partial else f"{result.method.name}.json"
    return output / result.suite.name / result.track / name
