"""From what a user asks for to jobs that can run, a plan and its cost: all that can be refused is refused here.

prepared = prepare(["naive", "magmax"], ["styles"], "mini-v2", {}, Options(quick=True))
prepared.plan.units, prepared.expected.seconds
"""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, get_args

import torch
from pydantic import ValidationError

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import ClbenchError
from clbench.method import Method
from clbench.plugins import get_method, source_of
from clbench.protocol.device import default_device, one_thread
from clbench.results.environment import describe
from clbench.results.schema import Environment, MethodRef
from clbench.runner.config import EngineName, Job, Options
from clbench.runner.engine import Watcher
from clbench.runner.engine.ray import Cluster
from clbench.runner.estimate import LIBRARIES, Expectation, Memory, check_disk, expect, free_memory, price_of
from clbench.runner.plan import Plan, make_plan
from clbench.runner.units import Workshop
from clbench.storage.open import default_store, local_folder
from clbench.suite import Suite, load_suite, suite_folder
from clbench.utils.files import nearest_existing
from clbench.utils.formatting import format_time

FAR_TOO_LONG = 30 * 86400.0
"""Seconds that nobody waits for a CPU by accident."""


@dataclass(frozen=True)
class Assignment:
    """A job, and what its result will say of it."""

    job: Job
    method: MethodRef
    command: str
    partial: bool


@dataclass(frozen=True)
class Prepared:
    """All that is known before the work begins."""

    suite: Suite
    assignments: list[Assignment]
    workshop: Workshop
    plan: Plan
    expected: Expectation
    workers: int
    output: Path
    cluster: Cluster | None
    """None where the work is done on this machine."""
    environment: Environment
    """Where the work is done."""

    @property
    def device(self) -> str:
        return self.assignments[0].job.device

    @property
    def jobs(self) -> list[Job]:
        return [assignment.job for assignment in self.assignments]

    def summary(self) -> dict[str, Any]:
        """The plan, for people and machines."""
        kinds = {kind: self.plan.count(kind) for kind in ("base", "controls", "fit", "train", "score")}
        return {
            "runs": sum(len(job.runs) for job in self.jobs),
            "workers": self.workers,
            "units": {kind: {"all": whole, "to_do": left} for kind, (whole, left) in kinds.items()},
            "shared_units": self.plan.shared,
            "repeated_cells": self.plan.repeated_cells,
            "expected_seconds": self.expected.seconds,
            "expected_disk_bytes": self.expected.disk_bytes,
            "expected_memory_bytes": self.expected.device_bytes,
        }


def prepare(
    methods: Sequence[str],
    tracks: Sequence[str],
    suite: str,
    settings: Mapping[str, Mapping[str, Any]],
    options: Options,
    watch: Watcher = lambda event: None,
) -> Prepared:
    """Check everything, and plan it.

    Args:
        settings: method -> its hyper-parameters.
        watch: told the stages, in sentences.

    Raises:
        ClbenchError: bad input, data that is missing, too little memory or disk, a folder that cannot be written.
    """
    definition = load_suite(suite)
    chosen = [definition.track(track) for track in _all_of(tracks, "track")]
    instances = {name: get_method(name, settings.get(name), options.plugins) for name in _all_of(methods, "method")}
    if unknown := sorted(set(settings) - set(instances)):
        raise ClbenchError(f"settings are given for method {unknown[0]!r}, which is not run")
    usual = definition.precision or "fp32"
    precision = options.precision or usual
    known_values = (
        ("precision", precision, ("fp32", "bf16")),
        ("memory", options.memory, get_args(Memory)),
        ("engine", options.engine, get_args(EngineName)),
    )
    for what, value, known in known_values:
        if value not in known:
            raise ClbenchError(f"there is no {what} {value!r} (known: {', '.join(known)})")
    kept = frozenset(options.keep)
    if unknown := sorted(kept - {"states", "images"}):
        raise ClbenchError(f"--keep takes states and images, not {unknown[0]!r}")
    if options.address and options.engine != "ray":
        raise ClbenchError("--address is of a Ray cluster, and needs --engine ray")
    cluster = Cluster.join(options.address) if options.engine == "ray" else None
    device = cluster.device(options.device) if cluster else _device(options.device or default_device())
    asked = ["--device", options.device] if options.device else []
    asked += ["--precision", precision] if precision != usual else []
    asked += ["--deterministic"] if options.deterministic else []
    asked += ["--memory", "low"] if options.memory == "low" else []
    output, store = Path(options.output), options.store or default_store(options.output)
    if folder := local_folder(store):
        store = str(folder.absolute())  # workers elsewhere have other working folders
    watch({"event": "stage", "what": "looking at models and data"})
    places = AssetPaths(options.data_root or default_data_root(), suite_folder(suite))
    assignments = []
    for track in chosen:
        assets = resolve_assets(definition, suite, track.name, places)
        protocol = definition.runs(track.name)
        runs = _runs(protocol, options)
        for name, instance in instances.items():
            job = Job(
                suite=definition,
                track=track.name,
                method=name,
                settings=dict(settings.get(name, {})),
                plugins=tuple(Path(path).resolve() for path in options.plugins),
                runs=tuple(runs),
                store=store,
                device=device,
                precision=precision,
                assets=assets,
                keep=kept,
                deterministic=options.deterministic and device != "cpu",
            )
            assignments.append(
                Assignment(
                    job=job,
                    method=_reference(instance),
                    command=_command(job, suite, instance, options.plugins, asked),
                    partial=len(runs) < len(protocol),
                )
            )
    for track in chosen:
        _check_writable(output / definition.name / track.name, "--output")
    runs = sum(len(one.job.runs) for one in assignments)
    workers = _workers(options, device, runs, cluster)
    if store.startswith("memory://") and (workers > 1 or cluster):
        raise ClbenchError(
            "--store memory:// is seen by one process alone; give --workers 1, or a store of another kind"
        )
    with one_thread(device):
        watch({"event": "stage", "what": "planning, and counting what it will cost"})
        jobs = [assignment.job for assignment in assignments]
        workshop = Workshop(jobs, options.resume)
        _check_writable(workshop.store.root, "--store")
        plan = make_plan(workshop, together=workers > 1)
        expected = _expect(workshop, plan, options, workers, runs, cluster)
        if expected.low_memory:  # which may be another place in the store
            lower = {"low_memory": True}
            assignments = [replace(one, job=one.job.model_copy(update=lower)) for one in assignments]
            workshop = Workshop([one.job for one in assignments], options.resume)
            plan = make_plan(workshop, together=workers > 1)
            expected = _expect(workshop, plan, replace(options, memory="low"), workers, runs, cluster)
        environment = (cluster.on_a_worker if cluster else _here)(describe, device=device)
    if device == "cpu" and not options.device and expected.seconds > FAR_TOO_LONG:
        raise ClbenchError(
            f"there is no GPU here, and on the CPU this takes about {format_time(expected.seconds)}; run it where "
            f"there is one, or give --device cpu to insist"
        )
    watch({"event": "expect", "what": str(expected), "seconds": expected.seconds, "disk_bytes": expected.disk_bytes})
    if folder and (scarce := check_disk(expected, workshop.store.root)):
        warnings.warn(scarce, stacklevel=2)
    return Prepared(definition, assignments, workshop, plan, expected, workers, output, cluster, environment)


def _expect(
    workshop: Workshop, plan: Plan, options: Options, workers: int, runs: int, cluster: Cluster | None
) -> Expectation:
    """What is left to do will take, measured where it will be done."""
    first, bench = workshop.jobs[0], workshop.bench(0)
    tracks = {job.track: workshop.bench(number).track for number, job in enumerate(workshop.jobs)}
    tasks = len(bench.track.tasks)
    cells = sum(len(track.tasks) for track in tracks.values()) + runs * tasks * (tasks + 1) // 2
    measure = cluster.on_a_worker if cluster else _here
    busy = min(workers, 2 * runs)  # more would wait for its training
    if first.device == "cpu" and not cluster:
        busy = min(busy, os.cpu_count() or 1)
    return measure(
        expect,
        price_of(first.suite, first.assets.folders),
        first.suite,
        device=first.device,
        precision=first.precision,
        memory=options.memory,
        work=plan.work,
        workers=busy,
        sharing=workers if first.device == "cpu" and not cluster else 1,
        runs=runs,
        tasks=tasks,
        images=cells * len(bench.track.eval_prompt_templates) * first.suite.sampling.images_per_prompt,
        keep=first.keep,
    )


def _here(function: Any, *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


def _workers(options: Options, device: str, runs: int, cluster: Cluster | None) -> int:
    """How many processes; more than two a run would wait for its training."""
    asked = options.workers
    if asked is not None and asked < 1:
        raise ClbenchError(f"--workers must be at least 1, not {asked}")
    if not options.resume:
        if (asked or 1) > 1 or cluster:
            raise ClbenchError("several workers need a store that may be reused (no --no-resume)")
        return 1
    if cluster:
        return min(asked or cluster.slots(device), 2 * runs)
    if device == "cpu":
        fitting = max(1, int(free_memory(device) / (1.5 * LIBRARIES)))  # with a model as small as mini-v2's
        return asked or min(torch.get_num_threads(), 2 * runs, fitting)
    if device != "cuda":  # one of them
        if (asked or 1) > 1:
            raise ClbenchError(f"several workers would share {device}; give --device cuda for one worker a GPU")
        return 1
    gpus = torch.cuda.device_count()
    if (asked or 1) > gpus:
        raise ClbenchError(f"{asked} workers need as many GPUs, and {gpus} are here")
    return asked or min(gpus, 2 * runs)


def _check_writable(folder: Path, option: str) -> None:
    try:
        with TemporaryFile(dir=nearest_existing(folder)):
            pass  # the folder itself is made when it is needed: no more than a plan may be asked for
    except OSError as error:
        raise ClbenchError(f"{option} {folder} is no folder that can be written: {error.strerror}") from None


def _device(name: str) -> str:
    """A device that is here; one CPU is like another.

    Raises:
        ClbenchError: it is not here.
    """
    try:
        if torch.device(name).type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("give cpu, cuda, or one of several GPUs as cuda:1")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):
            reason = "give cpu, cuda, or one of several GPUs as cuda:1"
        raise ClbenchError(f"there is no device {name!r} here: {reason}") from None
    return "cpu" if torch.device(name).type == "cpu" else name


def _all_of(names: Sequence[str], what: str) -> list[str]:
    if not names:
        raise ClbenchError(f"no {what} was given")
    return list(dict.fromkeys(names))


def _runs(protocol: list[tuple[str, int]], options: Options) -> list[tuple[str, int]]:
    """The (order, seed) pairs that were asked for, in the protocol's order."""
    orders = _chosen(list(dict.fromkeys(order for order, _ in protocol)), options.orders, "order")
    seeds = _chosen(list(dict.fromkeys(seed for _, seed in protocol)), options.seeds, "seed")
    chosen = [(order, seed) for order, seed in protocol if order in orders and seed in seeds]
    if not chosen:
        raise ClbenchError("the protocol has none of these orders with one of these seeds")
    if options.quick and options.orders is None:
        chosen = [run for run in chosen if run[0] == chosen[0][0]]
    if options.quick and options.seeds is None:
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


def _reference(method: Method) -> MethodRef:
    """What the result will say of the method: made first, so that no run ends with a result that cannot be written."""
    source = source_of(method)
    try:
        return MethodRef(
            name=method.name,
            version=method.version,
            config=method.config.model_dump(mode="json"),
            source_sha256=source.sha256,
            distribution=source.distribution,
        )
    except ValueError as error:  # pydantic's errors are ValueErrors, both ways
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("config",), "msg": str(error)}
        place = f"method {method.name!r} ({source.path}): its {'.'.join(map(str, first['loc']))}"
        raise ClbenchError(f"{place} cannot be recorded in a result: {first['msg']}") from None


def _command(job: Job, suite: str, instance: Method, plugins: Sequence[Path], asked: list[str]) -> str:
    """The command line that makes the same result again; `asked` are options of the machine."""
    words = ["clbench", "run", "--method", job.method, "--track", job.track, "--suite", suite]
    protocol, runs = job.suite.runs(job.track), set(job.runs)
    orders = list(dict.fromkeys(order for order, _ in job.runs))
    if len(orders) < len({order for order, _ in protocol}):
        words += ["--orders", ",".join(orders)]
    if any(order in orders and (order, seed) not in runs for order, seed in protocol):
        words += ["--seeds", ",".join(map(str, dict.fromkeys(seed for _, seed in job.runs)))]
    defaults = type(instance)().config if not _required(instance) else None
    for name, value in instance.config.model_dump(mode="json").items():
        if defaults is None or getattr(defaults, name) != getattr(instance.config, name):
            words += ["--set", f"{name}={json.dumps(value)}"]
    for plugin in plugins:
        words += ["--plugin", plugin.name]
    return shlex.join(words + asked)


def _required(instance: Method) -> bool:
    return any(field.is_required() for field in type(instance.config).model_fields.values())
