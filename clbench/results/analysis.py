"""A result with all its statistics, computed once for every table, page, ranking and comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.metrics import METRICS, Metric
from clbench.results.schema import Result, Spread
from clbench.results.significance import Ranking, RunKey, over_orders, rank, t_intervals
from clbench.results.summary import RunValues, run_values, spread
from clbench.results.tuning import settings_from
from clbench.scores import INSTEAD, RANKED_BY, STATISTICS, Statistic
from clbench.suite import Track
from clbench.utils.formatting import counted


@dataclass(frozen=True)
class Estimate:
    """A statistic over the runs of one method."""

    spread: Spread
    interval: tuple[float, float] | None
    """95 % t interval of the mean over orders; None for a single order."""


@dataclass(frozen=True, eq=False)
class Analysis(RunValues):
    """A result with all its statistics."""

    result: Result
    """With a summary recomputed from its runs."""
    _estimates: dict[tuple[str, str], Estimate | None] = field(default_factory=dict, repr=False)
    """(metric, statistic) -> estimates that were asked for before."""

    @property
    def variant(self) -> str:
        """The name of the configuration."""
        return self.result.variant

    @property
    def configuration(self) -> str:
        """The method and the settings that differ from its defaults."""
        return self.result.method.configuration

    @property
    def settings_from(self) -> str:
        """Where the settings come from."""
        return settings_from(self.result.tuning, self.result.method.changed_settings)

    @property
    def tuning(self) -> str:
        """The same, with how long a search was: such as "tuned (8 trials)"."""
        searched = self.result.tuning
        return f"tuned ({counted(searched.trials, 'trial')})" if searched else self.settings_from

    @property
    def missing_runs(self) -> str:
        """Which part of the protocol a partial result is, e.g. "partial, 1 run"; "" for a complete one."""
        return f"partial, {counted(len(self.result.runs), 'run')}" if self.result.partial else ""

    @property
    def run_keys(self) -> list[RunKey]:
        """(order, seed) of each run."""
        return [(run.order, run.seed) for run in self.result.runs]

    @property
    def regimes(self) -> list[str]:
        return sorted({run.regime for run in self.result.runs})

    @property
    def regime(self) -> str:
        """All regimes of the runs."""
        return ", ".join(self.regimes)

    @property
    def strict(self) -> bool:
        """Whether all runs hand on no more than merged weights or one adapter, and are told no task."""
        return set(self.regimes) <= {"model", "adapter"} and not self.told_task

    @property
    def is_bound(self) -> bool:
        """Whether it is a bound: not continual, and without a rank."""
        return "bound" in self.regimes

    @property
    def told_task(self) -> bool:
        """Whether the method was told which task's images were to be drawn."""
        return any(run.told_task for run in self.result.runs)

    @property
    def training_passes(self) -> float | None:
        """Mean over the runs of the passes with a gradient, in multiples of the suite's training's; None if unknown."""
        found = [run.training_passes for run in self.result.runs if run.training_passes is not None]
        return float(np.mean(found)) if len(found) == len(self.result.runs) else None

    @property
    def state_bytes(self) -> int:
        """The size of what is handed on after the last task, in the run where it is largest."""
        return max(run.state_bytes[-1] for run in self.result.runs)

    @property
    def train_seconds(self) -> float:
        """Mean seconds of training a task."""
        return self._a_task(sum(run.train_seconds for run in self.result.runs))

    @property
    def eval_seconds(self) -> float:
        """Mean seconds of sampling and scoring a task."""
        return self._a_task(sum(run.eval_seconds for run in self.result.runs))

    def _a_task(self, seconds: float) -> float:
        return seconds / (len(self.result.runs) * len(self.track.tasks))

    def estimate(self, metric: str, statistic: str) -> Estimate | None:
        """A statistic with its interval; None where it is undefined in any run."""
        key = metric, statistic
        if key not in self._estimates:
            found, interval = self.summary[metric].get(statistic), None
            if found and len(values := over_orders(self.statistics[metric][statistic], self.run_keys)) > 1:
                low, high = t_intervals(values[None])[0].tolist()
                interval = low, high
            self._estimates[key] = found and Estimate(found, interval)
        return self._estimates[key]

    def estimates(self) -> Iterator[tuple[Metric, Statistic, Estimate]]:
        """What other registries take: each statistic that is defined in all runs, without the base model's own."""
        for metric in self.summary:
            for statistic in STATISTICS.values():
                if statistic.shown != "control" and (estimate := self.estimate(metric, statistic.name)):
                    yield METRICS[metric], statistic, estimate

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """For each run and position, the task's index in the definition: (runs, T)."""
        index = {name: number for number, name in enumerate(self.track.task_names)}
        return np.array([[index[name] for name in run.task_order] for run in self.result.runs])

    @cached_property
    def means(self) -> dict[str, NDArray[np.float64]]:
        """Metric -> the mean score matrix, (T + 1, T); nan where a run did not measure the cell."""
        return {metric: matrices.mean(axis=0) for metric, matrices in self.matrices.items()}


def analyze(result: Result, track: Track) -> Analysis:
    """Compute all statistics of a result; its runs and controls must be what `check_result` accepts."""
    found = run_values(result.runs, result.controls, track)
    recomputed = result.model_copy(update={"summary": found.file_summary})
    return Analysis(track, found.matrices, found.reals, found.floors, found.statistics, recomputed)


# --- Controls: reference scores to read a method's by ---


@dataclass(frozen=True)
class Control:
    """A row of reference scores beside the methods' own."""

    source: str
    """The part of a result that it is made of."""
    values: Callable[[Analysis, str], Sequence[float] | NDArray[np.float64]]
    """(result, metric) -> its scores: one, or one a run; nan where there are none."""
    varies: bool = False
    """Whether its scores differ from run to run, so that their deviation is shown."""

    def spread(self, methods: Sequence[Analysis], metric: str) -> Spread | None:
        """Mean and deviation of its scores over results."""
        return spread([float(value) for method in methods for value in self.values(method, metric)])


def _floor(method: Analysis, metric: str) -> NDArray[np.float64]:
    past = method.floors[metric][:, :-1]
    return past.mean(axis=1) if past.shape[1] else np.full(len(past), np.nan)


def _real(method: Analysis, metric: str) -> list[float]:
    return [float(np.mean(method.result.controls.real_against_real.get(metric, np.nan)))]


CONTROLS = {
    "base model": Control("row 0", lambda method, metric: method.statistics[metric]["base"]),
    "last-task floor": Control("controls.last_task_floor", _floor, varies=True),
    "real against real": Control("controls.real_against_real", _real),
}
"""The untouched model; real images in the last task's look, scored on the past tasks; each task's real images."""


# --- Rankings ---


FROZEN_BASE = "frozen_base"
"""The method that learns nothing: the untouched model as a row that is ranked."""
EQUIVALENT = 0.05
"""Methods are equivalent if they differ by less than this share of the way from the base model to real images."""


def ranking_statistic(methods: Iterable[Analysis], metric: str) -> str:
    """The statistic by which methods of one track are compared in a metric: Kept, or the average score where a method
    lacks that.
    """
    known = all(np.isfinite(method.statistics[metric][RANKED_BY]).all() for method in methods)
    return RANKED_BY if known else INSTEAD


def rank_methods(methods: Sequence[Analysis], metric: str, statistic: str) -> Ranking:
    """Rank methods of one track by a statistic of a metric, on the runs that all share.

    Raises:
        ClbenchError: they share no run.
    """
    scores = {
        method.variant: dict(zip(method.run_keys, method.statistics[metric][statistic].tolist(), strict=True))
        for method in methods
    }
    shared = set.intersection(*(set(own) for own in scores.values()))
    if not shared:
        raise ClbenchError(f"{', '.join(scores)} share no run (order and seed), so that they cannot be ranked")
    margin = equivalence_margin(methods, metric, statistic)
    better_high = STATISTICS[statistic].prefers_high(METRICS[metric].higher_is_better)
    untouched = next((method.variant for method in methods if method.result.method.name == FROZEN_BASE), None)
    return rank(scores, shared, margin, better_high, untouched)


def equivalence_margin(methods: Sequence[Analysis], metric: str, statistic: str) -> float:
    """The difference below which methods are equivalent: of a share, and of the drift, that number, else in scores.

    It is 0 where real images score no better than the base model.
    """
    if STATISTICS[statistic].unit == "share" or STATISTICS[statistic].of == "drift":
        return EQUIVALENT
    base, real = (CONTROLS[name].spread(methods, metric) for name in ("base model", "real against real"))
    return EQUIVALENT * max(0.0, METRICS[metric].sign * (real.mean - base.mean)) if base and real else 0.0
