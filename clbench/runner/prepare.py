"""From what a user asks for to a plan and its cost: all that can be refused is refused here.

plan = prepare([Variant.of("naive"), Variant.of("magmax")], ["styles"], "mini-v2", RunConfig.of(quick=True))
plan.graph.units, plan.estimate.seconds
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import ClbenchError
from clbench.plugins import get_method
from clbench.protocol.describe import MethodDescription, describe, describe_here
from clbench.protocol.device import DeviceConfig, one_thread
from clbench.protocol.models import Models
from clbench.results.io import load_result
from clbench.results.schema import Environment, MethodRef, unprintable
from clbench.results.tuning import Tuning, check_source, find_search
from clbench.runner.cards import CardForecast, forecast
from clbench.runner.config import RunConfig, RunSpec, SweepSpec
from clbench.runner.engine import Engine, EventHandler
from clbench.runner.engine.inline import InlineEngine
from clbench.runner.engine.local import LocalEngine
from clbench.runner.engine.ray import RayEngine
from clbench.runner.estimate import (
    Machine,
    ResourceEstimate,
    check_disk,
    check_main_memory,
    estimate,
    fit_memory,
    measure_machine,
)
from clbench.runner.executor import UnitExecutor
from clbench.runner.footprint import model_footprint
from clbench.runner.obstacles import Obstacles
from clbench.runner.plan import Plan, make_plan
from clbench.runner.plugin_check import check_plugins
from clbench.runner.unit_kinds import TASK_KINDS, TRACK_KINDS
from clbench.storage.open import default_store, local_folder
from clbench.suite import Suite, load_suite, suite_folder
from clbench.utils.files import nearest_existing
from clbench.utils.formatting import format_time, printable
from clbench.variants import Variant, check_distinct

FAR_TOO_LONG = 30 * 86400.0
"""Seconds that nobody waits for a CPU by accident."""


@dataclass(frozen=True)
class ExecutionPlan:
    """All that is known before the work begins."""

    sweep: SweepSpec
    executor: UnitExecutor
    """This process's own, which reads the results back."""
    graph: Plan
    estimate: ResourceEstimate
    engine: Engine
    workers: int
    output: Path
    environment: Environment
    """Where the work is done."""
    obstacles: Obstacles
    """Why the work could not begin; there are none but in a dry run."""
    cards: tuple[CardForecast, ...] = ()
    """What the work would take on common GPUs; only in a dry run of a suite that is for GPUs."""

    def summary(self) -> dict[str, Any]:
        """The plan, for people and machines."""
        return {
            "runs": sum(len(spec.runs) for spec in self.sweep.specs),
            "workers": self.workers,
            "units": {kind: self.graph.count(kind) for kind in (*TRACK_KINDS, *TASK_KINDS)},
            "shared_units": self.graph.shared,
            "repeated_cells": self.graph.repeated_cells,
            "expected_seconds": self.estimate.seconds,
            "expected_disk_bytes": self.estimate.disk_bytes,
            "expected_memory_bytes": self.estimate.device_bytes,
            **({"cards": [card.summary() for card in self.cards]} if self.cards else {}),
            **self.obstacles.summary(),
        }


def prepare(
    variants: Sequence[Variant],
    tracks: Sequence[str],
    suite: str,
    config: RunConfig,
    on_event: EventHandler = lambda event: None,
    *,
    models: Models | None = None,
    measure: Callable[[str, str], Machine] = measure_machine,
    dry_run: bool = False,
    last_row_only: bool = False,
) -> ExecutionPlan:
    """Check everything, and plan it.

    Args:
        variants: configurations of methods, each with a name of its own.
        on_event: called with the stages and the estimate, in sentences.
        models: models of the suite that are loaded already.
        measure: (device, precision) -> what is measured where the work is done.
        dry_run: whether the plan is only looked at. Then models and data may be missing, and what would stop the work
            is in the plan's `obstacles`.
        last_row_only: whether to score after each run's last task alone.

    Raises:
        ClbenchError: bad input, data that is missing, too little memory or disk, a folder that cannot be written, or
            that holds a result of another configuration of that name, a tuned variant without a tuning file that fits.
        WorkFailed: a method of a plugin file fails the check of its hooks.
    """
    definition = load_suite(suite)
    if not tracks:
        raise ClbenchError("no track was given")
    chosen = [definition.track(track).name for track in dict.fromkeys(tracks)]
    variants = check_distinct(variants)
    configured = [(track, *_configured(one, definition, track, config)) for track in chosen for one in variants]
    on_event({"event": "stage", "what": "looking at models and data"})
    places = AssetPaths(config.data_root or default_data_root(), suite_folder(suite))
    obstacles = Obstacles(tell=dry_run)
    assets = obstacles.assets(definition, suite, chosen, places)
    specs = [_spec(definition, suite, *configuration, config) for configuration in configured]
    for track in chosen:
        check_writable(config.output / definition.name / track, "--output")
    for spec in specs:
        _check_place(config.output / definition.name / spec.track, spec)
    store = config.store or default_store(config.output)
    if folder := local_folder(store):
        store = str(folder.absolute())  # workers elsewhere have other working folders
        check_writable(folder, "--store")

    engine: Engine = RayEngine.join(config.address) if config.engine == "ray" else LocalEngine()
    device = engine.device(config.device)
    runs = sum(len(spec.runs) for spec in specs)
    workers = engine.workers(config.workers, 2 * runs, device) if config.resume else 1  # more would wait for training
    wanted = DeviceConfig(
        device=device,
        precision=config.precision or definition.precision or "fp32",
        deterministic=config.deterministic and device != "cpu",
    )
    if workers == 1 and config.engine == "local" and not wanted.deterministic:  # which is set for a whole process
        engine = InlineEngine()
    if store.startswith("memory://") and not isinstance(engine, InlineEngine):
        raise ClbenchError(
            "--store memory:// is seen by one process alone; give --workers 1, or a store of another kind"
        )
    busy = min(workers, 2 * runs, engine.slots(device))
    sharing = engine.sharing(workers, device)
    with one_thread(device):
        on_event({"event": "stage", "what": "planning, and counting what it will cost"})
        footprint = model_footprint(definition, assets[chosen[0]].folders, wanted.precision)
        machine = engine.measure(measure, device, wanted.precision)
        fitted = wanted.with_low_memory()
        with obstacles.noted():
            fitted = fit_memory(footprint, definition, wanted, config.memory, machine.free_memory, sharing)
        with obstacles.noted():
            check_main_memory(footprint, fitted, machine.free_main_memory, sharing)
        sweep = SweepSpec(
            suite=definition,
            specs=tuple(specs),
            assets=assets,
            plugins=tuple(path.resolve() for path in config.plugins),
            store=store,
            config=fitted,
            keep=config.keep,
            in_process=config.debug,
            last_row_only=last_row_only,
        )
        executor = UnitExecutor(sweep, config.resume, models)
        if config.check:
            check_plugins(executor, engine, on_event)
        graph = make_plan(executor, together=workers > 1)
        expected = estimate(
            footprint,
            sweep,
            machine,
            work=graph.work,
            training=graph.training_work,
            workers=busy,
            sharing=sharing,
        )
    with obstacles.noted():
        if device == "cpu" and not config.device and expected.seconds > FAR_TOO_LONG:
            raise ClbenchError(
                f"there is no GPU here, and on the CPU this takes about {format_time(expected.seconds)}; run it where "
                f"there is one, or give --device cpu to insist"
            )
    on_event({"event": "expect", "what": str(expected), "seconds": expected.seconds, "disk_bytes": expected.disk_bytes})
    with obstacles.noted():
        if folder and (scarce := check_disk(expected, executor.store.root)):
            warnings.warn(scarce, stacklevel=2)
    environment = machine.environment
    on_gpus = dry_run and definition.precision == wanted.precision == "bf16"
    cards = forecast(footprint, sweep, graph.work, graph.training_work) if on_gpus else ()
    return ExecutionPlan(
        sweep, executor, graph, expected, engine, workers, config.output, environment, obstacles, cards
    )


def _described(variant: Variant, config: RunConfig) -> MethodDescription:
    """A variant's method, which this process imports only for a debugger."""
    if config.debug:
        return describe_here(get_method(variant.method, variant.settings, config.plugins), config.plugins)
    return describe(variant.method, variant.settings, config.plugins)


def _configured(
    variant: Variant, definition: Suite, track: str, config: RunConfig
) -> tuple[Variant, MethodDescription, Tuning | None]:
    """A variant with its settings on a track, its method, and the search that chose the settings, if one did."""
    if not variant.tuned:
        return variant, _described(variant, config), None
    search = find_search(variant.method, definition, track, config.tuning)
    check_source(search, _described(Variant.of(variant.method), config).reference.source_sha256)
    tuned = Variant.of(variant.method, search.chosen, variant.name)
    return tuned, _described(tuned, config), search.record


def _spec(
    definition: Suite,
    suite: str,
    track: str,
    variant: Variant,
    method: MethodDescription,
    tuning: Tuning | None,
    config: RunConfig,
) -> RunSpec:
    """One variant on one track."""
    protocol = definition.runs(track)
    runs, reference = chosen_runs(protocol, config), method.reference
    return RunSpec(
        track=track,
        variant=variant,
        runs=tuple(runs),
        method=method,
        command=_command(definition, suite, track, variant.name, reference, runs, config),
        partial=len(runs) < len(protocol),
        tuning=tuning,
    )


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written, or made.

    Raises:
        ClbenchError: it cannot.
    """
    try:
        with TemporaryFile(dir=nearest_existing(folder)):
            pass  # the folder itself is made when it is needed: no more than a plan may be asked for
    except OSError as error:
        raise ClbenchError(f"{option} {folder} is no folder that can be written: {error.strerror}") from None


def _check_place(folder: Path, spec: RunSpec) -> None:
    """Refuse to replace the result of another configuration; an edited plugin's replaces its older one."""
    for path in (folder / f"{spec.variant.name}.json", folder / f"{spec.variant.name}.partial.json"):
        try:
            before = load_result(path).method
        except ClbenchError:  # there is none, or what is there is no result
            continue
        if not before.configured_as(spec.reference):
            there = printable(before.configuration)
            raise ClbenchError(
                f"{path} has the name {spec.variant.name!r}, but another configuration: {there} there, "
                f"{spec.reference.configuration} here; give this one another name with --variant, or remove the file"
            )


def chosen_runs(protocol: list[tuple[str, int]], config: RunConfig) -> list[tuple[str, int]]:
    """The (order, seed) pairs that were asked for, in the protocol's order."""
    orders = _chosen(list(dict.fromkeys(order for order, _ in protocol)), config.orders, "order")
    seeds = _chosen(list(dict.fromkeys(seed for _, seed in protocol)), config.seeds, "seed")
    chosen = [(order, seed) for order, seed in protocol if order in orders and seed in seeds]
    if not chosen:
        raise ClbenchError("the protocol has none of these orders with one of these seeds")
    if config.quick and config.orders is None:
        chosen = [run for run in chosen if run[0] == chosen[0][0]]
    if config.quick and config.seeds is None:
        chosen = list({order: (order, seed) for order, seed in reversed(chosen)}.values())[::-1]
    return chosen


def _chosen(known: list[Any], wanted: Iterable[Any] | None, what: str) -> list[Any]:
    if wanted is None:
        return known
    wanted = list(dict.fromkeys(wanted))
    for value in wanted:
        if value not in known:
            raise ClbenchError(f"the protocol has no {what} {value!r} (known: {', '.join(map(str, known))})")
    if not wanted:
        raise ClbenchError(f"no {what} was chosen (known: {', '.join(map(str, known))})")
    return wanted


def _check_printable(content: Any, what: str) -> None:
    for sentence in unprintable(content, what):
        raise ClbenchError(f"{sentence}, so that it cannot be recorded in a result")


def _command(
    definition: Suite,
    suite: str,
    track: str,
    variant: str,
    method: MethodRef,
    runs: Sequence[tuple[str, int]],
    config: RunConfig,
) -> str:
    """The command line that makes the same result again."""
    words = ["clbench", "run", "--method", method.name, "--track", track, "--suite", suite]
    words += ["--variant", variant] if variant != method.name else []
    protocol, chosen = definition.runs(track), set(runs)
    orders = list(dict.fromkeys(order for order, _ in runs))
    if len(orders) < len({order for order, _ in protocol}):
        words += ["--orders", ",".join(orders)]
    if any(order in orders and (order, seed) not in chosen for order, seed in protocol):
        words += ["--seeds", ",".join(map(str, dict.fromkeys(seed for _, seed in runs)))]
    for name, value in method.changed_settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    for plugin in config.plugins:
        words += ["--plugin", plugin.name]
    words += ["--device", config.device] if config.device else []
    usual = definition.precision or "fp32"
    words += ["--precision", config.precision] if config.precision not in (None, usual) else []
    words += ["--deterministic"] if config.deterministic else []
    words += ["--memory", "low"] if config.memory == "low" else []
    command = shlex.join(words)
    _check_printable(command, f"the command (--suite {suite!r}, --plugin {[str(path) for path in config.plugins]})")
    return command
