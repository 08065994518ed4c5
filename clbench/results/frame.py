"""All scores of a result as a pandas DataFrame. Nothing else of clbench needs pandas, so that no extra has it."""

from __future__ import annotations

import numpy as np

from clbench.errors import ClbenchError
from clbench.results.schema import Result, score_stack

try:
    from pandas import DataFrame
except ModuleNotFoundError as error:
    raise ClbenchError(f"{error.name} is not installed; this needs `pip install pandas`") from None


def to_frame(result: Result) -> DataFrame:
    """`Result.to_frame`, which says what the columns are."""
    runs, metrics = result.runs, list(result.runs[0].scores)
    scores = np.stack([score_stack(runs, metric) for metric in metrics])  # (metrics, runs, T + 1, T)
    tasks = np.array([run.task_order for run in runs], dtype=object)
    learned = np.concatenate([np.full((len(runs), 1), None), tasks], axis=1)
    # Each column has the axes along which it varies, and is repeated along the others.
    columns = {
        "metric": np.array(metrics, dtype=object)[:, None, None, None],
        "order": np.array([run.order for run in runs], dtype=object)[:, None, None],
        "seed": np.array([run.seed for run in runs])[:, None, None],
        "after": np.arange(scores.shape[2])[:, None],
        "learned": learned[:, :, None],
        "task": tasks[:, None, :],
        "score": scores,
    }
    return DataFrame({name: np.broadcast_to(values, scores.shape).ravel() for name, values in columns.items()})
