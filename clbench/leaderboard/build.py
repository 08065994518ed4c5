"""From submissions/<suite>/<track>/<method>.json to one ranked page a track, and the same as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.leaderboard.published import Published, published_pages, published_section
from clbench.leaderboard.records import (
    CONTROLS,
    control_scores,
    final_state_bytes,
    records,
    seconds_a_task,
    to_csv,
    to_json,
)
from clbench.leaderboard.tables import Cell, Column, Table, code_span, escape, mark_best, to_latex, to_markdown
from clbench.metrics import METRICS
from clbench.results.checks import check_result
from clbench.results.estimates import Measured, measure, rank_results
from clbench.results.io import load_result
from clbench.results.schema import Result, Spread
from clbench.results.significance import ALPHA, Ranking
from clbench.results.summary import summarize
from clbench.results.verification import UNVERIFIED, Verification, status
from clbench.suite import Suite, Track, load_suite
from clbench.utils.files import write_text
from clbench.utils.formatting import format_bytes, format_p_value, format_percent
from clbench.utils.parallel import parallel_map

BLANK = Cell("–")
SHARES_SAY = {
    "Learned": "share of the way from the untouched model to real images that is reached right after learning a task.",
    "Kept": "the same share for past tasks, after the last task; 0 % is the untouched model, below 0 % is harm.",
}
"""What the board's two shares are, in a line each."""
_CORRECTIONS = {
    "Holm": "Holm-corrected over all pairs",
    "joint": "corrected by testing all pairs at once (so many that Holm's correction could tell nobody apart)",
}


def build_leaderboard(
    submissions: Path,
    out: Path,
    *,
    load: Callable[[str], Suite] = load_suite,
    samples: Path | None = None,
    published: Mapping[str, Published] | None = None,
    verified: Mapping[str, Verification] | None = None,
) -> list[Path]:
    """Write <out>/<suite>/<track>.{md,csv,json,tex} for every track with submissions, and what was published beside it.

    The same submissions give the same bytes.

    Args:
        submissions: folder of <suite>/<track>/<method>.json.
        out: the leaderboard's folder.
        load: how a suite is found by its name.
        samples: folder of <suite>/<track>/<method>.png sample grids, shown on the page where they exist.
        published: suite -> what the paper printed, shown beside its tracks.
        verified: what maintainers found (`clbench.results.verification.read_verified`).

    Returns:
        The files written.

    Raises:
        ClbenchError: a submission is invalid or partial (all of them are named), or a page cannot be written.
    """
    return write_tables(
        read_submissions(submissions, load), out, load=load, samples=samples, published=published, verified=verified
    )


def write_tables(
    boards: Mapping[tuple[str, str], list[Result]],
    out: Path,
    *,
    load: Callable[[str], Suite] = load_suite,
    samples: Path | None = None,
    published: Mapping[str, Published] | None = None,
    verified: Mapping[str, Verification] | None = None,
) -> list[Path]:
    """As `build_leaderboard`, from what `read_submissions` gives."""
    texts: dict[Path, str] = {}
    for suite_name, printed in (published or {}).items():
        measured = {track for suite, track in boards if suite == suite_name}
        texts |= published_pages(out / suite_name, suite_name, printed, measured)
    for (suite_name, track_name), results in boards.items():
        path = out / suite_name / f"{track_name}.md"
        suite = load(suite_name)
        track = suite.track(track_name)
        ranking = rank_results(track, results)
        checked = [status(verified or {}, result) for result in results]
        methods = [measure(result, track) for result in results]
        table, rows = leaderboard_table(track, methods, ranking, checked), records(track, methods, ranking, checked)
        printed = (published or {}).get(suite_name)
        beside = published_section(printed, track_name, results) if printed else []
        page = render_page(suite, track, results, table, ranking, _grids(samples, path), beside)
        data = {".csv": to_csv(rows), ".json": to_json(suite, track, rows, ranking), ".tex": to_latex(table)}
        texts |= {path.with_suffix(suffix): text for suffix, text in ({".md": page} | data).items()}
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def read_submissions(submissions: Path, load: Callable[[str], Suite]) -> dict[tuple[str, str], list[Result]]:
    """(suite, track) -> its results, ranked, each with a summary recomputed from its runs.

    Raises:
        ClbenchError: names every submission that is invalid or partial.
    """
    boards: dict[tuple[str, str], list[Result]] = {}
    wrong = []
    for read in parallel_map(_Reader(load), sorted(submissions.glob("*/**/*.json"))):
        if isinstance(read, Result):
            boards.setdefault((read.suite.name, read.track), []).append(read)
        else:
            wrong.extend(read)
    if wrong:
        raise ClbenchError(f"not every submission is valid, so that no table was written: {'; '.join(wrong)}")
    return {(suite, track): _ranked(load(suite).track(track), boards[suite, track]) for suite, track in sorted(boards)}


@dataclass(frozen=True)
class _Reader:
    """What reads a submission: its result with a recomputed summary, or all that is wrong with it."""

    load: Callable[[str], Suite]
    suites: dict[str, Suite] = field(default_factory=dict)
    """Those loaded before."""

    def __call__(self, path: Path) -> Result | list[str]:
        try:
            result = load_result(path)
            name = result.suite.name
            suite = self.suites.get(name) or self.suites.setdefault(name, self.load(name))
            findings = check_result(result, suite, path=path)
        except ClbenchError as error:
            return [str(error) if str(path) in str(error) else f"{path}: {error}"]
        if findings:
            return [f"{path}: {finding.code} {finding.message}" for finding in findings]
        summary = summarize(result.runs, result.controls, suite.track(result.track))
        return result.model_copy(update={"summary": summary})


def leaderboard_table(
    track: Track, methods: Sequence[Measured], ranking: Ranking, verified: Sequence[str] | None = None
) -> Table:
    """The ranked table with its control rows: base model above, last-task floor and real images below the methods.

    Args:
        verified: how far each result was verified; default not at all.
    """
    checked = dict(zip((method.name for method in methods), verified or (), strict=False))
    headline = [metric for metric in track.metrics if not METRICS[metric].secondary]
    secondary = [metric for metric in track.metrics if METRICS[metric].secondary]
    label = {metric: METRICS[metric].label for metric in track.metrics}
    columns = (
        Column("Rank"),
        Column("Method", align="left"),
        *(Column(f"{label[metric]} score ↑", better="higher") for metric in headline),
        *(Column(f"{label[metric]} forgetting ↓", better="lower") for metric in headline),
        *(Column(f"{label[metric]} learned ↑", better="higher") for metric in headline),
        *(Column(f"{label[metric]} kept ↑", better="higher") for metric in headline),
        *(Column(f"{label[metric]} plasticity") for metric in headline),
        *(Column(f"{label[metric]} transfer") for metric in headline),
        *(Column(f"{label[metric]} score") for metric in secondary),
        Column("State"),
        Column("Regime", align="left"),
        Column("Train s/task"),
        Column("Eval s/task"),
        Column("Verified", align="left"),
    )

    places = {standing.method: standing.rank for standing in ranking.standings}

    def method_row(method: Measured) -> tuple[Cell, ...]:
        result = method.result

        def cells(metrics: list[str], statistic: str, show: Callable[[Spread | None], Cell]) -> list[Cell]:
            return [
                replace(show(result.summary[metric][statistic]), source=f"{metric}.{statistic} of {result.place}")
                for metric in metrics
            ]

        def with_interval(statistic: str) -> list[Cell]:
            figures = [method.figure(metric, statistic) for metric in headline]
            notes = [f"{f.interval[0]:.3f} to {f.interval[1]:.3f}" if f and f.interval else "" for f in figures]
            pairs = zip(cells(headline, statistic, _mean_std), notes, strict=True)
            return [replace(cell, note=note) for cell, note in pairs]

        def own(text: str, field: str) -> Cell:
            return Cell(text, source=f"{field} of {result.place}")

        train, evaluation = seconds_a_task(result, track)
        return (
            Cell(places[method.name], source=f"{track.metrics[0]}.average_score of all methods"),
            Cell(method.name, mark="code", source=result.command),
            *with_interval("average_score"),
            *with_interval("average_forgetting"),
            *cells(headline, "learned", _percent),
            *cells(headline, "kept", _percent),
            *cells(headline, "plasticity", _mean),
            *cells(headline, "backward_transfer", _mean),
            *cells(secondary, "average_score", _mean_std),
            own(format_bytes(final_state_bytes(result)), "state_bytes"),
            own(", ".join(method.regimes), "regime"),
            own(f"{train:.1f}", "train_seconds"),
            own(f"{evaluation:.1f}", "eval_seconds"),
            Cell(checked.get(method.name, UNVERIFIED), source="VERIFIED.json"),
        )

    def control_row(name: str, score: Callable[[str], Cell]) -> tuple[Cell, ...]:
        """A row with scores only. Its cells carry no value, so that they are not compared with the methods."""
        scores = {f"{label[metric]} score": score(metric) for metric in track.metrics}
        blank = (scores.get(column.heading.removesuffix(" ↑"), BLANK) for column in columns[2:])
        return (Cell(""), Cell(name), *blank)

    framing = control_scores(track, methods)

    def control(name: str, show: Callable[[Spread | None], Cell] = _mean) -> tuple[Cell, ...]:
        source = f"{CONTROLS[name]} of all results"
        return control_row(
            name, lambda metric: replace(show(framing[name][metric]), value=None, source=f"{metric} {source}")
        )

    controls = (control("last-task floor", _mean_std), control("real against real"))
    commands = ("", *(method.result.command for method in methods), *("" for _ in controls))
    return mark_best(Table(columns, (control("base model"), *map(method_row, methods), *controls), commands))


def render_page(
    suite: Suite,
    track: Track,
    results: Sequence[Result],
    table: Table,
    ranking: Ranking,
    grids: dict[str, str],
    beside: Sequence[str] = (),
) -> str:
    """The markdown page of one track; `grids` maps a method to the link of its sample grid, `beside` is more lines."""
    first = METRICS[track.metrics[0]].label
    runs = len(suite.runs(track.name))
    seeds = ", a seed each" if track.seeds else f" x {runs // len(track.orders)} seeds"
    lines = [
        f"# {escape(suite.name)}: {escape(track.name)}",
        "",
        f"{len(track.tasks)} tasks in a row; mean ± standard deviation over {runs} runs "
        f"({len(track.orders)} orders{seeds}). **Best**, <u>second</u>.",
        "",
        to_markdown(table),
        "",
        f"Ranked by the mean {first} score over the {runs} runs. A rank such as 1–2 says that these methods cannot be",
        "told apart with so many runs; see below.",
        "",
        "- *Score*: mean over all tasks after the last one. *Forgetting*: mean drop of a past task from its best score",
        "  since it was learned. *Plasticity*: mean score of a task right after it was learned. *Transfer* (backward):",
        "  mean change of a past task's score since then. In brackets: 95 % bootstrap interval of the mean over runs.",
        *(f"- *{name}*: {says}" for name, says in SHARES_SAY.items()),
        "- *State*: what is handed on after the last task. *Regime*, read off that state: `model` (merged weights",
        "  only), `adapter` (one adapter), `constant` (a constant amount of more), `growing` (grows with the tasks or",
        "  keeps data), `bound` (a bound, not continual).",
        "- *Verified*: `recomputed` (the summary is what the runs give), `artifacts` (the scores are what the",
        "  submitted images give), `rerun` (chosen cells were trained and scored again).",
        "- *Base model*: untouched. *Last-task floor*: real images in the last task's look, scored on the past tasks:",
        "  what a model that only remembers its newest task would get. *Real against real*: real images of each task.",
        *(f"- *{METRICS[metric].label}*: {METRICS[metric].description}" for metric in track.metrics),
        "",
        f"Suite `{suite.name}` {escape(suite.version)}, sha256 `{suite.sha256[:12]}`.",
        "",
        *_how_sure(ranking, first),
        *beside,
        f"The same as [CSV]({track.name}.csv), [JSON]({track.name}.json) and [LaTeX]({track.name}.tex).",
        "",
        "## Reproduce",
        "",
        *(f"- `{result.method.name}`: {code_span(result.command)}" for result in results),
    ]
    shown = [result.method.name for result in results if result.method.name in grids]
    if shown:
        lines += ["", "## Samples"]
    for name in shown:
        lines += ["", f"### `{name}`", "", f"![Samples of {escape(name)} over the tasks](<{grids[name]}>)"]
    return "\n".join(lines) + "\n"


def _how_sure(ranking: Ranking, metric: str) -> list[str]:
    """The section on what the ranks rest on; empty where there is nothing to compare."""
    if not ranking.pairs:
        return []
    return [
        "## How sure the ranks are",
        "",
        to_markdown(pairs_table(ranking)),
        "",
        f"Paired differences of the {metric} score on the {ranking.runs} runs that all methods share;",
        f"{ranking.test}, {_CORRECTIONS[ranking.correction]};",
        "percentile bootstrap over runs and, since the runs of one order are alike, over whole orders",
        f"(seed {ranking.bootstrap_seed}). Methods are separable at a corrected p of at most {ALPHA}.",
        "",
    ]


def pairs_table(ranking: Ranking) -> Table:
    """What is listed of the pairs: differences, intervals and p values."""
    columns = (
        Column("Better", align="left"),
        Column("Worse", align="left"),
        Column("Difference"),
        Column("95 % interval"),
        Column("... over orders"),
        Column("p"),
        Column("p, corrected"),
        Column("Separable", align="left"),
    )
    rows = tuple(
        (
            Cell(pair.better, mark="code"),
            Cell(pair.worse, mark="code"),
            Cell(f"{pair.difference:.3f}"),
            *(Cell(f"{low:.3f} to {high:.3f}") for low, high in (pair.interval, pair.order_interval)),
            Cell(format_p_value(pair.p)),
            Cell(format_p_value(pair.p_corrected)),
            Cell("yes" if pair.separable else f"not with {ranking.runs} runs"),
        )
        for pair in ranking.pairs
    )
    return Table(columns, rows)


def _ranked(track: Track, results: list[Result]) -> list[Result]:
    """By mean average score of the track's first metric, best first; equal ones by name."""

    def key(result: Result) -> tuple[float, str]:
        score = result.summary[track.metrics[0]]["average_score"]
        assert score is not None, "a valid result has every score of its last row"
        return -score.mean, result.method.name

    return sorted(results, key=key)


def _grids(samples: Path | None, page: Path) -> dict[str, str]:
    """Method -> link from the page to its sample grid, for the grids that exist."""
    if samples is None:
        return {}
    images = sorted((samples / page.parent.name / page.stem).glob("*.png"))
    return {image.stem: Path(os.path.relpath(image, page.parent)).as_posix() for image in images}


def _mean_std(value: Spread | None) -> Cell:
    if value is None:
        return BLANK
    return Cell(f"{value.mean:.3f}", value=round(value.mean, 3), deviation=f"± {value.std:.3f}")


def _mean(value: Spread | None) -> Cell:
    return Cell(f"{value.mean:.3f}", value=round(value.mean, 3)) if value else BLANK


def _percent(value: Spread | None) -> Cell:
    return Cell(format_percent(value.mean, value.std), value=round(value.mean, 2)) if value else BLANK
