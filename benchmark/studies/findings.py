"""The tables of docs/findings.md and of README's results, from the submitted results of mini-v2.

    python benchmark/studies/findings.py

writes them into the pages, each between two comments that name it; the text around them is written by hand. A claim
whose methods have no results yet has no row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from clbench.leaderboard import make_boards, read_submissions
from clbench.leaderboard.board import Board
from clbench.leaderboard.site.drawing import series
from clbench.leaderboard.site.plots import bytes_against
from clbench.results.analysis import EQUIVALENT, Analysis
from clbench.results.significance import Difference, corrected_p, differences_of, over_orders
from clbench.results.tuning import load_search, tuning_folder
from clbench.scores import RANKED_BY
from clbench.suite import content_root
from clbench.utils.files import write_text
from clbench.utils.formatting import format_bytes, format_figure, format_p_value, format_percent

PAGES = (content_root() / "docs" / "findings.md", content_root() / "README.md")
SUITE = "mini-v2"
BEST = 8
"""So many of the best methods are in README, beside those of `BESIDE`."""
BESIDE = ("naive", "merge_init", "merge_ortho", "magmax", "frozen_base", "single_task", "joint")


@dataclass(frozen=True)
class Claim:
    """A published claim that one method does better than another."""

    says: str
    arxiv: str
    better: str
    worse: str


CLAIMS = (
    Claim("Merge each adapter and start afresh, rather than go on with one", "2410.04891", "merge_init", "naive"),
    Claim("Keep the larger change, rather than go on with one adapter", "2410.04891", "magmax", "naive"),
    Claim("Half the largest change of all tasks, rather than their sum", "2407.06322", "magmax_final", "merge_init"),
    Claim("An orthogonal start, then a sum of factors, rather than one adapter", "2410.04891", "merge_ortho", "naive"),
    Claim("The orthogonal start, rather than a random one", "2410.04891", "merge_ortho_products", "merge_init"),
    Claim("The same of rows, which is not the paper's", "2410.04891", "merge_ortho_rowspace", "merge_init"),
    Claim("A new random start each task, rather than the same", "2410.04891", "merge_init", "merge_init_fixed_seed"),
    Claim("The previous model as a teacher", "1606.09282", "lwf", "naive"),
    Claim("Pictures that the previous model drew, trained on again", "1705.08690", "self_replay", "naive"),
    Claim("Pictures of earlier tasks, trained on again", "1902.10486", "data_replay", "naive"),
    Claim("Values held by their squared gradients, rather than not", "1612.00796", "ewc", "naive"),
    Claim("Values held by their squared gradients, rather than all alike", "1612.00796", "ewc", "l2_anchor"),
    Claim("Values held by what their way saved", "1703.04200", "si", "naive"),
    Claim("Values held by what outputs depend on", "1711.09601", "mas", "naive"),
    Claim("A new adapter that pays for changing what earlier ones changed", "2304.06027", "c_lora", "naive"),
    Claim("A new A orthogonal to all earlier ones", "2310.14152", "o_lora", "naive"),
    Claim("A part of one orthogonal basis a task", "2312.02432", "orthogonal_adaptation", "task_arithmetic"),
    Claim("Gradients outside earlier tasks' inputs", "2103.09762", "gpm", "naive"),
    Claim("A fixed A outside earlier tasks' inputs", "2404.00228", "inflora", "o_lora"),
    Claim("Elect signs before merging, rather than add", "2306.01708", "ties", "task_arithmetic"),
    Claim("Elect signs before merging, rather than average", "2306.01708", "ties", "running_average"),
    Claim("Drop and rescale before adding", "2311.03099", "dare", "task_arithmetic"),
    Claim("Project each change off the earlier ones, rather than add", "2501.09522", "opcm", "task_arithmetic"),
    Claim("Equal singular values, rather than a plain sum", "2502.04959", "iso_c", "task_arithmetic"),
    Claim("Half way back to the previous model, rather than not", "2312.08977", "coma", "merge_init"),
    Claim("Half way back, each value by its squared gradients", "2312.08977", "cofima", "naive"),
    Claim("A from the last one, made orthogonal, and an average of B", "2512.23017", "slao", "naive"),
    Claim("Magnitude and direction trained apart", "2402.09353", "merge_dora", "merge_init"),
    Claim("A rotation of inputs, rather than an added change", "2306.07280", "merge_oft", "merge_init"),
    Claim("Changes outside the main directions of the base weights", "2510.13003", "oplora", "merge_init"),
    Claim("A fixed A by the gradient, outside what is known", "2601.19659", "keep_lora", "inflora"),
    Claim("Images of the class, drawn by the untouched model", "2208.12242", "prior_preservation", "naive"),
    Claim("No step against pictures of earlier tasks", "1812.00420", "a_gem", "naive"),
)


def main() -> None:
    found = boards()
    for page in PAGES:
        write_text(page, filled(page.read_text(encoding="utf-8"), found))
        print(f"wrote {page}")


def boards() -> list[Board]:
    """The suite's boards."""
    made = make_boards(read_submissions(content_root() / "submissions"))
    return [board for board in made if board.suite.name == SUITE and board.methods]


def filled(text: str, found: Sequence[Board]) -> str:
    """A page with the tables that it has places for, made anew.

    Raises:
        KeyError: there is no table of a place's name.
    """
    variants = _variants(found)
    chosen = [variant for place, variant in enumerate(variants) if place < BEST or variant in BESIDE]
    tables = {
        "all": lambda: methods_table(found, variants),
        "best": lambda: methods_table(found, chosen),
        "bytes": lambda: fronts(found),
        "bytes_of_weights": lambda: fronts(found, without="tokens"),
        "claims": lambda: claims(found),
        "tuned": lambda: tuned(found),
    }
    place = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return place.sub(lambda match: f"{match[1]}\n{tables[match[2]]()}\n\n{match[3]}", text)


def methods_table(found: Sequence[Board], variants: Sequence[str]) -> str:
    """Each variant's learned and kept on each track, with the interval and the rank."""
    rows = []
    for variant in variants:
        own = [_method(board, variant) for board in found]
        known = next(filter(None, own))
        row: list[object] = [f"`{variant}`", known.result.method.family or "–", format_bytes(known.state_bytes)]
        for board, method in zip(found, own, strict=True):
            row += [*_shares(board, method), board.ranks[variant] if method else "–"]
        rows.append(row)
    headings = ["method", "family", "state"]
    for board in found:
        headings += [f"{_label(board)}: learned", "kept (95 % interval)", "rank"]
    return _table(rows, headings)


def fronts(found: Sequence[Board], without: str = "") -> str:
    """The methods that none with as small a state is better than, by size; bounds and maybe a family are left out."""
    rows = []
    for board in found:
        methods = [method for method in board.methods if method.result.method.family != without]
        signs = series([method.variant for method in methods])
        plot = bytes_against(methods, signs, board.metrics[0].name, RANKED_BY)
        assert plot, "complete results have it"
        for method in filter(None, (_method(board, variant) for variant in reversed(plot.on_front))):
            size = format_bytes(method.state_bytes)
            rows.append([board.track.name, f"`{method.variant}`", size, method.regime, _shares(board, method)[1]])
    return _table(rows, ["track", "method", "state", "regime", "kept (95 % interval)"])


def claims(found: Sequence[Board]) -> str:
    """What became of each published claim here, all tested together."""
    tested = [
        (claim, board, row)
        for claim in CLAIMS
        for board in found
        if (row := _difference(board, claim.better, claim.worse)) is not None
    ]
    differences = np.array([row for *_, row in tested])
    results = differences_of(differences, EQUIVALENT, corrected_p(differences))
    return _table(
        [
            [
                claim.says,
                claim.arxiv,
                f"`{claim.better}`, `{claim.worse}`",
                _label(board),
                *_figures(own),
                _became(own),
            ]
            for (claim, board, _), own in zip(tested, results, strict=True)
        ],
        [
            "claim",
            "arXiv",
            "first, second",
            "track",
            "kept, first minus second",
            "95 % interval",
            "p, corrected",
            "here",
        ],
    )


def tuned(found: Sequence[Board]) -> str:
    """What each search chose, and what that keeps beside the defaults, all tested together."""
    rows = [
        (board, method, row)
        for board in found
        for method in board.methods
        if method.result.tuning and (row := _difference(board, method.variant, method.result.method.name)) is not None
    ]
    differences = np.array([row for *_, row in rows])
    results = differences_of(differences, EQUIVALENT, corrected_p(differences))
    shown = []
    for (board, method, _), own in zip(rows, results, strict=True):
        tuning, name = method.result.tuning, method.result.method.name
        assert tuning
        chosen = ", ".join(f"{setting} {value:g}" for setting, value in tuning.chosen.items())
        shown.append(
            [
                f"`{name}`",
                _label(board),
                tuning.trials,
                chosen,
                *(_shares(board, _method(board, variant))[1] for variant in (name, method.variant)),
                *_figures(own),
            ]
        )
    for board in found:
        for search in map(load_search, sorted(tuning_folder().glob(f"{SUITE}-dev/{board.track.name}/*.json"))):
            if not search.chosen:
                kept = _shares(board, _method(board, search.method))[1]
                shown.append([f"`{search.method}`", _label(board), len(search.trials), "the defaults", kept, *"––––"])
    headings = ["method", "track", "trials", "chosen", "kept: default", "tuned", "difference", "95 % interval"]
    return _table(shown, [*headings, "p, corrected"])


def _figures(found: Difference) -> tuple[str, str, str]:
    """A difference, its interval, and p."""
    interval = " to ".join(format_figure(end, True) for end in found.interval or ())
    p = "–" if found.p_corrected is None else format_p_value(found.p_corrected)
    return format_figure(found.difference, True), interval, p


def _became(found: Difference) -> str:
    if found.separable:
        return "held" if found.difference > 0 else "reversed"
    return "no difference" if found.equivalent else "undecided"


def _difference(board: Board, one: str, other: str) -> np.ndarray | None:
    """The differences of Kept, one an order; None where a method has no result."""
    first, second = _method(board, one), _method(board, other)
    if first is None or second is None:
        return None
    assert first.run_keys == second.run_keys, "complete results have the protocol's runs"
    metric = board.metrics[0].name
    rows = first.statistics[metric][RANKED_BY] - second.statistics[metric][RANKED_BY]
    return over_orders(rows, first.run_keys)


def _variants(found: Sequence[Board]) -> list[str]:
    """All variants: the best by the mean of Kept over the tracks first, bounds last.

    On a track where a variant has no result its method's published settings count: else one that ran on the easier
    track alone would stand too high.
    """

    def place(variant: str) -> tuple[bool, float]:
        one = next(method for board in found if (method := _method(board, variant)))
        own = [(board, _method(board, variant) or _method(board, one.result.method.name)) for board in found]
        return one.is_bound, -float(np.mean([_kept(board, method) for board, method in own if method]))

    return sorted({method.variant for board in found for method in board.methods}, key=place)


def _label(board: Board) -> str:
    return f"{board.track.name}, {board.metrics[0].label}"


def _method(board: Board, variant: str) -> Analysis | None:
    return next((method for method in board.methods if method.variant == variant), None)


def _kept(board: Board, method: Analysis) -> float:
    estimate = method.estimate(board.metrics[0].name, RANKED_BY)
    assert estimate
    return estimate.spread.mean


def _shares(board: Board, method: Analysis | None) -> tuple[str, str]:
    """Learned, and kept with its interval."""
    if method is None:
        return "–", "–"
    learned, kept = (method.estimate(board.metrics[0].name, name) for name in ("learned", RANKED_BY))
    assert learned
    assert kept
    interval = " to ".join(map(format_percent, kept.interval or ()))
    return format_percent(learned.spread.mean), f"{format_percent(kept.spread.mean)} ({interval})"


def _table(rows: Sequence[Sequence[object]], headings: Sequence[str]) -> str:
    return tabulate(rows, headings, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
