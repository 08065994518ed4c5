"""Replicates: several submissions of one variant, with the same source and settings, whose scores are averaged.

Whoever repeats a method's runs adds a file beside the first, `<variant>+2.json`, and replaces nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clbench.results.analysis import Analysis, analyze
from clbench.results.schema import MethodRef, Run, content_sha256, to_rows


def is_replicate(method: MethodRef, first: MethodRef) -> bool:
    """Whether two results are of one method with the same source and the same settings."""
    return method.source_sha256 == first.source_sha256 and method.configured_as(first)


def average(replicates: Sequence[Analysis]) -> Analysis:
    """The mean of results of one variant: each run's score matrices are averaged cell by cell, and its times.

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
    return runs[0].model_copy(update={"scores": scores, **seconds})
