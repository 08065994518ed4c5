"""The markdown page of a track, and of the paper's prompt study."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from clbench.leaderboard.board import Board, apart
from clbench.leaderboard.board_tables import (
    margin_text,
    pairs_table,
    published_table,
    ranked_table,
    study_table,
)
from clbench.leaderboard.data import FORMATS
from clbench.leaderboard.overall import OVERALL_TEXT, Overall, overall_table
from clbench.leaderboard.published import Published
from clbench.leaderboard.tables import code_span, escape, to_markdown
from clbench.results.baselines import PLAIN_TRAINING
from clbench.results.significance import ALPHA, MOST_LISTED, Ranking
from clbench.results.verification import UNVERIFIED
from clbench.scores import STATISTICS
from clbench.utils.formatting import counted, sentence


def board_page(board: Board, path: Path) -> str:
    """The page of a track; `path` is where it will lie, from which its links lead to the sample grids."""
    if not board.methods:
        nothing = f"Nothing was submitted yet: this project has not run {board.suite.name} itself."
        return "\n".join([f"# {board.suite.name}: {board.track.name}", "", nothing, "", *_beside_the_paper(board)])
    suite, track, ranking = board.suite, board.track, board.ranking
    first, statistic = board.metrics[0].label, STATISTICS[board.ranked_by]
    runs = len(suite.runs(track.name))
    *files, last_file = (f"[{one.label}]({track.name}{suffix})" for suffix, one in FORMATS.items())
    seeds = ", a seed each" if track.seeds else f" x {runs // len(track.orders)} seeds"
    lines = [
        f"# {escape(suite.name)}: {escape(track.name)}",
        "",
        f"{len(track.tasks)} tasks in a row; mean ± standard deviation over {runs} runs "
        f"({len(track.orders)} orders{seeds}). **Bold**: nothing is separably better.",
        "",
        to_markdown(ranked_table(board)),
        "",
        f"Ranked by {first} {statistic.label}, the mean over {runs} runs. A rank such as 1–2 says that these methods",
        "cannot be told apart with so many runs; see below.",
        *_about_partial(board),
        *_about_unverified(board),
        *_about_apart(board),
        "",
        "- *Variant*: one configuration of a method; beside it the method, and the settings that differ from its",
        "  defaults.",
        *_legend(board),
        "- *Tuning*: where the settings come from: `default` (the method's own), `tuned` (the best of so many trials",
        "  of `clbench tune`, on a suite for development), `set by hand` (no search is on record).",
        "- *State*: what is handed on after the last task. *Regime*, read off that state: `model` (merged weights",
        "  only), `adapter` (one adapter), `constant` (a constant amount of more), `growing` (grows with the tasks or",
        "  keeps data), `bound` (a bound, not continual).",
        "- *Passes*: U-Net passes with a gradient, in trainings and in what a method adds to them, in multiples of the",
        "  suite's own training.",
        "- *Train s/task*, *Eval s/task*: mean seconds on the machine that made the result, with whatever it did",
        "  beside; do not compare them between rows.",
        f"- *Train ×*: the training time of the method at its defaults, in multiples of that of `{PLAIN_TRAINING}`,",
        "  which adds nothing to a training; both were measured in turn, by `python perf/methods.py`.",
        "- *Verified*: `recomputed` (the summary is what the runs give), `artifacts` (the scores are what the",
        "  submitted images give), `rerun` (a whole run and chosen cells were repeated).",
        "- *Base model*: untouched. *Last-task floor*: real images in the last task's look, scored on the past tasks:",
        "  what a model that only remembers its newest task would get. *Real against real*: real images of each task.",
        *(f"- *{metric.label}*: {metric.description}" for metric in board.metrics),
        "",
        f"Suite `{suite.name}` {escape(suite.version)}, sha256 `{suite.sha256[:12]}`.",
        "",
        *_how_sure(ranking, first, board.ranked_by),
        *_beside_the_paper(board),
        f"The same as {', '.join(files)} and {last_file}.",
        "",
        "## Reproduce",
        "",
        *(f"- `{method.variant}`: {code_span(method.result.command)}" for method in board.methods),
    ]
    grids = {method.variant: board.grids[method.variant] for method in board.methods if method.variant in board.grids}
    if grids:
        lines += ["", "## Samples"]
    for name, grid in grids.items():
        link = Path(os.path.relpath(grid, path.parent)).as_posix()
        lines += ["", f"### `{name}`", "", f"![Samples of {escape(name)} over the tasks](<{link}>)"]
    return "\n".join(lines) + "\n"


def _about_partial(board: Board) -> list[str]:
    """What partial results mean for the table; empty where all are complete."""
    if all(not method.result.partial for method in board.methods):
        return []
    if board.ranked == board.methods:
        return [f"All results are partial: they are ranked on the {counted(board.ranking.runs, 'run')} that all share."]
    return ["Partial results have no rank: their figures are means over the runs that they have."]


def _about_apart(board: Board) -> list[str]:
    """What bounds and methods that are told the task mean for the table; empty where there are none."""
    if not any(map(apart, board.methods)):
        return []
    return [
        "Bounds have no rank. Methods that are told, at sampling, which task is asked for are ranked among themselves "
        "(†). Both stand below the others."
    ]


def _about_unverified(board: Board) -> list[str]:
    """What unverified results mean for the table; empty where all have a rank."""
    if not board.verified_alone or all(board.level(method) != UNVERIFIED for method in board.methods):
        return []
    return ["Unverified results stand below the others, without a rank."]


def _legend(board: Board) -> list[str]:
    """Explain the board's statistics, a line each."""
    statistics = dict.fromkeys(statistic for _, statistic in board.score_columns)
    texts = [f"{_term(one.term)}: {one.legend}." for one in statistics]
    texts.append("In brackets: 95 % t interval of the mean over orders.")
    return [line for text in texts for line in textwrap.wrap(text, 112, initial_indent="- ", subsequent_indent="  ")]


def _term(term: str) -> str:
    """In italics, but for what stands in brackets."""
    name, bracket, rest = term.partition(" (")
    return f"*{name}*{bracket}{rest}"


def _how_sure(ranking: Ranking, metric: str, statistic: str) -> list[str]:
    """The section on the significance of the ranks; empty if there is nothing to compare."""
    if not ranking.pairs:
        return []
    text = (
        f"Paired differences of {metric} {STATISTICS[statistic].label}, averaged over the seeds of an order; "
        f"95 % t intervals over {counted(ranking.orders, 'order')}. {sentence(ranking.test)} "
        f"*Better*: corrected p at most {ALPHA}. "
        f"*Equivalent*: two one-sided t tests at {ALPHA} say that the difference is within "
        f"{margin_text(ranking, statistic)}. *Undecided*: neither. "
        f"*Better on a new order*: the probability that the next order has the same sign, by the t distribution."
    )
    if left_out := ranking.all_pairs - len(ranking.pairs):
        text += f" Listed are the pairs of the best {MOST_LISTED}, each other one with the next; {left_out} are not."
    return [
        "## How sure the ranks are",
        "",
        to_markdown(pairs_table(ranking, statistic)),
        "",
        *textwrap.wrap(text, 112, break_on_hyphens=False),
        "",
    ]


def _beside_the_paper(board: Board) -> list[str]:
    """The paper's table of the track, then the measured rows; empty where nothing was published."""
    if not board.published or not board.printed:
        return []
    return [
        "## Beside the paper",
        "",
        to_markdown(published_table(board.published, board.track.name, board.methods)),
        "",
        "*Published* rows are as printed, and are not ranked: nobody here has checked them. Forgetting, here, is the",
        "mean over all tasks, the last of which adds 0 (`average_forgetting_ref`), as the paper's tables very likely",
        f"have it; the board's own is over the past tasks alone. Source: {board.published.source}.",
        "",
    ]


def overall_page(found: Overall) -> str:
    """The page of a suite's tracks together."""
    lines = [
        f"# {escape(found.suite.name)}: overall",
        "",
        to_markdown(overall_table(found)),
        "",
        *textwrap.wrap(OVERALL_TEXT, 112, break_on_hyphens=False),
        "",
        "The same as [CSV](overall.csv).",
    ]
    return "\n".join(lines) + "\n"


def study_page(suite: str, published: Published) -> str:
    """The paper's prompt study, as printed."""
    lines = [
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
    return "\n".join(lines) + "\n"
