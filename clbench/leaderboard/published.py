"""What the paper printed, beside what was measured here, and never mixed with it.

A suite's `published.json` (arXiv 2410.04891, Tables 1, 2, 4 and 5) lies beside its definition.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from pydantic import ValidationError

from clbench.errors import ClbenchError
from clbench.leaderboard.tables import Cell, Column, Table, to_markdown
from clbench.metrics import METRICS
from clbench.results.schema import Result, Spread
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


def published_pages(folder: Path, suite: str, published: Published, measured: Container[str]) -> dict[Path, str]:
    """The paper's prompt study, and a page for each of its tracks that has no submissions yet."""
    pages = {folder / "prompt-study.md": _study_page(suite, published)}
    for track in published.tracks:
        if track not in measured:
            nothing = f"Nothing was submitted yet: this project has not run {suite} itself."
            lines = [f"# {suite}: {track}", "", nothing, "", *published_section(published, track, [])]
            pages[folder / f"{track}.md"] = "\n".join(lines)
    return pages


def published_section(published: Published, track: str, results: Sequence[Result]) -> list[str]:
    """The paper's table of a track, then the measured rows of the same methods in the same convention."""
    return [
        "## Beside the paper",
        "",
        to_markdown(published_table(published, track, results)),
        "",
        "*Published* rows are as printed, and are not ranked: nobody here has checked them. Forgetting, here, is the",
        "mean over all tasks, the last of which adds 0 (`average_forgetting_ref`), as the paper's tables very likely",
        f"have it; the board's own is over the past tasks alone. Source: {published.source}.",
        "",
    ]


def published_table(published: Published, track: str, results: Sequence[Result] = ()) -> Table:
    """What was printed of a track, then what was measured of the same statistics."""
    printed = published.tracks[track]
    columns = (
        Column("Method", align="left"),
        Column("Source", align="left"),
        *(Column(f"{METRICS[metric].label} score ↑") for metric in printed.metrics),
        *(Column(f"{METRICS[metric].label} forgetting ↓") for metric in printed.metrics),
    )
    rows = [
        (
            Cell("base model") if method == "base" else Cell(method, mark="code"),
            Cell("published", mark="tag", source=published.source),
            *(_printed(row.average_score, metric) for metric in printed.metrics),
            *(_printed(row.average_forgetting or {}, metric) for metric in printed.metrics),
        )
        for method, row in printed.rows.items()
    ]
    rows += [
        (
            Cell(result.method.name, mark="code"),
            Cell("measured", mark="tag", source=result.place),
            *(_measured(result.summary[metric]["average_score"]) for metric in printed.metrics),
            *(_measured(result.summary[metric]["average_forgetting_ref"]) for metric in printed.metrics),
        )
        for result in results
    ]
    return Table(columns, tuple(rows))


def _study_page(suite: str, published: Published) -> str:
    """The paper's prompt study, as printed."""
    return (
        "\n".join(
            [
                f"# {suite}: how prompts name a style",
                "",
                "*Published*, not measured here. Average score and forgetting in the older definitions that this study",
                "used: the mean over all tasks seen, after every task (`average_incremental_score`), and the drop from",
                "a task's first score. Task 1 is the most recently trained.",
                "",
                to_markdown(study_table(published.prompt_study)),
                "",
                f"Source: {published.source}.",
            ]
        )
        + "\n"
    )


def study_table(study: PromptStudy) -> Table:
    """One row a prompt template."""
    columns = (
        Column("Prompt", align="left"),
        *(Column(f"{label} {what}") for label in ("DINO", "CSD") for what in ("score ↑", "forgetting ↓")),
        *(Column(f"CSD, task {number}") for number in range(1, study.tasks + 1)),
    )
    rows = tuple(
        (Cell(row.template, mark="code"), *(Cell(f"{value:.3f}") for value in (*row.dino, *row.csd, *row.csd_per_task)))
        for row in study.rows
    )
    return Table(columns, rows)


def _printed(values: Printed, metric: str) -> Cell:
    mean, std = values.get(metric, (None, None))
    if mean is None:
        return Cell("–")
    return Cell(f"{mean:.3f}", deviation="" if std is None else f"± {std:.3f}")


def _measured(spread: Spread | None) -> Cell:
    return Cell(f"{spread.mean:.3f}", deviation=f"± {spread.std:.3f}") if spread else Cell("–")
