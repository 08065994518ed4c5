"""Find scores that were copied from other runs or other submissions instead of being measured.

The mean difference of two score matrices, as a share of how much their scores vary and of how far they are from the
base model's, tells copies from measurements. On `mini-v2` it is above 0.5 between submitted methods, in the metric that
they are ranked by, and between a method's runs; it is above 0.1 where untrained models learn hardly anything.
A run that is repeated with other threads, other instructions or another torch is nearer, but it takes the place of the
submission that it repeats, so that the two are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clbench.results.analysis import Analysis
from clbench.results.schema import Run, score_stack

COPY_SHARE = 0.05
"""Scores count as copied up to this share of the smaller of both (on `mini-v2`, a mean difference of about 0.01)."""
UNCHANGED = 0.001
"""Up to this mean difference from the base model's scores, a model has learned nothing."""


def copied_run(runs: Sequence[Run], metrics: Sequence[str]) -> tuple[int, int] | None:
    """The indices of a run and of an earlier one that it copies in all metrics; None if there are none.

    Scores are compared position by position, where runs learn other tasks or are trained from another seed.
    """
    return next(_pairs(np.logical_and.reduce([_alike(*_trained_cells(runs, metric, 1)) for metric in metrics])), None)


def conflicts(submissions: Sequence[Analysis]) -> Iterator[tuple[int, str, str]]:
    """(index, code, sentence) for each submission that copies an earlier one, or has its name in other letters.

    The scores after the first task are left out, because methods that begin alike share its training.

    Args:
        submissions: complete results.
    """
    tracks: dict[tuple[str, str], list[int]] = {}
    for index, method in enumerate(submissions):
        tracks.setdefault((method.result.suite.name, method.result.track), []).append(index)
    for indices in tracks.values():
        methods = [submissions[index] for index in indices]
        metric, names = methods[0].track.metrics[0], dict[str, str]()
        for index, method in zip(indices, methods, strict=True):
            other = names.setdefault(method.variant.casefold(), method.variant)
            if other != method.variant:
                yield index, "CLB025", f"its name differs from {other!r} in case alone, and some disks keep one of them"
        each = [_trained_cells(sorted(method.result.runs, key=_order), metric, 2) for method in methods]
        scores, base = (np.array([cells.ravel() for cells in part]) for part in zip(*each, strict=True))
        for later, earlier in _pairs(_alike(scores, base)):
            other = methods[earlier].variant
            sentence = f"{metric} is that of {other!r} but for jitter: a copy, or a change without effect; submit one"
            yield indices[later], "CLB024", sentence


def _order(run: Run) -> tuple[str, int]:
    return run.order, run.seed


def _trained_cells(runs: Sequence[Run], metric: str, first_row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores that runs must measure from `first_row` on, and the base model's on the same tasks: (runs, cells)."""
    stack = score_stack(runs, metric)
    rows, columns = np.tril_indices(stack.shape[2])
    rows, columns = rows[rows + 1 >= first_row] + 1, columns[rows + 1 >= first_row]
    return stack[:, rows, columns], stack[:, 0, columns]


def _alike(scores: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n, n): whether a row of (n, cells) copies an earlier one; models that learned nothing are alike by design."""
    count = len(scores)
    alike = np.zeros((count, count), dtype=bool)
    if not scores.size:
        return alike
    change = np.abs(scores - base).mean(axis=1)
    spread = np.abs(scores - scores.mean(axis=1, keepdims=True)).mean(axis=1)
    near = COPY_SHARE * np.minimum(change, spread)
    learned = change > UNCHANGED
    for later in range(1, count):
        difference = np.abs(scores[:later] - scores[later]).mean(axis=1)
        alike[later, :later] = (difference <= near[later]) & (learned[:later] | learned[later])
    return alike


def _pairs(alike: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(later, earlier) for each row that is alike an earlier one."""
    for later in np.flatnonzero(alike.any(axis=1)):
        yield int(later), int(alike[later].argmax())
