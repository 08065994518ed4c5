"""A suite's tracks together: the mean Kept over tracks and headline metrics, ranked like a track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clbench.leaderboard.board import Board
from clbench.leaderboard.tables import Cell, Column, Table
from clbench.metrics import METRICS
from clbench.results.analysis import EQUIVALENT, FROZEN_BASE
from clbench.results.significance import Ranking, over_orders, rank, t_intervals
from clbench.scores import RANKED_BY
from clbench.suite import Suite
from clbench.utils.formatting import format_percent


@dataclass(frozen=True)
class Overall:
    """The variants that have complete results on every track of a suite, ranked by their mean Kept."""

    suite: Suite
    columns: tuple[tuple[str, str], ...]
    """(track, headline metric): what the mean is over, all with the same weight."""
    kept: dict[str, np.ndarray]
    """Variant -> Kept, (columns, orders)."""
    configurations: dict[str, str]
    """Variant -> the method and the settings that differ from its defaults."""
    ranking: Ranking


def overall(boards: Sequence[Board]) -> Overall | None:
    """The overall ranking of one suite's boards; None where no two variants have Kept on every track, in orders that
    all tracks share by name.

    A variant counts if it is one configuration on all tracks.
    """
    suite = boards[0].suite
    if len(boards) < len(suite.tracks):
        return None
    own = [{method.variant: method for method in board.ranked if not method.result.partial} for board in boards]
    orders = [order for order in boards[0].track.orders if all(order in board.track.orders for board in boards)]
    columns = [(board.track.name, metric) for board in boards for metric in board.track.headline_metrics]
    kept, configurations = {}, {}
    for variant in sorted(set(own[0]).intersection(*own)):
        methods = [found[variant] for found in own]
        if not all(one.result.method.configured_as(methods[0].result.method) for one in methods):
            continue
        rows = []
        for method, board in zip(methods, boards, strict=True):
            known = list(dict.fromkeys(order for order, _ in method.run_keys))
            places = [known.index(order) for order in orders]
            for metric in board.track.headline_metrics:
                rows.append(over_orders(method.statistics[metric][RANKED_BY], method.run_keys)[places])
        values = np.array(rows)
        if np.isfinite(values).all():
            kept[variant], configurations[variant] = values, methods[0].configuration
    if len(kept) < 2 or not orders:
        return None
    scores = {
        variant: {(order, 0): float(value) for order, value in zip(orders, values.mean(axis=0), strict=True)}
        for variant, values in kept.items()
    }
    runs = [(order, 0) for order in orders]
    untouched = next((name for name in kept if own[0][name].result.method.name == FROZEN_BASE), None)
    return Overall(suite, tuple(columns), kept, configurations, rank(scores, runs, EQUIVALENT, True, untouched))


def by_suite(boards: Sequence[Board]) -> list[list[Board]]:
    """The boards of each suite."""
    names = dict.fromkeys(board.suite.name for board in boards)
    return [[board for board in boards if board.suite.name == name] for name in names]


def overall_table(found: Overall) -> Table:
    """Rank, variant, mean Kept with its interval over orders, and Kept in each column; the best are bold."""
    columns = (
        Column("Rank"),
        Column("Variant", align="left"),
        Column("Method, settings", align="left"),
        Column("Overall kept ↑"),
        *(Column(f"{track} {METRICS[metric].label} kept") for track, metric in found.columns),
    )
    rows = []
    for standing in found.ranking.standings:
        values = found.kept[standing.method]
        note = ""
        if values.shape[1] > 1:
            note = " to ".join(map(format_percent, t_intervals(values.mean(axis=0)[None])[0].tolist()))
        name = found.configurations[standing.method]
        above = found.ranking.above
        if above is not None and standing.method not in above and name != FROZEN_BASE:
            name += "; not separably above the untouched model"
        best = "best" if standing.best == 1 else ""
        rows.append(
            (
                Cell(standing.rank),
                Cell(standing.method, mark="code"),
                Cell(name),
                Cell(format_percent(standing.mean), standing.mean, mark=best, note=note),
                *(Cell(format_percent(value), value) for value in values.mean(axis=1).tolist()),
            )
        )
    return Table(columns, tuple(rows))


OVERALL_TEXT = (
    "Overall is the mean of Kept over the tracks and their headline metrics, with equal weights. Kept is the share "
    "of the way from the untouched model to real images that past tasks keep after the last one. In brackets: the 95 % "
    "t interval over orders, which the tracks share by name. Ranks are made as on the tracks' boards. Bold: nothing is "
    "separably better."
)
"""What the overall table says."""
