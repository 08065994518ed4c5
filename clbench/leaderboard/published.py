"""The paper's printed results (arXiv 2410.04891, Tables 1, 2, 4 and 5), shown beside measured ones, never among them.

They are in a suite's `published.json`, beside its definition.
"""

from __future__ import annotations

from pydantic import ValidationError

from clbench.errors import ClbenchError
from clbench.suite import FrozenModel, content_root

Printed = dict[str, tuple[float, float | None]]
"""Metric -> mean and standard deviation, as printed."""


class PublishedRow(FrozenModel):
    average_score: Printed
    average_forgetting: Printed | None
    """In the released code's convention: the mean over all tasks, the last of which adds 0."""


class PublishedTrack(FrozenModel):
    metrics: tuple[str, ...]
    rows: dict[str, PublishedRow]
    """Method -> its row; `base` is the untouched model."""


class StudyRow(FrozenModel):
    """One prompt template of the paper's Tables 4 and 5."""

    template: str
    dino: tuple[float, float]
    """Average score, forgetting."""
    csd: tuple[float, float]
    csd_per_task: tuple[float, ...]
    """The most recently trained task first."""


class PromptStudy(FrozenModel):
    tasks: int
    rows: tuple[StudyRow, ...]


class Published(FrozenModel):
    """The paper's results."""

    source: str
    tracks: dict[str, PublishedTrack]
    prompt_study: PromptStudy


def load_published() -> dict[str, Published]:
    """Suite -> what was published in its setting, for the suites that have a `published.json`.

    Raises:
        ClbenchError: a file does not fit the schema.
    """
    found = {}
    for path in sorted((content_root() / "benchmark").glob("*/published.json")):
        try:
            found[path.parent.name] = Published.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise ClbenchError(f"{path}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None
    return found
