"""The pages of the site, each from one track's board. Every text of a submission meets a template, which escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import (
    margin_text,
    pairs_table,
    published_table,
    study_table,
    tasks_table,
)
from clbench.leaderboard.data import FORMATS
from clbench.leaderboard.overall import OVERALL_TEXT, Overall, overall_table
from clbench.leaderboard.site import heat, parts, plots, table
from clbench.leaderboard.site.drawing import MOST_NAMED, Series, series
from clbench.leaderboard.tables import to_html
from clbench.metrics import METRICS
from clbench.results.analysis import Analysis
from clbench.results.significance import ALPHA, MOST_LISTED
from clbench.scores import RANKED_BY, STATISTICS, Statistic, shown
from clbench.utils.formatting import counted, sentence


@dataclass(frozen=True, eq=False)
class TrackPages:
    """The pages of one track. The `root` of each leads from the page to the site's root."""

    board: Board
    boards: Sequence[Board]
    """All of the site's, which every page links to."""
    overall: Overall | None = None
    """The suite's tracks together, if there is such a table."""

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The track's metrics, as the templates' metric switch wants them."""
        return [{"index": index, "id": metric.name, "info": metric} for index, metric in enumerate(self.board.metrics)]

    @cached_property
    def compared(self) -> dict[str, list[Statistic]]:
        """Metric -> the statistics that are compared: those of boards that any method has."""
        return {
            name: [one for one in shown() if any(method.summary[name].get(one.name) for method in self.board.methods)]
            for name in self.board.track.metrics
        }

    @cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Metric -> the scale on which all of the track's heatmaps are shaded."""
        return {
            metric: heat.scale([method.matrices[metric] for method in self.board.methods])
            for metric in self.board.track.metrics
        }

    @cached_property
    def styles(self) -> tuple[Series, ...]:
        """The methods' signs in the plots."""
        methods = self.board.methods
        return series([method.variant for method in methods], {one.variant for one in methods if one.is_bound})

    @cached_property
    def plots(self) -> list[dict[str, Any]]:
        """Metric by metric, the plots and what they rest on."""
        methods, styles = self.board.methods, self.styles
        return [
            {
                **metric,
                "scatter": plots.scatter(methods, styles, metric["id"]),
                "bytes": plots.bytes_against(methods, styles, metric["id"], statistic),
                "retention": plots.retention(methods, styles, metric["id"]),
                "ranks": plots.ranks(methods, styles, metric["id"], statistic, ranking),
                "statistic": STATISTICS[statistic],
                "margin": margin_text(ranking, statistic),
                "wins": parts.wins(ranking, statistic),
                "ranking": ranking,
                "more": len(ranking.standings) - MOST_LISTED,
                "pairs": pairs_table(ranking, statistic),
                "inseparable": [pair for pair in ranking.pairs if not pair.separable],
            }
            for metric, ranking in zip(self.metrics, self.board.rankings.values(), strict=False)
            for statistic in [self.board.compared_by(metric["id"])]
        ]

    def board_page(self, root: str) -> str:
        """The ranked table, the plots and what was published."""
        board = self.board
        columns = table.headings(board)
        return self._render(
            "board.html",
            root,
            columns=columns,
            rows=[(method, table.cells(board, method), table.marks(method)) for method in board.methods],
            filters=table.filters(board),
            controls={name: table.control_values(board, columns, name) for name in board.controls},
            styles=self.styles,
            crowded=len(board.methods) > MOST_NAMED,
            views=self.plots,
            alpha=ALPHA,
            ranked_by=STATISTICS[board.ranked_by] if board.methods else None,
            statistics=list(dict.fromkeys(statistic for _, statistic in board.score_columns)),
            printed=published_table(board.published, board.track.name) if board.published and board.printed else None,
        )

    def method_page(self, root: str, method: Analysis, about: str, grid: str | None) -> str:
        """One method on one track; `grid` is the link to its sample grid, where there is one."""
        runs = method.result.runs
        over = f"mean over {counted(len(runs), 'run')}, tasks by their place in a run"

        def view(metric: dict[str, Any]) -> dict[str, Any]:
            name, label = metric["id"], metric["info"].label
            bounds, mean = self.bounds[name], method.means[name]
            heats = (
                heat.score_heat(matrix, f"{label}, order {run.order}, seed {run.seed}", bounds, run.task_order)
                for run, matrix in zip(runs, method.matrices[name], strict=True)
            )
            return metric | {
                "mean": heat.score_heat(mean, f"{label}, {over}", bounds),
                "runs": [(f"Order {run.order}, seed {run.seed}", own) for run, own in zip(runs, heats, strict=True)],
                "bounds": [table.three(bound) for bound in bounds],
                "panels": plots.panels(mean),
                "figures": [
                    (statistic.title, table.cell(method, name, statistic))
                    for statistic in STATISTICS.values()
                    if statistic.name in method.summary[name]
                ],
                "tasks": tasks_table(method, name),
            }

        elsewhere = [name for name in method.summary if name not in method.matrices]
        drifts = [(METRICS[name].label, table.cell(method, name, STATISTICS["drift"])) for name in elsewhere]

        return self._render(
            "method.html",
            root,
            method=method,
            about=about,
            grid=grid,
            rank=self.board.ranks[method.variant],
            level=self.board.level(method),
            views=[view(metric) for metric in self.metrics],
            drifts=drifts,
            costs=parts.costs(method),
            facts=parts.facts(method.result),
        )

    def compare_page(self, root: str) -> str:
        """Two methods side by side: the first two as written, any two by the script, from the numbers it carries."""
        board, names = self.board, self.board.track.metrics
        left, right = board.methods[:2]
        most = {name: heat.widest([method.means[name] for method in board.methods]) for name in names}

        def view(metric: dict[str, Any]) -> dict[str, Any]:
            name = metric["id"]
            means, bounds = [method.means[name] for method in (left, right)], self.bounds[name]
            return metric | {
                "left": heat.score_heat(means[0], left.variant, bounds),
                "right": heat.score_heat(means[1], right.variant, bounds),
                "difference": heat.difference_heat(
                    means[0], means[1], f"{left.variant} minus {right.variant}", most[name]
                ),
                "figures": [
                    (one.title, *(table.cell(method, name, one) for method in (left, right)))
                    for one in self.compared[name]
                ],
                "bounds": [table.three(bound) for bound in bounds],
                "most": table.three(most[name]),
            }

        def numbers(method: Analysis) -> dict[str, Any]:
            cells = ([table.cell(method, name, one) for one in self.compared[name]] for name in names)
            return {
                "matrices": [heat.cells(method.means[name]) for name in names],
                "figures": [[[cell.text, cell.deviation] for cell in own] for own in cells],
            }

        verdicts = {(pair.better, pair.worse): parts.verdict(board, pair) for pair in board.ranking.pairs}
        data = {
            "scales": [[*self.bounds[name], most[name]] for name in names],
            "methods": {method.variant: numbers(method) for method in board.methods},
            "verdicts": {" ".join(pair): verdict for pair, verdict in verdicts.items()},
        }
        return self._render(
            "compare.html",
            root,
            left=left,
            right=right,
            views=[view(metric) for metric in self.metrics],
            verdict=verdicts.get((left.variant, right.variant)) or verdicts.get((right.variant, left.variant), ""),
            data=data,
        )

    def overall_page(self, root: str) -> str:
        """The suite's tracks together, which must have such a table; the page is the same by any of its tracks."""
        found = self.overall
        assert found is not None
        return self._render(
            "overall.html",
            root,
            table=overall_table(found),
            pairs=pairs_table(found.ranking, RANKED_BY),
            text=OVERALL_TEXT,
        )

    def study_page(self, root: str) -> str:
        """The paper's prompt study, as printed."""
        assert self.board.published is not None
        return self._render("study.html", root, study=study_table(self.board.published.prompt_study))

    def _render(self, name: str, root: str, **values: Any) -> str:
        board, first_of = self.board, {}
        for other in self.boards:
            first_of.setdefault(other.suite.name, other)
        return _template(name).render(
            board=board,
            suite=board.suite,
            track=board.track,
            metrics=self.metrics,
            root=root,
            here=f"{root}{board.folder}/",
            suites=list(first_of.values()),
            siblings=[other for other in self.boards if other.suite.name == board.suite.name],
            has_overall=self.overall is not None,
            runs=len(board.suite.runs(board.track.name)),
            formats=FORMATS,
            **values,
        )


def empty_page() -> str:
    """The front page of a site with no boards."""
    return _template("empty.html").render(root="", boards=(), board=None)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["sentence"] = sentence
    environment.filters["html"] = to_html
    environment.filters["shaded"] = _shaded_rows
    environment.filters["circles"] = _circles
    return environment.get_template(name)


# --- What a page has in thousands, which would take most of its time in a template ---


def _shaded_rows(rows: Sequence[tuple[str, Sequence[heat.Shade]]]) -> Markup:
    return Markup(
        "".join(
            f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_shaded, cells))}</tr>\n' for label, cells in rows
        )
    )


@cache
def _shaded(cell: heat.Shade) -> str:
    css = f' class="{escape(cell.css)}"' if cell.css else ""
    return f"<td{css}>{escape(cell.text)}</td>"


def _circles(points: Sequence[tuple[float, float]]) -> Markup:
    return Markup("".join(f'<circle class="mark" cx="{x}" cy="{y}" r="2.6"/>' for x, y in points))
