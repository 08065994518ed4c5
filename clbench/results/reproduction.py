"""Judge a repetition: whether a submitted result is what its method gives, within the method's own reproducibility.

Two honest trainings of one run differ, and how much depends on suite and method: on `mini-v2` a cell differs by about
1e-4, elsewhere a rounding error grows from task to task until the last cells differ by 0.1 and more. Four figures are
compared in each metric, of which at least one is steady in either case (`judge`): single cells, the rows after the
first three tasks, the average score, and the signed mean over all rows.

The largest differences that were measured between repetitions are taken as standard deviations of a normal
distribution. (They should be the largest of eight values or more: conditions, tracks and metrics. Of four, it is too
small often enough.) A figure may lie as far from zero as it does with a probability of `FALSE_ALARMS`, which all
figures, metrics, runs and cells share equally (Bonferroni). `power` is the probability that an inflated result fails,
and `runs_needed` says how many runs must be repeated to find it. With the reproducibility of `mini-v2`, where the
cells or the means decide, one run is enough. With that of `NOISIEST` one run is just enough where every cell is
inflated, and three are needed where a forger leaves the first three rows as they were measured.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from clbench.results.baselines import on_record
from clbench.results.schema import Result
from clbench.suite import FrozenModel

FALSE_ALARMS = 0.01
"""The probability that an honest result fails, at most."""
ENOUGH_POWER = 0.95
"""The probability of finding an inflated result that a verification should have."""
INFLATION = 0.05
"""The inflation of every score that must be found."""
EARLY_ROWS = 3
"""After so few tasks, differences between trainings have not grown yet."""
ENCODER_NOISE = 1e-4
"""Allowed difference between two machines' encoders on the same images, for suites without a record."""


@dataclass(frozen=True)
class Reproducibility:
    """Standard deviations of differences between two trainings of one run; the largest of metrics and conditions."""

    cell: float
    """In a score of a trained model."""
    early_rows: float
    """Root of the mean square over the scores after the first three tasks."""
    average_score: float
    """In the mean of the last row."""
    run_mean: float
    """In the mean over all rows of a row's mean."""
    floor: float = ENCODER_NOISE
    """No tolerance is smaller: this much may differ with equal weights."""
    source: str = ""
    """Where the figures come from, for people."""

    @classmethod
    def of(cls, result: Result) -> Reproducibility:
        """That of a result's method on its suite.

        A method that was never measured has that of the noisiest one that was; a suite without a record, `NOISIEST`.
        """
        known, name = on_record(result.suite.name), result.method.name
        if known is None or known.suite_sha256 != result.suite.sha256:
            return NOISIEST
        noise = known.noise
        measured = name in noise.cell

        def largest(values: Mapping[str, float], default: float) -> float:
            return values.get(name, max(values.values())) if values else default

        cell, average = largest(noise.cell, 0.0), largest(noise.average_score, 0.0)
        # A mean square is no larger than the largest square, and later rows differ more than earlier ones.
        early, mean = largest(noise.early_rows, cell), largest(noise.run_mean, average)
        source = f"measured for {name}" if measured else "the noisiest method's, since this one was never measured"
        return cls(cell, early, average, mean, known.base_tolerance, source)


NOISIEST = Reproducibility(
    cell=0.2,
    early_rows=0.01,
    average_score=0.115,
    run_mean=0.0113,
    source="the noisiest ever measured, since this suite has no record",
)
"""The noisiest method on a suite that is no longer bundled, between two versions of torch.

There one run's average score had a standard deviation of up to 0.081, its mean over all rows one of 0.008, so that
differences have 1.41 times as much; rows after the first three tasks differed by less than 0.01.
"""


# --- What is repeated ---


@dataclass(frozen=True)
class Sample:
    """What of a result is run again; runs are counted from 1, columns from 0."""

    runs: tuple[int, ...]
    """Runs that are repeated as a whole."""
    cells: tuple[tuple[int, int], ...]
    """(run, column) of scores after the last task, in other runs."""


def draw_sample(runs: int, tasks: int, seed: int, whole: int = 1, cells: int = 3) -> Sample:
    """Choose what is run again.

    Args:
        runs: how many a result has.
        seed: nobody must know it before the result is fixed.
        whole: how many runs are repeated as a whole; all, if there are no more.
        cells: how many scores of the other runs' last rows are repeated.
    """
    source = random.Random(seed)
    chosen = source.sample(range(1, runs + 1), min(whole, runs))
    others = [(run, column) for run in range(1, runs + 1) if run not in chosen for column in range(tasks)]
    return Sample(tuple(sorted(chosen)), tuple(sorted(source.sample(others, min(cells, len(others))))))


# --- What is found ---


class Figure(FrozenModel):
    """One figure of a comparison, in the metric where it is largest."""

    name: str
    metric: str
    value: float
    """Positive where the submitted scores are higher, for those figures that have a sign."""
    tolerance: float

    @property
    def holds(self) -> bool:
        return abs(self.value) <= self.tolerance


class Rerun(FrozenModel):
    """What of a result was trained and scored again, and what came of it."""

    seed: int
    """It chose the runs and cells."""
    seed_given: bool
    """Whether the verifier gave the seed, to repeat a verification, instead of having it drawn."""
    runs: tuple[tuple[str, int], ...]
    """(order, seed) of the runs that were repeated as a whole."""
    cells: tuple[tuple[str, int, str], ...]
    """(order, seed, task) of the scores after the last task of other runs."""
    figures: tuple[Figure, ...]
    reproducibility: str
    """Where the tolerances come from."""
    power: float
    """The probability that this would have found a result whose every score is raised by `INFLATION`, at least."""

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.figures)


def judge(runs: Mapping[str, NDArray], cells: Mapping[str, NDArray], own: Reproducibility) -> list[Figure]:
    """Compare what was submitted with what was found; the result holds if every figure does.

    Args:
        runs: metric -> submitted minus repeated scores of whole runs, (runs, T, T): row = after task 1 to T, nan
            where a task is not learned yet.
        cells: metric -> the same of single cells in the last rows of other runs.
    """
    count, tasks, _ = next(iter(runs.values())).shape
    limits = tolerances(own, count, tasks, len(next(iter(cells.values()), ())), len(runs))
    found: dict[str, list[tuple[float, str]]] = {name: [] for name in limits}
    for metric, differences in runs.items():
        rows = np.nanmean(differences, axis=2)
        values = {
            "largest cell": max(np.nanmax(np.abs(differences)), np.abs(cells[metric]).max(initial=0.0)),
            "early rows": np.nanmean(differences[:, :EARLY_ROWS] ** 2) ** 0.5,
            "average score": max(rows[:, -1], key=abs),
            "signed mean": rows.mean(),
        }
        for name, value in values.items():
            found[name].append((float(value), metric))
    largest = {name: max(values, key=lambda one: abs(one[0])) for name, values in found.items()}
    return [
        Figure(name=name, metric=metric, value=value, tolerance=limits[name])
        for name, (value, metric) in largest.items()
    ]


def tolerances(own: Reproducibility, runs: int, tasks: int, cells: int, metrics: int) -> dict[str, float]:
    """Figure -> the largest accepted absolute value.

    Args:
        runs: how many are repeated as a whole.
        cells: how many single cells are repeated beside them.
    """
    share = FALSE_ALARMS / 4 / metrics
    limits = {
        "largest cell": _quantile(share / (runs * tasks * (tasks + 1) / 2 + cells)) * own.cell,
        "early rows": _quantile(share) * own.early_rows,
        "average score": _quantile(share / runs) * own.average_score,
        "signed mean": _quantile(share) * own.run_mean / runs**0.5,
    }
    return {name: max(own.floor, limit) for name, limit in limits.items()}


def _quantile(probability: float) -> float:
    """How many standard deviations a normal value leaves with that probability, to either side."""
    return -float(ndtri(probability / 2))


# --- What can be found ---


def power(
    own: Reproducibility,
    runs: int,
    tasks: int,
    cells: int = 0,
    metrics: int = 1,
    inflation: float = INFLATION,
    honest_start: bool = False,
) -> float:
    """A lower bound of the probability that an inflated result fails: that of the figure which finds it best.

    Args:
        honest_start: the rows after the first three tasks are as they were measured.
    """
    limits = tolerances(own, runs, tasks, cells, metrics)
    share = max(0.0, 1 - EARLY_ROWS / tasks) if honest_start else 1.0
    deviations = {
        "largest cell": (inflation, own.cell),
        "early rows": (0.0 if honest_start else inflation, own.early_rows),
        "average score": (inflation, own.average_score),
        "signed mean": (share * inflation, own.run_mean / runs**0.5),
    }
    return max(
        float(ndtr((shift - limits[name]) / max(deviation, 1e-12))) for name, (shift, deviation) in deviations.items()
    )


def runs_needed(
    own: Reproducibility, available: int, tasks: int, cells: int = 0, metrics: int = 1, honest_start: bool = False
) -> int | None:
    """The fewest whole runs whose repetition finds an inflated result with enough power; None where all do not."""
    for runs in range(1, available + 1):
        if power(own, runs, tasks, cells, metrics, honest_start=honest_start) >= ENOUGH_POWER:
            return runs
    return None


def how_sure(result: Result, rerun: Rerun) -> str:
    """A sentence on what a repetition can find, and on how many runs would be needed where it is not enough."""
    own, available, tasks = Reproducibility.of(result), len(result.runs), len(result.runs[0].task_order)
    counts, said = (tasks, len(rerun.cells), len(result.runs[0].scores)), []
    for forgery, honest_start in (("every score", False), (f"the scores after task {EARLY_ROWS}", True)):
        if honest_start and tasks <= EARLY_ROWS:
            continue
        found = power(own, len(rerun.runs), *counts, honest_start=honest_start)
        said.append(f"{forgery} raised by {INFLATION} would be found with a probability of {found:.0%}")
        if found < ENOUGH_POWER:
            needed = runs_needed(own, available, *counts, honest_start=honest_start)
            enough = f"--runs {needed}" if needed else f"more than its {available} runs"
            said[-1] += f" ({ENOUGH_POWER:.0%} needs {enough})"
    return "; ".join(said)
