"""Boards: a track's analyzed results with their ranking, controls and verification; every table and page shows one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from clbench.leaderboard.published import Published, PublishedTrack
from clbench.metrics import METRICS, Metric
from clbench.results.analysis import CONTROLS, FROZEN_BASE, Analysis, rank_methods, ranking_statistic
from clbench.results.baselines import on_record
from clbench.results.per_task import error_over_tasks
from clbench.results.replicates import average
from clbench.results.schema import Spread
from clbench.results.significance import Ranking
from clbench.results.verification import LEVELS, UNVERIFIED, Verification, status
from clbench.scores import INSTEAD, STATISTICS, Statistic, shown
from clbench.suite import Suite, Track, load_suite

Record = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, eq=False)
class Board:
    """One track's results, measured and published."""

    suite: Suite
    track: Track
    methods: tuple[Analysis, ...] = ()
    """Best first, those without a rank last."""
    published: Published | None = None
    """The paper's results in the suite's setting."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Variant -> how far its result was verified; missing = unverified."""
    grids: Mapping[str, Path] = field(default_factory=dict)
    """Variant -> the image with its sample grid, if it has one."""
    replicates: Mapping[str, int] = field(default_factory=dict)
    """Variant -> how many submissions its row is the mean of; missing = 1."""
    verified_alone: bool = False
    """Whether only verified results are ranked, above the others."""
    _rankings: dict[tuple[str, str], Ranking] = field(default_factory=dict, init=False, repr=False)
    """(metric, statistic) -> rankings that were asked for before."""

    @property
    def folder(self) -> str:
        """`<suite>/<track>`; both names are checked to be safe in a path and in a link."""
        return f"{self.suite.name}/{self.track.name}"

    @property
    def metrics(self) -> list[Metric]:
        """The track's metrics. Methods are ranked by the first one."""
        return [METRICS[name] for name in self.track.metrics]

    @cached_property
    def score_columns(self) -> list[tuple[Metric, Statistic]]:
        """The columns of statistics: those of the headline metrics that any method has, drift, and secondary metrics'
        scores.
        """
        drift = self.track.drift.metrics if self.track.drift else ()
        headline = [METRICS[name] for name in self.track.headline_metrics]
        columns = [(metric, one) for one in shown() if one.of != "drift" for metric in headline]
        columns += [(METRICS[name], STATISTICS["drift"]) for name in drift]
        columns += [(metric, STATISTICS[INSTEAD]) for metric in self.metrics if metric.secondary]
        return [
            (metric, one)
            for metric, one in columns
            if not one.optional or any(method.summary.get(metric.name, {}).get(one.name) for method in self.methods)
        ]

    @property
    def printed(self) -> PublishedTrack | None:
        """The paper's results of this track."""
        return self.published.tracks.get(self.track.name) if self.published else None

    @cached_property
    def ranked(self) -> tuple[Analysis, ...]:
        """The complete results, ranked on all runs; where there are none, the partial ones, on the runs they share.

        Bounds and methods that are told the task are not among them, unless there are no others. Where only verified
        results are ranked, those of them that are verified, if any is.
        """
        return self._best_known(self._together or self.methods)

    @cached_property
    def ranked_apart(self) -> tuple[Analysis, ...]:
        """In the same way, the methods that are told the task: ranked among themselves."""
        told = [method for method in self.methods if method.told_task and not method.is_bound]
        return self._best_known(told) if told and self._together else ()

    @property
    def _together(self) -> list[Analysis]:
        return [method for method in self.methods if not apart(method)]

    def _best_known(self, methods: Sequence[Analysis]) -> tuple[Analysis, ...]:
        complete = tuple(method for method in methods if not method.result.partial) or tuple(methods)
        return tuple(filter(self._is_verified_enough, complete)) or complete

    def _is_verified_enough(self, method: Analysis) -> bool:
        return not self.verified_alone or self.level(method) != UNVERIFIED

    @cached_property
    def ranking(self) -> Ranking:
        """The board's ranking; there must be methods."""
        return self._ranking(self.metrics[0].name, self.ranked_by)

    @cached_property
    def ranked_by(self) -> str:
        """The statistic of the track's first metric by which methods are ranked."""
        return self.compared_by(self.metrics[0].name)

    def compared_by(self, metric: str) -> str:
        """The statistic of a metric that says which methods are better in it."""
        return ranking_statistic(self.ranked, metric)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Metric -> its ranking. The first is the board's; the others say how sure differences in that metric are.

        Empty where there are no methods.
        """
        if not self.methods:
            return {}
        return {metric.name: self._ranking(metric.name, self.compared_by(metric.name)) for metric in self.metrics}

    def unbeaten(self, metric: str, statistic: str) -> frozenset[str]:
        """The variants that no other is separably better than, by a statistic of a metric; empty if it is undefined."""
        if not any(map(self._defined(metric, statistic), self.ranked)):
            return frozenset()
        ranking = self._ranking(metric, statistic)
        return frozenset(standing.method for standing in ranking.standings if standing.best == 1)

    def _ranking(self, metric: str, statistic: str) -> Ranking:
        """The ranking by a statistic of a metric, of the methods that have it in all runs."""
        key = metric, statistic
        if key not in self._rankings:
            known = list(filter(self._defined(metric, statistic), self.ranked))
            self._rankings[key] = rank_methods(known, metric, statistic)
        return self._rankings[key]

    @staticmethod
    def _defined(metric: str, statistic: str) -> Callable[[Analysis], bool]:
        return lambda method: bool(np.isfinite(method.statistics[metric][statistic]).all())

    def remark(self, method: Analysis) -> str:
        """What a row says beside the method's configuration, e.g. that it is partial, or not above the base model."""
        above, count = self.ranking.above, self.replicates.get(method.variant, 1)
        says = [method.missing_runs, "" if self._is_verified_enough(method) else "unverified, no rank", apart(method)]
        says += [f"mean of {count} submissions"] if count > 1 else []
        if above is not None and method in self.ranked and method.result.method.name != FROZEN_BASE:
            says.append("" if method.variant in above else "not separably above the untouched model")
        return "; ".join(filter(None, says))

    @cached_property
    def ranks(self) -> dict[str, str]:
        """Variant -> its rank, such as "1–2", or "–" where it has none: partial beside complete ones, or unverified."""
        ranks = {standing.method: standing.rank for standing in self.ranking.standings}
        if self.ranked_apart:
            told = rank_methods(self.ranked_apart, self.metrics[0].name, self.ranked_by)
            ranks |= {standing.method: f"†{standing.rank}" for standing in told.standings}
        return {
            method.variant: ranks.get(method.variant, "–") if self._is_verified_enough(method) else "–"
            for method in self.methods
        }

    @cached_property
    def controls(self) -> dict[str, dict[str, Spread | None]]:
        """Control -> metric -> its score over all results."""
        return {
            name: {metric: control.spread(self.methods, metric) for metric in self.track.metrics}
            for name, control in CONTROLS.items()
        }

    def level(self, method: Analysis) -> str:
        """How far the method's result was verified."""
        return self.levels.get(method.variant, UNVERIFIED)

    def training_multiple(self, method: Analysis) -> float | None:
        """What the method takes to train a task, in multiples of `PLAIN_TRAINING`; None where that is not on record.

        It is not made of the results' seconds, which are of machines that may have done other work beside.
        """
        known = on_record(self.suite.name)
        if known is None or known.suite_sha256 != self.suite.sha256:
            return None
        return known.training_multiple(method.result.method.source_sha256)

    @cached_property
    def records(self) -> list[Record]:
        """The board as plain data: one flat record a method; a statistic that is undefined is None."""
        return [self._record(method) for method in self.methods]

    @cached_property
    def control_records(self) -> list[Record]:
        """The controls as plain data: their mean scores, and their deviations where they differ from run to run."""
        return [
            {
                "variant": name,
                **{f"{metric}.{INSTEAD}.mean": own.mean if own else None for metric, own in found.items()},
                **{
                    f"{metric}.{INSTEAD}.std": own.std for metric, own in found.items() if own and CONTROLS[name].varies
                },
            }
            for name, found in self.controls.items()
        ]

    def _record(self, method: Analysis) -> Record:
        record: Record = {
            "rank": self.ranks[method.variant],
            "variant": method.variant,
            "method": method.result.method.name,
            "family": method.result.method.family,
            "settings": json.dumps(method.result.method.changed_settings),
            "tuned": method.result.tuning is not None,
            "tuning_trials": method.result.tuning.trials if method.result.tuning else None,
        }
        for metric, summary in method.summary.items():
            for statistic, own in summary.items():
                record[f"{metric}.{statistic}.mean"] = own.mean if own else None
                record[f"{metric}.{statistic}.std"] = own.std if own else None
            for statistic in shown("headline") if metric in method.matrices else ():
                estimate = method.estimate(metric, statistic.name)
                low, high = (estimate and estimate.interval) or (None, None)
                key = f"{metric}.{statistic.name}"
                record |= {f"{key}.ci_low": low, f"{key}.ci_high": high}
                record[f"{key}.se_tasks"] = error_over_tasks(method, metric, statistic.name)
        return record | {
            "remark": self.remark(method),
            "runs": len(method.result.runs),
            "state_bytes": method.state_bytes,
            "regime": "+".join(method.regimes),
            "told_task": method.told_task,
            "training_passes": method.training_passes,
            "train_seconds_a_task": method.train_seconds,
            "training_multiple": self.training_multiple(method),
            "eval_seconds_a_task": method.eval_seconds,
            "verified": self.level(method),
            "submitter": method.result.submitted_by,
            "source": method.result.place,
            "command": method.result.command,
        }


def make_boards(
    methods: Iterable[Analysis],
    *,
    load: Callable[[str], Suite] = load_suite,
    samples: Path | None = None,
    published: Mapping[str, Published] | None = None,
    verified: Mapping[str, Verification] | None = None,
    verified_alone: bool = False,
) -> list[Board]:
    """A board for every track of every suite that has results or was published in.

    Several results of one variant are one row: the mean of those that are verified, or of all where none is.

    Args:
        methods: the results, as `read_submissions` gives them.
        load: how a suite is found by its name.
        samples: folder of <suite>/<track>/<variant>.png sample grids.
        published: suite -> the paper's results in its setting.
        verified: maintainers' notes (`clbench.results.verification.read_verified`).
        verified_alone: rank only the verified results.

    Raises:
        ClbenchError: a suite cannot be loaded.
    """
    tracks: dict[tuple[str, str], list[Analysis]] = {}
    for method in methods:
        tracks.setdefault((method.result.suite.name, method.result.track), []).append(method)
    boards = []
    for name in sorted({*(suite for suite, _ in tracks), *(published or ())}):
        suite = load(name)
        for track in suite.tracks.values():
            rows = {
                method.variant: (method, level, count)
                for method, level, count in _rows(tracks.get((name, track.name), ()), verified or {})
            }
            best = _best_first([method for method, _, _ in rows.values()])
            levels = {variant: level for variant, (_, level, _) in rows.items()}

            def last(method: Analysis, levels: Mapping[str, str] = levels) -> tuple[bool, bool, bool]:
                unverified = verified_alone and levels[method.variant] == UNVERIFIED
                return unverified, method.is_bound, method.told_task

            own = tuple(sorted(best, key=last))
            counts = {variant: count for variant, (_, _, count) in rows.items()}
            images = sorted((samples / name / track.name).glob("*.png")) if samples else ()
            grids = {image.stem: image for image in images}
            printed = (published or {}).get(name)
            boards.append(Board(suite, track, own, printed, levels, grids, counts, verified_alone))
    return boards


def apart(method: Analysis) -> str:
    """Why a method is not ranked among the others; "" where it is."""
    return "a bound, no rank" if method.is_bound else "told the task, ranked apart" if method.told_task else ""


def _rows(methods: Iterable[Analysis], verified: Mapping[str, Verification]) -> list[tuple[Analysis, str, int]]:
    """(result, the level that all of it reached, how many submissions it is the mean of) of each variant."""
    variants: dict[str, list[tuple[Analysis, str]]] = {}
    for method in methods:
        variants.setdefault(method.variant, []).append((method, status(verified, method.result)))
    rows = []
    for found in variants.values():
        # Nobody moves a verified row by submitting it again before that is verified too.
        taken = [(method, level) for method, level in found if level != UNVERIFIED] or found
        weakest = min((level for _, level in taken), key=(UNVERIFIED, *LEVELS).index)
        rows.append((average([method for method, _ in taken]), weakest, len(taken)))
    return rows


def _best_first(methods: Sequence[Analysis]) -> tuple[Analysis, ...]:
    """By the mean of the statistic that ranks them; equal ones by name."""
    if not methods:
        return ()
    metric = METRICS[methods[0].track.metrics[0]]
    statistic = STATISTICS[ranking_statistic(methods, metric.name)]
    sign = -1 if statistic.prefers_high(metric.higher_is_better) else 1

    def place(method: Analysis) -> tuple[float, str]:
        found = method.summary[metric.name][statistic.name]
        assert found is not None, "a valid result has every score of its last row"
        return sign * found.mean, method.variant

    return tuple(sorted(methods, key=place))
