"""The board: ranked, marked as in the paper's tables, reproducible, and closed to what it cannot trust."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from builders import make_result, tiny_suite
from scipy import stats

from clbench.errors import ClbenchError
from clbench.leaderboard import Board, make_boards, read_submissions, write_tables
from clbench.leaderboard.board_tables import ranked_table
from clbench.leaderboard.page import board_page
from clbench.leaderboard.tables import Cell, Column, Table, code_span, escape, to_html, to_latex, to_markdown
from clbench.results.analysis import analyze
from clbench.results.baselines import on_record
from clbench.results.io import save_result
from clbench.results.schema import Result
from clbench.scores import average_score
from clbench.suite import Suite, load_suite
from clbench.utils.formatting import format_bytes

SUITE = tiny_suite()
LEVELS = {"naive": 0.4, "merge_init": 0.6, "magmax": 0.5}


def submit(folder: Path, result: Result) -> None:
    save_result(result, folder / "tiny" / result.track / f"{result.variant}.json")


def boards_of(submissions: Path, suite: Suite, **options) -> list[Board]:
    return make_boards(read_submissions(submissions, lambda name: suite), load=lambda name: suite, **options)


def build(submissions: Path, out: Path, kind: str = ".md", **options) -> list[Path]:
    """The tracks' files of one kind that a build writes."""
    written = write_tables(boards_of(submissions, SUITE, **options), out)
    return [path for path in written if path.name.removesuffix(kind) in SUITE.tracks]


def build_beside(submissions: Path, update: dict[str, str], out: Path) -> None:
    """The files with a result more, whose texts no check has seen."""
    odd = make_result(SUITE, method="odd", seed=9).model_copy(update=update)
    methods = [*read_submissions(submissions, lambda name: SUITE), analyze(odd, SUITE.track("styles"))]
    write_tables(make_boards(methods, load=lambda name: SUITE), out)


@pytest.fixture
def submissions(tmp_path) -> Path:
    folder = tmp_path / "submissions"
    for seed, (method, level) in enumerate(LEVELS.items()):
        for track in SUITE.tracks:
            submit(folder, make_result(SUITE, track, method, seed=seed, level=level))
    return folder


def cells(page: str) -> dict[str, dict[str, str]]:
    """First two columns' name -> heading -> cell, from the page's table."""
    first = page[page.index("| ") :].split("\n\n")[0]
    lines = [line.strip("|").split("|") for line in first.splitlines()]
    headings = [heading.strip() for heading in lines[0]]
    rows = [dict(zip(headings, (cell.strip() for cell in line), strict=True)) for line in lines[2:]]
    return {row["Variant"].strip("`"): row for row in rows}


def test_a_rebuild_gives_the_same_bytes_whatever_was_there(submissions, tmp_path):
    first = build(submissions, tmp_path / "one")
    assert [path.relative_to(tmp_path / "one").as_posix() for path in first] == ["tiny/objects.md", "tiny/styles.md"]
    before = {path: path.read_bytes() for path in first}
    (tmp_path / "one/tiny/styles.md").write_text("stale")
    assert {path: path.read_bytes() for path in build(submissions, tmp_path / "one")} == before
    for path in build(submissions, tmp_path / "elsewhere/two"):
        assert path.read_bytes() == before[tmp_path / "one/tiny" / path.name]


def test_methods_are_ranked_by_the_first_metrics_score_between_the_control_rows(submissions, tmp_path):
    page = build(submissions, tmp_path / "out")[1].read_text()
    rows = cells(page)
    assert list(rows) == ["base model", "merge_init", "magmax", "naive", "last-task floor", "real against real"]
    assert [row["Rank"] for row in rows.values()] == ["", "1", "2", "3", "", ""]
    assert "Ranked by CSD kept, the mean" in page


def test_all_that_nothing_is_separably_better_than_are_bold_and_controls_never_are():
    """Whatever beats nothing itself: a mean that is ahead by chance is not marked above its equals."""
    suite = load_suite("mini-v2")
    made = {"ahead": (1, 0.502), "equal": (2, 0.5), "worse": (3, 0.4)}
    results = (make_result(suite, method=name, seed=seed, level=level) for name, (seed, level) in made.items())
    [board] = [
        one for one in make_boards([analyze(result, suite.track("styles")) for result in results]) if one.methods
    ]
    marked = {row[1].text: row[3].mark for row in ranked_table(board).rows}
    assert marked == {
        "base model": "",
        "ahead": "best",
        "equal": "best",
        "worse": "",
        "last-task floor": "",
        "real against real": "",
    }
    assert ranked_table(board).columns[3].heading == "CSD kept ↑"
    assert board.unbeaten("csd", "kept") == {"ahead", "equal"}


def test_a_method_that_is_not_separably_above_the_untouched_model_is_marked():
    suite = load_suite("mini-v2")
    made = [make_result(suite, method="useful", seed=1), make_result(suite, method="idle", seed=2, level=0.06)]
    frozen = make_result(suite, method="frozen_base", seed=3)
    runs = tuple(
        run.model_copy(update={"scores": {metric: (rows[0],) * len(rows) for metric, rows in run.scores.items()}})
        for run in frozen.runs
    )
    made.append(frozen.model_copy(update={"runs": runs}))
    [board] = [one for one in make_boards([analyze(own, suite.track("styles")) for own in made]) if one.methods]
    remarks = {method.variant: board.remark(method) for method in board.methods}
    assert remarks["useful"] == remarks["frozen_base"] == ""
    assert remarks["idle"] == "not separably above the untouched model"
    assert "idle; not separably above the untouched model" in board_page(board, Path("x.md"))


def test_training_times_are_compared_as_measured_on_purpose_whatever_the_results_machines_did():
    suite, known = load_suite("mini-v2"), on_record("mini-v2")
    assert known
    measured = known.training_times["ewc"]
    source = {"source_sha256": measured.source_sha256}

    def shown(seconds: float, **source: str) -> str:
        made = make_result(suite, method="ewc")
        runs = tuple(run.model_copy(update={"train_seconds": seconds}) for run in made.runs)
        made = made.model_copy(update={"runs": runs, "method": made.method.model_copy(update=source)})
        [board] = [one for one in make_boards([analyze(made, suite.track("styles"))]) if one.methods]
        table = ranked_table(board)
        place = [column.heading for column in table.columns].index("Train ×")
        return next(row[place].text for row in table.rows if row[1].text == "ewc")

    assert shown(10.0, **source) == shown(900.0, **source) == f"{measured.multiple:.2f}"
    assert shown(10.0) == "–", "another source was not measured"


def test_a_row_shows_mean_and_std_shares_state_regime_and_seconds_a_task(submissions, tmp_path):
    row = cells(build(submissions, tmp_path / "out")[1].read_text())["merge_init"]
    result = make_result(SUITE, "styles", "merge_init", seed=1, level=0.6)
    score, learned, kept = (result.summary["csd"][name] for name in ("average_score", "learned", "kept"))
    assert score is not None
    assert learned is not None
    assert kept is not None
    averages = [average_score(run.matrix("csd")) for run in result.runs]
    by_order = np.reshape(averages, (2, 2)).mean(axis=1)  # two orders with two seeds each
    low, high = stats.t.interval(0.95, 1, by_order.mean(), stats.sem(by_order))
    shown = re.fullmatch(r"\*\*(.+)\*\* \((.+) to (.+)\)", row["CSD score ↑"])
    assert shown
    assert shown[1] == f"{score.mean:.3f} ± {score.std:.3f}"
    assert (float(shown[2]), float(shown[3])) == pytest.approx((low, high), abs=0.002)
    for name, share in (("learned", learned), ("kept", kept)):
        assert share.std is not None
        assert row[f"CSD {name} ↑"].startswith(f"**{100 * share.mean:.0f} ± {100 * share.std:.0f} %** (")
    assert (row["State"], row["Regime"]) == ("12.0 kB", "adapter")
    assert (row["Train s/task"], row["Eval s/task"]) == ("3.5", "2.1")


def test_the_same_board_comes_as_csv_and_json_with_every_statistic(submissions, tmp_path):
    rows = list(csv.DictReader(build(submissions, tmp_path / "out", ".csv")[1].read_text().splitlines()))
    board = json.loads(build(submissions, tmp_path / "out", ".json")[1].read_text())
    controls = ["base model", "last-task floor", "real against real"]
    assert [row["variant"] for row in rows] == ["merge_init", "magmax", "naive", *controls]
    rows = [row for row in rows if row["rank"]]
    assert [record["method"] for record in board["methods"]] == ["merge_init", "magmax", "naive"]
    result = make_result(SUITE, "styles", "naive", seed=0, level=0.4)
    for metric, summary in result.summary.items():
        for statistic, spread in summary.items():
            shown, read = rows[2][f"{metric}.{statistic}.mean"], board["methods"][2][f"{metric}.{statistic}.mean"]
            assert (shown, read) == (str(spread.mean), spread.mean) if spread else ("", None)
    assert {pair["better"] for pair in board["pairs"]} == {"merge_init", "magmax"}
    assert board["suite"]["sha256"] == SUITE.sha256


def test_a_spreadsheet_takes_no_text_of_a_submission_for_a_formula(submissions, tmp_path):
    evil = make_result(SUITE, method="odd", seed=9).model_copy(update={"submitter": "=HYPERLINK(1)"})
    submit(submissions, evil)
    assert ",'=HYPERLINK(1)," in build(submissions, tmp_path / "out", ".csv")[1].read_text()


@pytest.mark.parametrize("text", ["\uff1d1+1", "\uff201", " =1+1", "a;=1+1", 'a;"=1+1"', "a; \uff0b1"])
def test_nor_text_with_full_width_signs_or_after_what_separates_cells_elsewhere(submissions, tmp_path, text):
    """Where commas are decimal points, spreadsheets separate cells at semicolons."""
    submit(submissions, make_result(SUITE, method="odd", seed=9).model_copy(update={"submitter": text}))
    row = next(csv.reader(line for line in build(submissions, tmp_path / "out", ".csv")[1].open() if "odd" in line))
    [shown] = [cell for cell in row if cell.replace("'", "") == text]
    assert all(part.startswith("'") for part in shown.split(";") if part != "a")


def test_the_latex_table_has_the_boards_marks_and_keeps_text_as_text(submissions, tmp_path):
    lines = build(submissions, tmp_path / "out", ".tex")[1].read_text().splitlines()
    assert lines[1] == r"\toprule"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert r"\texttt{merge\_init}" in lines[5]
    assert r"\textbf{" in lines[5]
    assert r"\textbf{0.6" not in lines[6]
    assert {line.count(" & ") for line in lines if line.endswith(r"\\")} == {lines[2].count(" & ")}
    table = Table((Column("a", align="left"),), ((Cell(r"\input{x} $1 & 5 % #~^<_>"),),))
    shown = (
        r"\textbackslash{}input\{x\} \$1 \& 5 \% \#\textasciitilde{}\textasciicircum{}\textless{}\_\textgreater{} \\"
    )
    assert to_latex(table).splitlines()[4] == shown


def test_html_keeps_text_as_text_and_says_where_a_cell_comes_from():
    evil = '<script>alert(1)</script>" onclick="x'
    row = (
        Cell(evil, mark="code", source=evil),
        Cell("0.5", mark="best", deviation="± 0.1", note="0 to 1", source="a & b"),
    )
    html = to_html(Table((Column(evil, align="left"), Column("score")), (row, (Cell("x"), Cell("–")))))
    assert "<script" not in html
    assert '" onclick' not in html
    assert '<td title="a &amp; b"><b>0.5 ± 0.1</b><small>0 to 1</small></td>' in html
    assert '<tr><th scope="row">x</th><td>–</td></tr>' in " ".join(html.split()).replace("> <", "><")
    assert html.count("<tr>") == 3


def test_every_score_says_where_it_comes_from(submissions):
    [board] = [one for one in boards_of(submissions, SUITE) if one.track.name == "styles"]
    table = ranked_table(board)
    first, best, *_, last = table.rows
    assert best[3].source == "csd.kept of tiny/styles/merge_init.json"
    assert all(cell.source for cell in best)
    place = [column.heading for column in table.columns].index("CSD score ↑")
    assert first[place].source == "csd row 0 of all results"
    assert last[place].source == "csd controls.real_against_real of all results"


def test_every_row_carries_the_command_that_makes_it_again_in_every_format(submissions, tmp_path):
    command = "clbench run --set 'x=1 % & \\end{tabular}'\n--track styles"
    build_beside(submissions, {"command": command}, tmp_path / "out")
    text = {kind: (tmp_path / f"out/tiny/styles.{kind}").read_text() for kind in ("md", "csv", "json", "tex")}
    shown = " ".join(command.split())
    assert f"- `odd`: `{shown}`" in text["md"]
    assert next(line for line in text["tex"].splitlines() if "odd" in line).endswith(rf" \\ % {shown}")
    rows = {row["method"]: row for row in csv.DictReader(text["csv"].splitlines(keepends=True))}
    data = {row["method"]: row for row in json.loads(text["json"])["methods"]}
    assert rows["odd"]["command"] == data["odd"]["command"] == command
    assert rows["odd"]["source"] == data["odd"]["source"] == "tiny/styles/odd.json"
    for method in LEVELS:
        own = f"clbench run --method {method} --track styles --suite tiny"
        assert all(own in page for page in text.values())


def test_the_page_names_the_suite_the_runs_and_each_methods_command(submissions, tmp_path):
    page = build(submissions, tmp_path / "out")[1].read_text()
    assert f"sha256 `{SUITE.sha256[:12]}`" in page
    assert "over 4 runs (2 orders x 2 seeds)" in page
    assert "- `magmax`: `clbench run --method magmax --track styles --suite tiny`" in page


def test_the_page_explains_the_shares_in_a_line_each(submissions, tmp_path):
    page = build(submissions, tmp_path / "out")[1].read_text()
    for name in ("Learned", "Kept"):
        [line] = [line for line in page.splitlines() if line.startswith(f"- *{name}*")]
        assert "share" in line
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("orders", "says"),
    [
        (2, "aired t test over 2 orders with Holm's correction over all pairs"),
        (9, "ign-flip test over 9 orders of all pairs at once (step-down max-T; exact)"),
        (
            18,
            "ign-flip test over 18 orders of all pairs at once (step-down max-T; 100,000 random flips, seed 20241005)",
        ),
    ],
)
def test_the_page_and_its_data_say_how_p_is_made(tmp_path, orders, says):
    track = SUITE.track("styles")
    more = track.model_copy(update={"orders": {str(number): (2, 0, 1) for number in range(orders)}})
    suite = SUITE.model_copy(update={"tracks": {**SUITE.tracks, "styles": more}})
    for seed, (method, level) in enumerate(LEVELS.items()):
        submit(tmp_path / "submissions", make_result(suite, "styles", method, seed=seed, level=level))
    write_tables(boards_of(tmp_path / "submissions", suite), tmp_path / "out")
    page = (tmp_path / "out/tiny/styles.md").read_text()
    text = " ".join(page.split()).replace("Sign- flip", "Sign-flip")
    assert f"over {orders} orders" in text
    assert says in text
    assert says in json.loads((tmp_path / "out/tiny/styles.json").read_text())["test"]
    assert " 0.000 |" not in page.partition("How sure")[2], "no p is shown as 0"
    assert cells(page)["merge_init"]["Rank"] == "1"


def test_text_from_a_submission_stays_text(submissions, tmp_path):
    command = "clbench ``x`` | <script>alert(1)</script>\n\n# heading `"
    build_beside(submissions, {"command": command}, tmp_path / "out")
    page = (tmp_path / "out/tiny/styles.md").read_text()
    assert "- `odd`: ``` clbench ``x`` | <script>alert(1)</script> # heading ` ```\n" in page
    assert "\n# heading" not in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`a`", r"\`a\`"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("a\n\n# b", r"a \# b"),
        ("[x](y) ![z]", r"\[x\](y) \!\[z\]"),
        ("merge *all* __x__ ~~y~~ \\", r"merge \*all\* \_\_x\_\_ \~\~y\~\~ \\"),
        ("0.670 ± 0.013 – 12.0 kB", "0.670 ± 0.013 – 12.0 kB"),
    ],
)
def test_markdown_characters_are_escaped(text, expected):
    assert escape(text) == expected


def test_a_pipe_in_a_code_cell_does_not_split_the_table():
    assert code_span("a`b") == "``a`b``"
    assert r"`a\|b`" in to_markdown(Table((Column("x"),), ((Cell("a|b", mark="code"),),)))


def test_invalid_and_partial_submissions_are_all_named_and_no_page_is_written(submissions, tmp_path):
    submit(submissions, make_result(SUITE, method="hasty", quick=True))
    liar = make_result(SUITE, "objects", "liar")
    score = liar.summary["dino"]["average_score"]
    assert score is not None
    liar.summary["dino"]["average_score"] = score.model_copy(update={"mean": 0.99})
    submit(submissions, liar)
    (submissions / "tiny/styles/broken.json").write_text("{")
    (submissions / "tiny/stray.json").write_bytes((submissions / "tiny/styles/naive.json").read_bytes())
    with pytest.raises(ClbenchError) as caught:
        build(submissions, tmp_path / "out")
    message = str(caught.value)
    for part in ("hasty.json: CLB004", "liar.json: CLB016", "broken.json is not a result", "stray.json: CLB017"):
        assert part in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_submission_to_an_unknown_suite_is_named(submissions, tmp_path):
    def load(name: str):
        raise ClbenchError(f"there is no suite {name!r}")

    with pytest.raises(ClbenchError, match=r"naive\.json: there is no suite 'tiny'"):
        read_submissions(submissions, load)


def test_no_submissions_make_no_pages(tmp_path):
    assert build(tmp_path / "none", tmp_path / "out") == []


def test_sample_grids_that_exist_are_embedded_by_a_relative_link(submissions, tmp_path):
    grid = tmp_path / "docs/samples/tiny/styles/naive.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"")
    objects, styles = build(submissions, tmp_path / "out", samples=tmp_path / "docs/samples")
    assert "(<../../docs/samples/tiny/styles/naive.png>)" in styles.read_text()
    assert "Samples" not in objects.read_text()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (372_000_000, "372.0 MB"),
    ],
)
def test_sizes_are_shown_in_decimal_units(size, text):
    assert format_bytes(size) == text
