"""What the pages say."""

import csv
import json
import re

from boards import PUBLISHED, load, table

from clbench.leaderboard import make_boards
from clbench.leaderboard.site import build_site
from clbench.results.io import load_result


def test_the_front_page_is_the_first_board_with_something_measured(methods, tmp_path):
    build_site(make_boards(methods, load=load, published={"early": PUBLISHED}), tmp_path)
    assert "<title>tiny: styles" in (tmp_path / "index.html").read_text()
    assert (tmp_path / "early/styles/index.html").is_file()


def test_published_rows_are_marked_and_not_among_the_measured(site):
    page = (site / "tiny/styles/index.html").read_text()
    assert "0.777" not in table(page, "Methods measured on styles")
    published = table(page, "Published results on styles")
    assert "0.777 ± 0.022" in published
    assert "0.111" in published
    assert published.count('<span class="tag">published</span>') == published.count("<tr>") - 1 == 2
    assert "A paper, Tables 1 and 2" in page
    assert "{token}" in (site / "tiny/prompt-study.html").read_text()


def test_a_suite_with_only_published_rows_has_tabs_and_says_that_nothing_was_submitted(tmp_path):
    build_site(make_boards([], load=load, published={"printed": PUBLISHED}), tmp_path)
    page = (tmp_path / "printed/styles/index.html").read_text()
    assert "Nothing was submitted to this track yet" in page
    assert 'href="../../printed/objects/index.html"' in page
    assert 'id="board"' not in page
    assert not (tmp_path / "printed/styles/board.csv").exists()


def test_a_track_without_submissions_has_a_page(styles, tmp_path):
    build_site(make_boards(styles.methods, load=load), tmp_path)
    assert "Nothing was submitted to this track yet" in (tmp_path / "tiny/objects/index.html").read_text()


def test_nothing_at_all_makes_a_front_page_that_says_so(tmp_path):
    build_site([], tmp_path)
    assert "Nothing was submitted yet" in (tmp_path / "index.html").read_text()


def test_a_single_method_needs_no_comparison(styles, tmp_path):
    build_site(make_boards(styles.methods[:1], load=load), tmp_path)
    assert not (tmp_path / "tiny/styles/compare.html").exists()
    assert "compare.html" not in (tmp_path / "tiny/styles/index.html").read_text()


def test_the_board_shows_rank_figures_intervals_and_what_is_not_separable(site, styles):
    page = (site / "tiny/styles/index.html").read_text()
    best = styles.methods[0]
    score = best.summary["csd"]["average_score"]
    assert score is not None
    measured = table(page, "Methods measured on styles")
    assert f"{score.mean:.3f}<small>± {score.std:.3f}</small>" in measured
    assert 'title="95 % interval of the mean: ' in measured
    assert "Not separable with 2 orders: merge_init and keeper;" in page, "two orders separate little"
    order = re.findall(
        r"base model|last-task floor|real against real|methods/(\w+)\.html", measured.partition("</thead>")[2]
    )
    assert order == ["", *(method.variant for method in styles.methods), "", ""]


def test_the_board_has_the_shares_in_percent_and_says_what_they_are(site, styles):
    page = (site / "tiny/styles/index.html").read_text()
    measured = table(page, "Methods measured on styles")
    for method in styles.methods:
        for name in ("learned", "kept"):
            share = method.summary["csd"][name]
            assert share is not None
            cell = f"{100 * share.mean:.0f} %<small>± {100 * share.std:.0f} %</small>"
            assert re.search(rf'csd\.{name} of tiny/styles/{method.variant}\.json"[^>]*>{cell}', measured)
    assert re.search("<dt>Kept</dt><dd>Share of the way from the untouched model to real images", page)
    assert re.search("<dt>Learned</dt><dd>The same share of every task", page)


def test_method_and_comparison_pages_show_shares_in_percent_too(site, styles):
    best, second = styles.methods[:2]
    kept = {method.variant: method.summary["csd"]["kept"] for method in (best, second)}
    own = (site / f"tiny/styles/methods/{best.variant}.html").read_text()
    both = (site / "tiny/styles/compare.html").read_text()
    for name, share in kept.items():
        assert share is not None
        shown = f"{100 * share.mean:.0f} %"
        assert f"{shown} <span" in both[both.index('<th scope="row">kept</th>') :].partition("</tr>")[0]
        if name == best.variant:
            assert f'<th scope="row">kept</th><td>{shown}</td>' in own


def test_the_board_says_how_its_p_values_are_made(site):
    page = (site / "tiny/styles/index.html").read_text()
    assert "Paired t test over 2 orders with Holm&#39;s correction over all pairs." in page


def test_a_cell_says_where_it_comes_from_and_a_row_what_makes_it_again(site):
    measured = table((site / "tiny/styles/index.html").read_text(), "Methods measured on styles")
    assert re.search(
        r'title="95 % interval of the mean: \S+ to \S+; csd.average_score of tiny/styles/naive.json"', measured
    )
    assert 'title="csd controls.last_task_floor of all results"' in measured
    assert 'title="clbench run --method naive --track styles --suite tiny">naive</a>' in measured


def test_verification_is_shown_and_missing_is_unverified(site):
    page = (site / "tiny/styles/index.html").read_text()
    assert page.count(">recomputed</td>") == 1
    assert page.count(">unverified</td>") == 3
    assert "verification <b>recomputed</b>" in (site / "tiny/styles/methods/naive.html").read_text()


def test_a_method_page_says_what_a_registered_method_does_and_does_without_for_others(site):
    assert "Go on training the same adapter" in (site / "tiny/styles/methods/naive.html").read_text()
    assert 'class="lede"' not in (site / "tiny/styles/methods/keeper.html").read_text()


def test_a_sample_grid_is_copied_beside_its_method(site):
    assert (site / "tiny/styles/methods/naive.png").read_bytes() == b"a picture"
    assert 'src="naive.png"' in (site / "tiny/styles/methods/naive.html").read_text()
    assert "Samples" not in (site / "tiny/objects/methods/naive.html").read_text()


def test_a_result_can_be_downloaded_and_read_again(site, styles):
    for method in styles.methods:
        assert load_result(site / f"tiny/styles/methods/{method.variant}.json") == method.result


def test_the_board_can_be_downloaded_with_what_was_verified(site, styles):
    names = [method.variant for method in styles.methods]
    found = {
        row["method"]: row["verified"] for row in json.loads((site / "tiny/styles/board.json").read_text())["methods"]
    }
    assert list(found) == names
    assert found == dict.fromkeys(names, "unverified") | {"naive": "recomputed"}
    with (site / "tiny/styles/board.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file) if row["rank"]] == names


def test_every_score_and_cost_of_a_methods_page_is_in_the_csv_beside_it(site, styles):
    for method in styles.methods:
        page = (site / f"tiny/styles/methods/{method.variant}.html").read_text()
        assert f'href="{method.variant}.csv"' in page
        with (site / f"tiny/styles/methods/{method.variant}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        scores = {
            (row["order"], int(row["seed"]), row["task"], int(row["after"])): float(row["mean"])
            for row in rows
            if (row["metric"], row["figure"]) == ("csd", "score") and row["order"]
        }
        for run in method.result.runs:
            for after, line in enumerate(run.scores["csd"]):
                for task, value in zip(run.task_order, line, strict=True):
                    assert scores.get((run.order, run.seed, task, after)) == value
        [parameters] = [row["mean"] for row in rows if row["figure"] == "trainable_parameters"]
        assert f"{int(parameters):,}" in page
        [kept] = [row for row in rows if (row["metric"], row["figure"], row["task"]) == ("csd", "kept", "")]
        assert f"{100 * float(kept['mean']):.0f} %" in page
        assert float(kept["se_orders"]) > 0
        by_task = [row for row in rows if (row["metric"], row["figure"]) == ("csd", "kept") and row["task"]]
        parts = [float(row["mean"]) for row in by_task]
        assert parts
        assert all(f"{100 * part:.1f} %" in page for part in parts)
