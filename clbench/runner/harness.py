"""The whole protocol: results of methods on tracks, with all their sequences.

    result = run(method="merge_init", track="styles", quick=True)
    results = sweep(["naive", "magmax"], tracks=["styles"], workers=2)

Both are the same: what is asked for is prepared and planned as one graph of units, workers do it, and each result is
written as soon as its runs are done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

from clbench.errors import ClbenchError, WorkFailed
from clbench.protocol.device import one_thread
from clbench.protocol.models import Models
from clbench.protocol.rows import read_controls, read_run
from clbench.protocol.sandbox.client import fork_server
from clbench.results.io import save_result
from clbench.results.schema import BackboneRef, Result, SuiteRef, content_sha256
from clbench.results.summary import summarize
from clbench.runner.config import RunConfig, RunOptions, RunSpec
from clbench.runner.engine import Event, EventHandler, Failed, PoolRequest, execute
from clbench.runner.estimate import LIBRARIES
from clbench.runner.executor import executor_setup, open_executor
from clbench.runner.monitor.events import print_output
from clbench.runner.monitor.progress import progress_lines
from clbench.runner.plugin_memory import remember_plugins
from clbench.runner.prepare import ExecutionPlan, prepare
from clbench.suite import Weights
from clbench.utils.output import uncaptured
from clbench.variants import Variant

Outcome = TypeVar("Outcome")
"""What is known of a variant on a track once its work is done."""

STATES = 8 * 2**30
"""Bytes of main memory that a worker with a GPU takes for its states, beside the libraries."""


def run(
    method: str,
    track: str,
    suite: str = "mini-v2",
    *,
    settings: Mapping[str, Any] | None = None,
    variant: str | None = None,
    on_event: EventHandler | None = None,
    models: Models | None = None,
    **options: Unpack[RunOptions],
) -> Result:
    """Run a method through the protocol and write `<output>/<suite>/<track>/<variant>.json`.

    Args:
        settings: the method's hyper-parameters.
        variant: a name for this configuration of the method; default the method's.
        on_event: as `sweep` takes it.
        models: models of the suite that are loaded already, on the same device; default they are loaded.
        options: fields of `clbench.runner.config.RunConfig`, which describes them.

    Raises:
        ClbenchError: bad input. WorkFailed: the work failed; what was finished is kept.
    """
    chosen = Variant.of(method, settings, variant)
    (result,) = sweep([chosen], [track], suite, on_event=on_event, models=models, **options)
    return result


def sweep(
    variants: Sequence[str | Variant],
    tracks: Sequence[str],
    suite: str = "mini-v2",
    *,
    on_event: EventHandler | None = None,
    models: Models | None = None,
    **options: Unpack[RunOptions],
) -> list[Result]:
    """Run several variants of methods on several tracks, doing equal work once.

    Args:
        variants: methods with their default settings by name, or configurations.
        on_event: called with what happens, as events; by default what methods print goes to stderr, and in a notebook
            the progress too.
        models: as `run` takes them.
        options: fields of `clbench.runner.config.RunConfig`, which describes them.

    Raises:
        ClbenchError: bad input. WorkFailed: a method failed; the others' results are written, and what was finished is
            kept.
    """
    config = RunConfig.of(**options)
    chosen = [Variant.of(one) if isinstance(one, str) else one for one in variants]
    with uncaptured() if config.debug else nullcontext():
        plan = prepare(chosen, tracks, suite, config, on_event or print_output, models=models)
        with nullcontext(on_event) if on_event else progress_lines(plan.graph.units) as handler:
            return carry_out(plan, handler)


def carry_out(plan: ExecutionPlan, on_event: EventHandler = print_output) -> list[Result]:
    """Do what was planned, and write the results.

    Raises:
        WorkFailed: as `sweep`.
    """
    results, failures = attempt(plan, on_event, lambda spec: write_result(plan, spec, on_event))
    refuse_failures(failures)
    return [results[spec.name] for spec in plan.sweep.specs]


def attempt(
    plan: ExecutionPlan, on_event: EventHandler, conclude: Callable[[RunSpec], Outcome]
) -> tuple[dict[str, Outcome], dict[str, Failed]]:
    """Do what was planned: (outcomes, failures) by `RunSpec.name`.

    Args:
        conclude: called when all work of a variant on a track is done; gives its outcome.
    """
    graph = plan.graph
    remember_plugins(plan.executor.store, plan.sweep)
    with one_thread(plan.sweep.config.device):
        on_event({"event": "plan", "units": len(graph.units), "work": graph.work, "workers": plan.workers})
        collector = OutcomeCollector(plan, on_event, conclude)
        failures: dict[str, Failed] = {}
        if graph.units:  # else no worker need be started
            with plan.engine.start(pool_request(plan)) as pool:
                failures = execute(graph.units, pool, collector.on_event)
        on_event({"event": "stage", "what": "failed" if failures else "done"})
        return collector.outcomes, failures


def refuse_failures(failures: Mapping[str, Failed]) -> None:
    """Say what failed, if anything did.

    Raises:
        WorkFailed: something did. ClbenchError: the user can mend all of it.
    """
    if failures:
        messages = list(dict.fromkeys(failure.message for failure in failures.values()))
        first = next(iter(failures.values()))
        more = f" (and {len(messages) - 1} more: {'; '.join(messages[1:])})" if len(messages) > 1 else ""
        kind = WorkFailed if any(failure.exit_code == 1 for failure in failures.values()) else ClbenchError
        raise kind(messages[0] + more) from first.cause


def pool_request(plan: ExecutionPlan) -> PoolRequest:
    """What the plan's engine needs to start its workers."""
    device, memory = plan.sweep.config.device, plan.estimate.device_bytes
    return PoolRequest(
        executor=plan.executor,
        open_executor=open_executor,
        at_start=None if plan.sweep.in_process else fork_server,
        setup=lambda: executor_setup(plan.executor),
        workers=plan.workers,
        device=device,
        memory=memory if device == "cpu" else LIBRARIES + STATES,
    )


class OutcomeCollector(Generic[Outcome]):
    """Concludes each variant on each track when its last unit is done."""

    def __init__(self, plan: ExecutionPlan, on_event: EventHandler, conclude: Callable[[RunSpec], Outcome]) -> None:
        self._plan, self._on_event, self._conclude = plan, on_event, conclude
        self.outcomes: dict[str, Outcome] = {}
        self._open: dict[str, set[str]] = defaultdict(set)
        self._groups = {unit.key: unit.groups for unit in plan.graph.units}
        for key, groups in self._groups.items():
            for group in groups:
                self._open[group].add(key)
        for spec in plan.sweep.specs:
            if not self._open[spec.name]:
                self.outcomes[spec.name] = conclude(spec)

    def on_event(self, event: Event) -> None:
        """Pass an event on, and see whether it was an outcome's last."""
        self._on_event(event)
        if event["event"] != "end" or event["how"] == "failed":
            return
        groups = self._groups[event["unit"]]
        for group in groups:
            self._open[group].discard(event["unit"])
        for spec in self._plan.sweep.specs:
            if spec.name in groups and not self._open[spec.name] and spec.name not in self.outcomes:
                self.outcomes[spec.name] = self._conclude(spec)


def write_result(plan: ExecutionPlan, spec: RunSpec, on_event: EventHandler) -> Result:
    """Read a result back, and write its file.

    Raises:
        WorkFailed: a part was removed or damaged meanwhile, or the file cannot be written.
    """
    result = read_result(plan, spec)
    path = result_path(plan.output, result)
    save_result(result, path)
    names = {"variant": result.variant, "method": result.method.name, "track": result.track}
    on_event({"event": "result", "path": str(path), **names})
    return result


def read_result(plan: ExecutionPlan, spec: RunSpec) -> Result:
    """The result of one variant on one track, from what the store holds.

    Raises:
        WorkFailed: a part was removed or damaged meanwhile.
    """
    sweep, executor = plan.sweep, plan.executor
    runtime, suite, config = executor.runtime(spec.track), sweep.suite, sweep.config
    runs = tuple(read_run(sequence) for sequence in executor.sequences(spec))
    controls = read_controls(runtime)
    reference = SuiteRef(name=suite.name, version=suite.version, sha256=suite.sha256)
    return Result(
        schema_version="2",
        suite=reference,
        track=spec.track,
        variant=spec.variant.name,
        method=spec.reference,
        backbone=_backbone(suite.backbone, runtime.assets.sha256["backbone"]),
        runs=runs,
        controls=controls,
        summary=summarize(runs, controls, runtime.track),
        checksum=content_sha256(reference, spec.track, spec.variant.name, spec.reference, runs, controls),
        partial=spec.partial,
        environment=plan.environment,
        settings={
            "device": config.device,
            "precision": config.precision,
            "workers": plan.workers,
            "low_memory": config.gradient_checkpointing,
            **({"deterministic": True} if config.deterministic else {}),
            **({"debug": True} if sweep.in_process else {}),
        },
        command=spec.command,
        created_at=datetime.now(UTC).replace(microsecond=0),
        submitter=None,
        tuning=spec.tuning,
    )


def _backbone(weights: Weights, found: str) -> BackboneRef:
    """The pinned model, or whichever was found where nothing is pinned."""
    return BackboneRef(id=weights.source, revision=weights.sha256 or weights.revision or found)


def result_path(output: Path, result: Result) -> Path:
    """The file of a result; a partial one has a name of its own, so that it never replaces a complete one."""
    name = f"{result.variant}.partial.json" if result.partial else f"{result.variant}.json"
    return output / result.suite.name / result.track / name
