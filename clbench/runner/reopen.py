"""A finished result's track and sequences, opened again from what the result says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths, default_data_root
from clbench.errors import ClbenchError, UnknownMethod
from clbench.protocol.describe import describe
from clbench.protocol.device import DeviceConfig, default_device, one_thread, prepare_process
from clbench.protocol.method_host import MethodProcess
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.schema import Result
from clbench.runner.plugin_memory import recall_plugin
from clbench.storage.open import open_store
from clbench.suite import load_suite, suite_folder


@contextmanager
def reopen(
    result: Result,
    suite: str | None,
    store: str | Path,
    plugins: Sequence[Path] | None = None,
    device: str | None = None,
    data_root: Path | None = None,
    other_stores: Sequence[str | Path] = (),
) -> Iterator[tuple[TrackRuntime, list[TaskSequence]]]:
    """The track and one sequence a run; within, a CPU has one thread, as the run had, whose keys are looked up.

    Args:
        suite: what `--suite` took; default the result's suite by name.
        store: the folder or URL of the runs'.
        plugins: files with methods; default the one that the store remembers.
        device: default the result's, if it is here, else what is.
        other_stores: stores that may remember the method's plugin too.

    Raises:
        ClbenchError: the suite or the method is not the one that the result was made with.
    """
    name = suite or result.suite.name
    definition = load_suite(name)
    if definition.sha256 != result.suite.sha256:
        raise ClbenchError(f"the result was made with another version of suite {result.suite.name} than {name} is now")
    method = _method_of(result, plugins or recall_plugin(result.method, (store, *other_stores)))
    recorded = str(result.settings.get("device", "cpu"))
    device = device or (recorded if recorded in ("cpu", default_device()) else default_device())
    config = DeviceConfig(
        device=device,
        precision=str(result.settings.get("precision", "fp32")),
        deterministic=bool(result.settings.get("deterministic")) and device != "cpu",
    )
    if result.settings.get("low_memory"):
        config = config.with_low_memory()
    if config.deterministic:
        prepare_process(config)
    assets = resolve_assets(
        definition, name, result.track, AssetPaths(data_root or default_data_root(), suite_folder(name))
    )
    with one_thread(device):
        runtime = TrackRuntime(definition, result.track, open_store(store), config, assets)
        yield runtime, [TaskSequence(runtime, method, run.order, run.seed) for run in result.runs]


def _method_of(result: Result, plugins: Sequence[Path]) -> MethodProcess:
    name = result.method.name
    try:
        found = describe(name, result.method.config, plugins)
    except UnknownMethod:
        raise ClbenchError(f"no method {name!r} is known here; give --plugin FILE, the file that defines it") from None
    if found.reference.source_sha256 != result.method.source_sha256:
        raise ClbenchError(
            f"method {name} ({found.path}) has changed since the result was made; give --plugin with the "
            f"file as it was, or run the method again"
        )
    return MethodProcess(found, result.method.config)


def run_numbered(sequences: Sequence[TaskSequence], number: int) -> TaskSequence:
    """One of a result's runs, counted from 1.

    Raises:
        ClbenchError: it has fewer.
    """
    if not 1 <= number <= len(sequences):
        raise ClbenchError(f"there is no run {number}; this result has runs 1 to {len(sequences)}")
    return sequences[number - 1]
