"""What is added as one entry, a statistic or a format, is shown wherever such things are."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from builders import make_result, tiny_suite
from rich.console import Console

from clbench.cli.render import render_comparison, render_result
from clbench.leaderboard import data, make_boards, write
from clbench.leaderboard.site import build_site
from clbench.results.analysis import analyze
from clbench.results.compare import compare_results
from clbench.results.eee import eee_record
from clbench.results.validation import check_result
from clbench.scores import STATISTICS, Statistic

SUITE = tiny_suite()
TRACK = SUITE.track("styles")
RESULTS = [make_result(SUITE, method=name, seed=seed) for seed, name in enumerate(("naive", "magmax"))]


@pytest.fixture
def worst(monkeypatch) -> None:
    """A statistic that came after the results were written: the lowest score in the last row."""
    added = Statistic(
        name="worst_score",
        description="lowest score after the last task",
        compute=lambda R: R[..., -1, :].min(axis=-1),
        unit="score",
        shown="headline",
        in_results=False,
    )
    monkeypatch.setitem(STATISTICS, "worst_score", added)


def printed(render, *arguments) -> str:
    console = Console(file=io.StringIO(), width=80)
    render(*arguments, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_new_statistic_is_shown_in_every_table_page_comparison_and_export(worst, tmp_path):
    methods = [analyze(result, TRACK) for result in RESULTS]
    boards = make_boards(methods, load=lambda name: SUITE)
    write.write_tables(boards, tmp_path / "tables")
    build_site(boards, tmp_path / "site")
    lowest = np.mean([run.matrix("csd")[-1].min() for run in RESULTS[0].runs])
    tables, site = tmp_path / "tables/tiny", tmp_path / "site/tiny/styles"
    page = (tables / "styles.md").read_text()
    assert "CSD worst score ↑" in page
    assert "*Worst score*: lowest score after the last task." in page
    assert f"{lowest:.3f}" in page
    assert r"CSD worst score $\uparrow$" in (tables / "styles.tex").read_text()
    rows = {row["method"]: row for row in csv.DictReader((tables / "styles.csv").read_text().splitlines())}
    assert float(rows["naive"]["csd.worst_score.mean"]) == pytest.approx(lowest)
    [own] = [one for one in json.loads((tables / "styles.json").read_text())["methods"] if one["method"] == "naive"]
    assert own["csd.worst_score.mean"] == pytest.approx(lowest)
    for path in (site / "index.html", site / "compare.html", site / "methods/naive.html"):
        assert "worst score" in path.read_text()
        assert f"{lowest:.3f}" in path.read_text()
    shown = printed(lambda console: render_result(methods[0], SUITE, console))
    assert "worst score" in shown
    assert f"{lowest:.3f}" in shown
    assert "worst score" in printed(render_comparison, compare_results(*methods))
    record = {own["evaluation_result_id"]: own for own in eee_record(RESULTS[0], SUITE)["evaluation_results"]}
    assert record["csd.worst_score"]["score_details"]["score"] == pytest.approx(lowest)
    assert "Lowest score after the last task." in record["csd.worst_score"]["metric_config"]["evaluation_description"]


def test_results_that_were_written_before_a_statistic_stay_valid_and_as_they_are(worst):
    for result in RESULTS:
        assert check_result(result, SUITE) == []
        assert analyze(result, TRACK).result == result


def test_a_new_format_is_written_and_linked_to_for_every_track_with_results(monkeypatch, tmp_path):
    added = data.Format("text", lambda board: f"{board.track.name}: {len(board.methods)}")
    monkeypatch.setitem(data.FORMATS, ".txt", added)
    methods = [analyze(result, TRACK) for result in RESULTS]
    boards = make_boards(methods, load=lambda name: SUITE)
    written = write.write_tables(boards, tmp_path)
    assert (tmp_path / "tiny/styles.txt").read_text() == "styles: 2"
    assert "and [text](styles.txt)." in (tmp_path / "tiny/styles.md").read_text()
    build_site(boards, tmp_path / "site")
    assert (tmp_path / "site/tiny/styles/board.txt").read_text() == "styles: 2"
    assert "Table as text" in (tmp_path / "site/index.html").read_text()
    assert {Path(path).suffix for path in written} == {".md", ".csv", ".json", ".tex", ".txt"}
