"""What methods add to a training: `python perf/methods.py [--methods ewc,opcm] [--suite mini-v2] [--record]`.

Trains a track's tasks in a row by each method at its defaults, in one thread, and after every second of them a task by
merge_init, which adds nothing to a training: the ratio of the mean times a task holds on other machines, and beside
other work, better than seconds do. Nothing is drawn or scored. merge_init's own row tells the noise. With `--record`
the ratios go into the suite's `record.json`, from where the boards take them (`Train ×`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tabulate import tabulate

from clbench.plugins import get_method, list_methods, source_of
from clbench.protocol.device import DeviceConfig, prepare_process
from clbench.protocol.models import Models
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.baselines import PLAIN_TRAINING, TrainingTime, on_record, record_path
from clbench.results.environment import describe_machine
from clbench.storage.store import Store
from clbench.suite import load_suite
from clbench.utils.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="names with commas between; default all")
    parser.add_argument("--suite", default="mini-v2")
    parser.add_argument("--track", default="styles")
    parser.add_argument("--plugin", type=Path, nargs="*", default=[], help="files of other methods")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; default one a core")
    parser.add_argument("--record", action="store_true", help="write into the suite's record.json")
    chosen = parser.parse_args()
    if chosen.record and on_record(chosen.suite) is None:
        parser.error(f"--record: there is no {record_path(chosen.suite)}")
    names = chosen.methods.split(",") if chosen.methods else list(list_methods(chosen.plugin))
    processor, rows, times = describe_machine().processor, [], {}
    columns = (TextColumn("trained by {task.completed:.0f} of {task.total:.0f} methods"), TimeElapsedColumn())
    with (
        ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool,
        Progress(*columns, TimeRemainingColumn()) as progress,
    ):
        shown = progress.add_task("", total=len(names))
        asked = {pool.submit(seconds_a_task, name, chosen.suite, chosen.track, chosen.plugin): name for name in names}
        for future in as_completed(asked):
            name, (own, plain) = asked[future], future.result()
            rows.append((name, own, plain, own / plain))
            progress.advance(shown)
            times[name] = TrainingTime(
                source_sha256=source_of(get_method(name, plugins=chosen.plugin)).sha256,
                multiple=round(own / plain, 3),
                at=datetime.now(UTC).replace(microsecond=0),
                processor=processor,
            )
            if chosen.record:
                record(chosen.suite, times)
    print(tabulate(sorted(rows), ["method", "s a task", f"s of {PLAIN_TRAINING}", "ratio"], floatfmt=".2f"))


@cache
def models(suite: str) -> Models:
    """The models, loaded once in a process, which computes in one thread."""
    prepare_process(DeviceConfig())
    return Models(load_suite(suite), DeviceConfig(), {})


def seconds_a_task(name: str, suite: str, track: str, plugins: list[Path]) -> tuple[float, float]:
    """Mean seconds of training a task by a method, and by `PLAIN_TRAINING` in between."""
    with tempfile.TemporaryDirectory() as folder:
        own, plain = (
            TaskSequence(
                TrackRuntime(load_suite(suite), track, Store(Path(folder) / place), models=models(suite)),
                get_method(method, plugins=plugins),
                *load_suite(suite).runs(track)[0],
            )
            for place, method in (("own", name), ("plain", PLAIN_TRAINING))
        )
        _ = models(suite).backbone  # loaded before the clock starts
        for position in range(len(own.tasks)):
            own.state(position)
            if position % 2 == 0:
                plain.state(position // 2)
        times = [own.stored_cost(position).train_seconds for position in range(len(own.tasks))]
        plain_times = [plain.stored_cost(position).train_seconds for position in range((len(own.tasks) + 1) // 2)]
    return float(np.mean(times)), float(np.mean(plain_times))


def record(suite: str, times: dict[str, TrainingTime]) -> None:
    """Put methods' times into a suite's record, in place of older ones."""
    known = on_record(suite)
    assert known
    kept = known.model_copy(update={"training_times": dict(sorted({**known.training_times, **times}.items()))})
    write_text(record_path(suite), json.dumps(kept.model_dump(mode="json", exclude_unset=True), indent=1) + "\n")


if __name__ == "__main__":
    main()
