"""The input of the checks of a result: the result, its suite's definition, and its statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clbench.metrics import METRICS
from clbench.results.analysis import Analysis, analyze
from clbench.results.schema import Result, Rows, Run
from clbench.suite import Suite, Track


@dataclass(frozen=True)
class Case:
    """A result that is checked; the fields are what `check_result` takes."""

    result: Result
    suite: Suite
    allow_partial: bool = False
    path: Path | None = None

    @property
    def track(self) -> Track:
        return self.suite.tracks[self.result.track]

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """The runs, each with what messages call it."""
        return [
            (f"run {number} (order {run.order!r}, seed {run.seed})", run)
            for number, run in enumerate(self.result.runs, start=1)
        ]

    @property
    def matrices(self) -> Iterator[tuple[str, str, Rows]]:
        """(run, metric, rows) of every score matrix."""
        return ((label, metric, rows) for label, run in self.runs for metric, rows in run.scores.items())

    @property
    def missing(self) -> list[tuple[str, int]]:
        """(order, seed) of the protocol's runs that the result lacks."""
        have = {(run.order, run.seed) for run in self.result.runs}
        return [run for run in self.suite.runs(self.track.name) if run not in have]

    @cached_property
    def readable(self) -> list[tuple[str, Run]]:
        """The runs whose tasks and matrices have the form and range that arithmetic needs."""
        probed = zip(self.runs, self.probe_errors, strict=True)
        return [(label, run) for (label, run), errors in probed if not errors and self._is_readable(run)]

    def _is_readable(self, run: Run) -> bool:
        tasks = len(self.track.tasks)
        matrices = {metric: run.scores.get(metric, ()) for metric in self.track.metrics}
        return (
            sorted(run.task_order) == sorted(self.track.task_names)
            and all([len(row) for row in rows] == [tasks] * (tasks + 1) for rows in matrices.values())
            and all(in_range(metric, rows) for metric, rows in matrices.items())
        )

    @cached_property
    def probe_errors(self) -> list[list[str]]:
        """For each run a sentence for each thing that is wrong with its leak and its drift."""
        return [self._probe_errors(label, run) for label, run in self.runs]

    def _probe_errors(self, label: str, run: Run) -> list[str]:
        track, errors = self.track, []
        tasks, prompts = len(track.tasks), len(track.drift.prompts) if track.drift else 0
        leak = set(track.headline_metrics if track.leak_prompt_templates else ())
        drift = set(track.drift.metrics if track.drift else ())
        pairs, cosines = run.leak or {}, run.drift or {}
        if set(pairs) != leak or any(len(row) != tasks for pair in pairs.values() for row in pair):
            errors.append(f"leak of {label} has {sorted(pairs)}, but needs 2 rows of {tasks} scores for {sorted(leak)}")
        elif not all(in_range(metric, pair) for metric, pair in pairs.items()):
            errors.append(f"leak of {label} has scores that its metrics cannot give")
        if set(cosines) != drift or any(len(own) != prompts for own in cosines.values()):
            errors.append(f"drift of {label} has {sorted(cosines)}, but needs {prompts} cosines for {sorted(drift)}")
        elif any(not -1 <= value <= 1 + 1e-6 for own in cosines.values() for value in own):
            errors.append(f"drift of {label} has values that are no cosines")
        return errors

    @cached_property
    def control_errors(self) -> list[str]:
        """A sentence for each thing that is wrong with the controls."""
        errors, tasks, metrics = [], len(self.track.tasks), self.track.metrics
        headline = set(self.track.headline_metrics)
        real, floor = self.result.controls.real_against_real, self.result.controls.last_task_floor
        for field, values in (("real_against_real", real), ("last_task_floor", floor)):
            if not headline <= set(values) <= set(metrics):
                errors.append(f"controls.{field} has {sorted(values)}, but needs {sorted(headline)}")
        for metric in metrics:
            row, rows = real.get(metric), floor.get(metric)
            scores = "scores from {:g} to {:g}".format(*METRICS[metric].range)
            if row is not None and (len(row) != tasks or not in_range(metric, row)):
                errors.append(f"controls.real_against_real.{metric} is not {tasks} {scores}")
            if rows is None:
                continue
            if [len(own) for own in rows] != [tasks] * tasks or not in_range(metric, rows):
                errors.append(f"controls.last_task_floor.{metric} is not {tasks} x {tasks} {scores}")
            elif row is not None and len(row) == tasks and not np.allclose(np.diag(rows), row, 0, 1e-6):
                errors.append(f"the diagonal of controls.last_task_floor.{metric} differs from real_against_real")
        return errors

    @cached_property
    def analysis(self) -> Analysis | None:
        """The result with its statistics; None if the runs or the controls do not have the form that these need."""
        fit = len(self.readable) == len(self.result.runs) and not self.control_errors
        return analyze(self.result, self.track) if fit else None


def in_range(metric: str, scores: Sequence[float] | Rows) -> bool:
    """Whether all scores that were measured are ones that the metric can give; rows must be equally long."""
    low, high = METRICS[metric].range
    values = np.array(scores, dtype=float)
    return not ((values < low) | (values > high)).any()
