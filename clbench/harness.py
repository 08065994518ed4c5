"""The whole protocol: one result of all its sequences.

result = run(method="merge_init", track="styles", quick=True)
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError

from clbench.assets import gather
from clbench.bench import default_device
from clbench.cost import Expectation, Memory, check_disk, expect, price_of
from clbench.data import Places, default_root
from clbench.environment import describe
from clbench.errors import ClbenchError, WorkFailed
from clbench.files import write_atomic
from clbench.human import human_time
from clbench.method import Method, get_method, source_of
from clbench.result import BackboneRef, MethodRef, Result, SuiteRef, content_sha256, save_result, summarize
from clbench.suite import Suite, Track, Weights, load_suite, suite_folder
from clbench.workers import Job, Report, helpers, one_thread, open_job, silent, units, work_off

FAR_TOO_LONG = 30 * 86400.0
"""Seconds that nobody waits for a CPU by accident."""


def run(
    method: str,
    track: str,
    suite: str = "mini-v1",
    *,
    orders: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
    quick: bool = False,
    output: str | Path = "runs",
    settings: Mapping[str, Any] | None = None,
    plugins: tuple[Path, ...] = (),
    device: str | None = None,
    precision: str | None = None,
    memory: Memory = "auto",
    keep: Iterable[str] = (),
    data_root: Path | None = None,
    resume: bool = True,
    workers: int | None = None,
    report: Report = silent,
    started: Callable[[float], None] = lambda work: None,
    announce: Callable[[str], None] = lambda sentence: None,
) -> Result:
    """Run a method through the protocol and write `<output>/<suite>/<track>/<method>.json`.

    Args:
        orders, seeds: a part of the protocol; default all. `quick` means the first order and the first seed.
        settings: the method's hyper-parameters.
        device: default CUDA where there is one, else the CPU.
        precision: "fp32" or "bf16" (of the U-Net; adapters stay fp32); default what the suite says.
        memory: "low" saves memory for time (gradient checkpointing, small batches); "auto" does so where it must.
        keep: "states" of all tasks, not only the last; "images", all that are scored, in the store.
        data_root: where the user's own copies of models and data sets lie; default `clbench.data.default_root()`.
        resume: whether work of earlier processes found under `output` counts.
        workers: processes that share the work; on a CPU, where each has one thread, default one a core and two a run.
        started: told the whole amount of work before it begins. report: told how much is done, and what comes next.
        announce: told in a sentence what the run is expected to cost.

    Raises:
        ClbenchError: bad input. WorkFailed: the work failed; what was finished is kept.
    """
    definition = load_suite(suite)
    instance = get_method(method, settings, plugins)
    chosen = definition.track(track)
    order_names = _chosen(list(chosen.orders), orders, "order", quick)
    seed_values = _chosen(list(definition.seeds), seeds, "seed", quick)
    usual = definition.precision or "fp32"
    precision = precision or usual
    for what, value, known in (("precision", precision, ("fp32", "bf16")), ("memory", memory, get_args(Memory))):
        if value not in known:
            raise ClbenchError(f"there is no {what} {value!r} (known: {', '.join(known)})")
    kept = frozenset(keep)
    if unknown := sorted(kept - {"states", "images"}):
        raise ClbenchError(f"--keep takes states and images, not {unknown[0]!r}")
    asked = ["--device", device] if device else []
    asked += ["--precision", precision] if precision != usual else []
    insisted, device = device is not None, device or default_device()
    _check_device(device)
    reference = _reference(instance)
    report(0, "looking at models and data")
    assets = gather(definition, suite, track, Places(data_root or default_root(), suite_folder(suite)))
    folder = Path(output)
    write_atomic(folder / ".writable", lambda path: path.touch())
    (folder / ".writable").unlink(missing_ok=True)  # a command beside us may have been faster
    job = Job(
        suite=definition,
        track=track,
        method=method,
        settings=dict(settings or {}),
        plugins=plugins,
        orders=tuple(order_names),
        seeds=tuple(seed_values),
        store=folder / "store",
        device=device,
        precision=precision,
        assets=assets,
        keep=kept,
    )
    count = _workers(workers, device, len(order_names) * len(seed_values), resume)
    with one_thread(device):
        report(0, "counting what it will cost")
        expected = _expect(job, memory, count, resume)
        if device == "cpu" and not insisted and expected.seconds > FAR_TOO_LONG:
            raise ClbenchError(
                f"there is no GPU here, and on the CPU this takes about {human_time(expected.seconds)}; run it where "
                f"there is one, or give --device cpu to insist"
            )
        announce(str(expected))
        if scarce := check_disk(expected, folder):
            warnings.warn(scarce, stacklevel=2)
    job = job.model_copy(update={"low_memory": expected.low_memory})
    with one_thread(device), _memory_in_one_sentence(device), helpers(job, count - 1):
        bench, sequences = open_job(job, resume)
        pieces = units(bench, sequences, together=count > 1)
        started(sum(unit.work for unit in pieces))
        report(0, "loading the models")
        work_off(bench, pieces, report)
        controls, runs = bench.controls(), [sequence.run() for sequence in sequences]
        environment = describe(device)
    suite_reference = SuiteRef(name=definition.name, version=definition.version, sha256=definition.sha256)
    result = Result(
        schema_version="1",
        suite=suite_reference,
        track=track,
        method=reference,
        backbone=_backbone(definition.backbone, assets.sha256["backbone"]),
        runs=tuple(runs),
        controls=controls,
        summary=summarize(tuple(runs), controls, chosen),
        checksum=content_sha256(suite_reference, track, reference, runs, controls),
        partial=len(runs) < len(chosen.orders) * len(definition.seeds),
        environment=environment,
        settings={"device": device, "precision": precision, "workers": count, "low_memory": expected.low_memory},
        command=_command(method, track, suite, order_names, seed_values, chosen, definition, instance, plugins, asked),
        created_at=datetime.now(UTC).replace(microsecond=0),
        submitter=None,
    )
    save_result(result, result_path(folder, result))
    return result


def _expect(job: Job, memory: Memory, workers: int, resume: bool) -> Expectation:
    """What is left of a job, told from what the store holds."""
    bench, sequences = open_job(job, resume)
    left = sum(unit.work for unit in units(bench, sequences, together=workers > 1) if not unit.done())
    tasks, runs = len(bench.track.tasks), len(sequences)
    cells = tasks + runs * tasks * (tasks + 1) // 2
    return expect(
        price_of(job.suite, job.assets.folders),
        job.suite,
        device=job.device,
        precision=job.precision,
        memory=memory,
        work=left,
        workers=workers,
        runs=runs,
        tasks=tasks,
        images=cells * len(bench.track.eval_prompt_templates) * job.suite.sampling.images_per_prompt,
        keep=job.keep,
    )


@contextmanager
def _memory_in_one_sentence(device: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkFailed(
            f"{device} ran out of memory ({str(error).splitlines()[0][:120]}); what is finished is kept, so run the "
            f"same command with --memory low"
        ) from error


def _backbone(weights: Weights, found: str) -> BackboneRef:
    """The pinned model, or whichever was found where nothing is pinned."""
    return BackboneRef(id=weights.source, revision=weights.sha256 or weights.revision or found)


def result_path(output: Path, result: Result) -> Path:
    """Where `run` puts a result; a partial one gets a name of its own, so that it never replaces a whole one."""
    name = f"{result.method.name}.partial.json" if result.partial else f"{result.method.name}.json"
    return output / result.suite.name / result.track / name


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


def _workers(asked: int | None, device: str, runs: int, resume: bool) -> int:
    """How many processes; more than two a run would wait for its training."""
    if asked is not None and asked < 1:
        raise ClbenchError(f"--workers must be at least 1, not {asked}")
    if not resume or device != "cpu":
        if asked and asked > 1:
            raise ClbenchError("several workers need a CPU, and a store that may be reused (no --no-resume)")
        return 1
    return asked or min(torch.get_num_threads(), 2 * runs)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ClbenchError(f"there is no device {device!r} here: {reason}") from None


def _chosen(known: list[Any], wanted: Iterable[Any] | None, what: str, quick: bool) -> list[Any]:
    if wanted is None:
        return known[:1] if quick else known
    wanted = list(dict.fromkeys(wanted))
    for value in wanted:
        if value not in known:
            raise ClbenchError(f"the protocol has no {what} {value!r} (known: {', '.join(map(str, known))})")
    if not wanted:
        raise ClbenchError(f"no {what} was chosen (known: {', '.join(map(str, known))})")
    return wanted


def _command(
    method: str,
    track: str,
    suite: str,
    orders: list[str],
    seeds: list[int],
    chosen: Track,
    definition: Suite,
    instance: Method,
    plugins: tuple[Path, ...],
    asked: list[str],
) -> str:
    """The command line that makes the same result again; `asked` are options of the machine."""
    words = ["clbench", "run", "--method", method, "--track", track, "--suite", suite]
    if orders != list(chosen.orders):
        words += ["--orders", ",".join(orders)]
    if seeds != list(definition.seeds):
        words += ["--seeds", ",".join(map(str, seeds))]
    defaults = type(instance)().config if not _required(instance) else None
    for name, value in instance.config.model_dump(mode="json").items():
        if defaults is None or getattr(defaults, name) != getattr(instance.config, name):
            words += ["--set", f"{name}={json.dumps(value)}"]
    for plugin in plugins:
        words += ["--plugin", plugin.name]
    return shlex.join(words + asked)


def _required(instance: Method) -> bool:
    return any(field.is_required() for field in type(instance.config).model_fields.values())
