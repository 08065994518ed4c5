"""Replicates: several submissions of one variant, with the same source and settings, whose scores are averaged.

Whoever repeats a method's runs adds a file beside the first, `<variant>+2.json`, and replaces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clbench.results.analysis import Analysis, analyze
from clbench.results.schema import MethodRef, Run, content_sha256, to_rows


def is_replicate(method: MethodRef, first: MethodRef) -> bool:
    """Whether two results are of one method with the same source and the same settings."""
    return method.source_sha256 == first.source_sha256 and method.configured_as(first)


def average(replicates: Sequence[Analysis]) -> Analysis:
    """The mean of results of one variant: each run's scores are averaged cell by cell, and its times.

    All else is the first one's, but that the checksum fits the averaged scores. A single result is returned as it is.
    """
    first = replicates[0].result
    if len(replicates) == 1:
        return replicates[0]
    by_key = [{(run.order, run.seed): run for run in one.result.runs} for one in replicates]
    runs = tuple(_mean_run([own[key] for own in by_key if key in own]) for key in by_key[0])
    checksum = content_sha256(first.suite, first.track, first.variant, first.method, runs, first.controls)
    return analyze(first.model_copy(update={"runs": runs, "checksum": checksum}), replicates[0].track)


def _mean_run(runs: Sequence[Run]) -> Run:
    scores = {metric: to_rows(np.mean([run.matrix(metric) for run in runs], axis=0)) for metric in runs[0].scores}
    seconds = {name: float(np.mean([getattr(run, name) for run in runs])) for name in ("train_seconds", "eval_seconds")}
    probes = {name: _mean_probe([getattr(run, name) for run in runs]) for name in ("leak", "drift")}
    passes = [run.training_passes for run in runs if run.training_passes is not None]
    counted = float(np.mean(passes)) if len(passes) == len(runs) else None
    return runs[0].model_copy(update={"scores": scores, "training_passes": counted, **seconds, **probes})


def _mean_probe(values: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The mean leak or drift, metric by metric; None where a run has none."""
    known = [own for own in values if own]
    if len(known) < len(values):
        return None

    def mean(metric: str) -> Any:
        averaged = np.mean([own[metric] for own in known], axis=0)
        return tuple(map(tuple, averaged.tolist())) if averaged.ndim == 2 else tuple(averaged.tolist())

    return {metric: mean(metric) for metric in known[0]}
