"""Several processes on one store: each takes what is ready, not done, and in nobody's hands.

There is no scheduler: a unit is done when its artifact is in the store, and in hand while somebody holds its lock,
which dies with its owner. So a worker may be killed at any time, two commands may share a store, and the caller alone
ends with the same result. Every CPU worker has one thread, so that the number of workers changes no bit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from clbench.assets import Assets
from clbench.bench import Bench
from clbench.errors import ClbenchError
from clbench.method import get_method
from clbench.sequence import Sequence
from clbench.store import Store
from clbench.suite import Suite

Report = Callable[[float, str], None]
"""`report(done, what)`: the work done so far (in U-Net passes of one image), and what is being done."""


def silent(done: float, what: str) -> None:
    """The report of those who do not watch."""


class Job(BaseModel):
    """All a process needs to know to take part."""

    model_config = ConfigDict(frozen=True)

    suite: Suite
    track: str
    method: str
    settings: dict[str, Any]
    plugins: tuple[Path, ...]
    orders: tuple[str, ...]
    seeds: tuple[int, ...]
    store: Path
    device: str
    precision: str
    assets: Assets
    low_memory: bool = False
    keep: frozenset[str] = frozenset()
    """Of `states` and `images`: what is kept beyond need."""


@dataclass(frozen=True)
class Unit:
    """A piece of work that nobody else needs to see half done."""

    key: str
    """Its artifact's name, and its lock's."""
    label: str
    work: float
    """U-Net passes of one image; a backward pass counts as two."""
    ready: Callable[[], bool]
    done: Callable[[], bool]
    do: Callable[[], object]


def open_job(job: Job, reuse: bool = True) -> tuple[Bench, list[Sequence]]:
    """A job's bench and its sequences, in the protocol's order; no model is loaded yet."""
    bench = Bench(
        job.suite,
        job.track,
        Store(job.store, reuse),
        job.device,
        job.precision,
        job.assets,
        low_memory=job.low_memory,
        keep_states="states" in job.keep,
        keep_images="images" in job.keep,
    )
    method = get_method(job.method, job.settings, job.plugins)
    return bench, [Sequence(bench, method, order, seed) for order in job.orders for seed in job.seeds]


def units(bench: Bench, sequences: list[Sequence], together: bool) -> list[Unit]:
    """The job in pieces, the most wanted first.

    Args:
        together: whether several workers share it. Alone, a state is scored before the next is trained, and few are
            kept at a time; together, training goes ahead, since all scoring waits for it.
    """
    has = bench.store.has
    base_work = len(bench.track.tasks) * bench.cell_work
    found = [
        Unit(
            bench.base_key, "the base model", base_work, _always, lambda: has(bench.base_key, ".json"), bench.base_row
        ),
        Unit(bench.controls_key, "controls", 0.0, _always, lambda: has(bench.controls_key, ".json"), bench.controls),
    ]
    for sequence in sequences:
        positions = range(len(sequence.tasks))
        train = [_train(sequence, position) for position in positions]
        score = [_score(sequence, position) for position in positions]
        found += [*train, *score] if together else [unit for pair in zip(train, score, strict=True) for unit in pair]
    return found


def _always() -> bool:
    return True


def _train(sequence: Sequence, position: int) -> Unit:
    return Unit(
        f"state-{sequence.hashes[position]}",
        f"{sequence.label(position)}: training",
        sequence.bench.train_work,
        lambda: position == 0 or sequence.trained(position - 1),
        lambda: sequence.passed(position),
        lambda: sequence.state(position),
    )


def _score(sequence: Sequence, position: int) -> Unit:
    return Unit(
        f"row-{sequence.hashes[position]}",
        f"{sequence.label(position)}: scoring",
        (position + 1) * sequence.bench.cell_work,
        lambda: sequence.trained(position),
        lambda: sequence.scored(position),
        lambda: sequence.row(position),
    )


def work_off(bench: Bench, pieces: list[Unit], report: Report = silent) -> None:
    """Do units until all are done, here or elsewhere.

    Raises:
        WorkFailed: a unit failed here; one that failed elsewhere is tried here.
    """
    whole = sum(unit.work for unit in pieces)
    while open_units := [unit for unit in pieces if not unit.done()]:  # a state may have been dropped again
        finished = whole - sum(unit.work for unit in open_units)
        waiting = False
        for unit in open_units:
            if not unit.ready():
                continue
            with bench.store.try_lock(unit.key) as mine:
                if mine and not unit.done():
                    report(finished, unit.label)
                    with _watched(bench, unit, finished, report):
                        unit.do()
                    break
            waiting = waiting or not mine
        else:
            if not waiting and not any(unit.done() for unit in open_units):
                return  # what one unit needs was lost after it was made: whoever asks for the result makes it again
            report(finished, "waiting for the other workers")
            time.sleep(0.05)
    report(whole, "done")


@contextmanager
def _watched(bench: Bench, unit: Unit, finished: float, report: Report) -> Iterator[None]:
    """Report a unit's progress for as long as it is done."""
    made = 0.0

    def on_work(passes: float) -> None:
        nonlocal made
        made = min(made + passes, unit.work)
        report(finished + made, unit.label)

    bench.on_work = on_work
    try:
        yield
    finally:
        bench.on_work = lambda passes: None


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """CPU work on one thread for a while: as many processes do more than as many threads, with the same bits."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def helpers(job: Job, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`count` more processes on the job for a while; those that fail are told in a warning, and not needed."""
    with tempfile.TemporaryFile() as complaints:
        started = [_start(job, complaints) for _ in range(count)]
        try:
            yield started
            failed = [process for process in started if process.poll()]
        finally:
            for process in started:
                assert process.stdin
                process.stdin.close()  # the helper's sign to leave
            for process in started:
                process.wait()
        if failed:  # not where the caller failed too, who then says why
            complaints.seek(0)
            lines = complaints.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines and failed[-1].returncode > 0 else "it was killed"
            warnings.warn(f"{len(failed)} of {count} helping processes stopped early: {reason}", stacklevel=3)


def _start(job: Job, complaints: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if job.device == "cpu" else None
    process = subprocess.Popen(
        [sys.executable, "-m", "clbench.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the caller, who then closes our stdin
    )
    assert process.stdin
    process.stdin.write(job.model_dump_json().encode() + b"\n")
    process.stdin.flush()
    return process


def _leave_with_the_caller() -> None:
    sys.stdin.read()  # until the caller closes it, or dies
    os._exit(0)


def main() -> None:
    """A helper: a job on stdin, its artifacts in the store."""
    job = Job.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_caller, daemon=True).start()
    try:
        with one_thread(job.device):
            bench, sequences = open_job(job)
            work_off(bench, units(bench, sequences, together=True))
    except ClbenchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
