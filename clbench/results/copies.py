"""Find scores that were copied from other runs or other submissions instead of being measured.

The mean difference of two score matrices, as a share of how much their scores vary, tells copies from measurements. On
`mini-v2` it is above 0.5 between submitted methods, in the metric that they are ranked by, and between a method's runs.
A run that is repeated with other threads, other instructions or another torch is nearer, but it is filed as a replicate
of the submission that it repeats, and replicates are not compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clbench.results.analysis import Analysis
from clbench.results.replicates import is_replicate
from clbench.results.schema import MethodRef, Run, score_stack

COPY_SHARE = 0.05
"""Scores count as copied up to this share of their mean absolute deviation (on `mini-v2`, up to about 0.01).

Where their mean distance from the base model's scores is smaller, that takes its place: methods that learn little are
near each other.
"""
EQUAL = 1e-7
"""Runs of one order may be much alike where little is learned, whatever their seeds: they are copies only if equal."""
UNCHANGED = 0.001
"""Up to this mean difference from the base model's scores, a model has learned nothing."""


def copied_run(runs: Sequence[Run], metric: str) -> tuple[int, int] | None:
    """The indices of a run and of an earlier one that it copies, position by position; None if there are none.

    Runs of other orders learn other tasks at these positions, so that jitter does not hide a copy among them.
    """
    return next(_copies(*_trained_cells(runs, metric, 1), [run.order for run in runs], EQUAL), None)


@dataclass(frozen=True, eq=False)
class Compared:
    """What of a submission is compared with others: small, since each may come from another process."""

    board: tuple[str, str]
    """The suite and the track."""
    variant: str
    method: MethodRef
    metric: str
    """The one that methods are ranked by."""
    scores: NDArray[np.float64]
    """(cells,), in that metric, without those after the first task, whose training methods that begin alike share."""
    base: NDArray[np.float64]
    """The base model's on the same tasks."""


def to_compare(submission: Analysis) -> Compared:
    """What of a complete result is compared with others."""
    result = submission.result
    runs = sorted(result.runs, key=lambda run: (run.order, run.seed))
    board, metric = (result.suite.name, result.track), submission.track.metrics[0]
    scores, base = _trained_cells(runs, metric, first_row=2)
    return Compared(board, result.variant, result.method, metric, scores.ravel(), base.ravel())


def conflicts(submissions: Sequence[Compared]) -> Iterator[tuple[int, str, str]]:
    """(index, code, sentence) for each submission that copies an earlier one, or has its name and is no replicate."""
    boards: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(submissions):
        boards.setdefault(one.board, []).append(index)
    for indices in boards.values():
        methods, names = [submissions[index] for index in indices], dict[str, Compared]()
        for index, method in zip(indices, methods, strict=True):
            first = names.setdefault(method.variant.casefold(), method)
            if (other := first.variant) != method.variant:
                yield index, "CLB025", f"its name differs from {other!r} in case alone, and some disks keep one of them"
            elif not is_replicate(method.method, first.method):
                yield (
                    index,
                    "CLB026",
                    f"its source or settings are not those of the first {other!r}: it needs a name of its own",
                )
        scores, base = (np.array(part) for part in zip(*((own.scores, own.base) for own in methods), strict=True))
        for later, earlier in _copies(scores, base, [method.variant for method in methods], within=-1.0):
            first = methods[earlier]
            sentence = f"{first.metric} is that of {first.variant!r} but for jitter: a copy, or a change without effect"
            yield indices[later], "CLB024", f"{sentence}; submit one"


def _trained_cells(runs: Sequence[Run], metric: str, first_row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores that runs must measure from `first_row` on, and the base model's on the same tasks: (runs, cells)."""
    stack = score_stack(runs, metric)
    rows, columns = np.tril_indices(stack.shape[2])
    rows, columns = rows[rows + 1 >= first_row] + 1, columns[rows + 1 >= first_row]
    return stack[:, rows, columns], stack[:, 0, columns]


def _copies(
    scores: NDArray[np.float64], base: NDArray[np.float64], groups: Sequence[str], within: float
) -> Iterator[tuple[int, int]]:
    """(later, earlier) rows of (n, cells) that are copies; models that learned nothing are alike by design.

    Args:
        groups: of each row; rows of one group may be much alike.
        within: the mean difference up to which two rows of one group are copies.
    """
    named = np.array(groups)
    if not scores.size:
        return
    change = np.abs(scores - base).mean(axis=1)
    learned = change > UNCHANGED
    near = COPY_SHARE * np.minimum(change, np.abs(scores - scores.mean(axis=1, keepdims=True)).mean(axis=1))
    for later in range(1, len(scores)):
        limits = np.where(named[:later] == named[later], within, near[later])
        alike = np.abs(scores[:later] - scores[later]).mean(axis=1) <= limits
        earlier = np.flatnonzero(alike & (learned[:later] | learned[later]))
        if len(earlier):
            yield later, int(earlier[0])
