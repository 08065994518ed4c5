"""The site as files: reproducible, self-contained, and nobody else's folder to tidy."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from boards import PUBLISHED, REGIMES, SUITE, contents, load, submitted, table
from builders import make_result, tiny_suite
from paths import SUPPORT

from clbench.errors import ClbenchError
from clbench.leaderboard.build import rank_results
from clbench.leaderboard.site import build, build_site
from clbench.leaderboard.site.heat import difference_shade, score_shade
from clbench.leaderboard.site.plots import axis, hotelling, pareto, ranks, scatter, series
from clbench.results.estimates import measure
from clbench.results.io import load_result
from clbench.results.schema import Result
from clbench.utils.files import write_atomic


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> dict[tuple[str, str], list[Result]]:
    return submitted(tmp_path_factory.mktemp("submissions"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    grid = folder / "tiny/styles/naive.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"a picture")
    return folder


@pytest.fixture(scope="module")
def site(boards, samples, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    verified = {("tiny", "styles", "naive"): "recomputed"}
    build_site(boards, out, load=load, samples=samples, published={"tiny": PUBLISHED}, verified=verified)
    return out


class Page(HTMLParser):
    """What a page links to, its ids, and the text of each table by its caption."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.attributes += [name for name, _ in attrs]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


# --- The files ---


def test_a_rebuild_gives_the_same_bytes_anywhere(boards, samples, site, tmp_path):
    options = {"load": load, "samples": samples, "published": {"tiny": PUBLISHED}}
    verified = {("tiny", "styles", "naive"): "recomputed"}
    for _ in range(2):
        build_site(boards, tmp_path / "deep/er", verified=verified, **options)
        assert contents(tmp_path / "deep/er") == contents(site)


def test_hash_order_does_not_reach_the_pages(tmp_path):
    submitted(tmp_path / "submissions")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from boards import load\n"
        "from clbench.leaderboard.build import read_submissions\n"
        "from clbench.leaderboard.site import build_site\n"
        "build_site(read_submissions(Path(sys.argv[2]), load), Path(sys.argv[3]), load=load)\n"
        "assert not {'torch', 'scipy', 'PIL'} & sys.modules.keys()"
    )
    arguments = [str(SUPPORT), str(tmp_path / "submissions")]
    for seed in ("1", "2"):
        out = str(tmp_path / seed)
        subprocess.run([sys.executable, "-c", script, *arguments, out], check=True, env={"PYTHONHASHSEED": seed})
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_building_needs_neither_torch_nor_pictures_nor_scipy():
    script = (
        "import sys\n"
        "import clbench.leaderboard.site\n"
        "assert not {'torch', 'scipy', 'PIL', 'diffusers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_all_that_is_written_is_returned(boards, tmp_path):
    written = build_site(boards, tmp_path / "out", load=load)
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == sorted(
        contents(tmp_path / "out")
    )


def test_every_link_leads_to_a_file_of_the_site(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 1 + 2 * (1 + 1 + len(REGIMES)) + 1
    for path in pages:
        for link in Page(path).links:
            assert not re.match(r"[a-z]+:|/", link), f"{link} leaves the site's folder"
            name, _, anchor = link.partition("#")
            target = (path.parent / name) if name else path
            assert target.is_file(), f"{link} of {path}"
            assert not anchor or anchor in Page(target).ids


def test_ids_are_unique_and_no_page_has_inline_style_or_handlers(site):
    for path in site.rglob("*.html"):
        page = Page(path)
        assert len(page.ids) == len(set(page.ids)), path
        assert not [name for name in page.attributes if name == "style" or name.startswith("on")]


def test_a_page_weighs_less_than_a_megabyte_with_its_style_and_script(site):
    shared = sum(path.stat().st_size for path in (site / "static").iterdir())
    assert max(path.stat().st_size for path in site.rglob("*.html")) + shared < 1_000_000


def test_a_full_board_stays_below_a_megabyte(tmp_path):
    big = tiny_suite().tracks["styles"]
    tasks = tuple(big.tasks[0].model_copy(update={"name": f"task number {n}"}) for n in range(10))
    orders = {str(n): tuple(np.random.default_rng(n).permutation(10).tolist()) for n in range(4)}
    track = big.model_copy(update={"tasks": tasks, "orders": orders})
    suite = tiny_suite("full").model_copy(update={"tracks": {"styles": track}, "seeds": (0, 1, 2, 3)})
    results = [make_result(suite, method=f"method_{n}", seed=n, level=0.8 - n / 100) for n in range(24)]
    build_site({("full", "styles"): results}, tmp_path, load=lambda name: suite)
    assert max(path.stat().st_size for path in tmp_path.rglob("*.html")) < 900_000


# --- What an earlier build left ---


def test_files_of_removed_methods_go_and_files_of_others_stay(boards, tmp_path):
    build_site(boards, tmp_path, load=load)
    (tmp_path / "CNAME").write_text("example.org")
    (tmp_path / "tiny/styles/methods/notes.txt").write_text("mine")
    fewer = {place: [r for r in results if r.method.name != "naive"] for place, results in boards.items()}
    del fewer["tiny", "objects"]
    build_site(fewer, tmp_path, load=load)
    left = contents(tmp_path)
    assert left.pop("CNAME") == b"example.org"
    assert left.pop("tiny/styles/methods/notes.txt") == b"mine"
    assert not [name for name in left if "naive" in name or name.startswith("tiny/objects/methods")]
    assert not (tmp_path / "tiny/objects/methods").exists(), "a folder that became empty goes too"
    assert sorted(left) == sorted(["site-files.json", *json.loads(left["site-files.json"])["files"]])


def test_an_interrupted_build_is_known_to_the_next(boards, tmp_path, monkeypatch):
    def broken(path, write):
        if path.name == "compare.html":
            raise KeyboardInterrupt
        write_atomic(path, write)

    monkeypatch.setattr(build, "write_atomic", broken)
    with pytest.raises(KeyboardInterrupt):
        build_site(boards, tmp_path, load=load)
    monkeypatch.undo()
    build_site({}, tmp_path, load=load)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"index.html", "site.css", "site.js", "icon.svg", "site-files.json"}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": 1}', '{"files": ["../kept"]}', '{"files": ["/kept"]}', '{"files": [""]}']
)
def test_a_list_that_no_build_wrote_removes_nothing(tmp_path, text):
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/site-files.json").write_text(text)
    with pytest.raises(ClbenchError, match=r"site-files\.json is not the list of a site's files"):
        build_site({}, tmp_path / "out", load=load)
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_link_out_of_the_folder_is_not_followed(boards, tmp_path):
    build_site(boards, tmp_path / "out", load=load)
    methods = tmp_path / "out/tiny/styles/methods"
    methods.rename(tmp_path / "elsewhere")
    methods.symlink_to(tmp_path / "elsewhere")
    build_site({}, tmp_path / "out", load=load)
    assert (tmp_path / "elsewhere/naive.html").is_file()


# --- What the pages say ---


def test_the_front_page_is_the_first_board_with_something_measured(boards, tmp_path):
    build_site(boards, tmp_path, load=load, published={"early": PUBLISHED})
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
    build_site({}, tmp_path, load=load, published={"printed": PUBLISHED})
    page = (tmp_path / "printed/styles/index.html").read_text()
    assert "Nothing was submitted to this track yet" in page
    assert 'href="../../printed/objects/index.html"' in page
    assert 'id="board"' not in page
    assert not (tmp_path / "printed/styles/board.csv").exists()


def test_a_track_without_submissions_has_a_page(boards, tmp_path):
    build_site({("tiny", "styles"): boards["tiny", "styles"]}, tmp_path, load=load)
    assert "Nothing was submitted to this track yet" in (tmp_path / "tiny/objects/index.html").read_text()


def test_nothing_at_all_makes_a_front_page_that_says_so(tmp_path):
    build_site({}, tmp_path, load=load)
    assert "Nothing was submitted yet" in (tmp_path / "index.html").read_text()


def test_a_single_method_needs_no_comparison(boards, tmp_path):
    build_site({("tiny", "styles"): boards["tiny", "styles"][:1]}, tmp_path, load=load)
    assert not (tmp_path / "tiny/styles/compare.html").exists()
    assert "compare.html" not in (tmp_path / "tiny/styles/index.html").read_text()


def test_the_board_shows_rank_figures_intervals_and_what_is_not_separable(site, boards):
    page = (site / "tiny/styles/index.html").read_text()
    best = boards["tiny", "styles"][0]
    score = best.summary["csd"]["average_score"]
    assert score is not None
    measured = table(page, "Methods measured on styles")
    assert f"{score.mean:.3f}<small>± {score.std:.3f}</small>" in measured
    assert 'title="95 % interval of the mean: ' in measured
    assert "Not separable with 4 runs: merge_init and keeper;" in page, "four runs separate nothing"
    order = re.findall(
        r"base model|last-task floor|real against real|methods/(\w+)\.html", measured.partition("</thead>")[2]
    )
    assert order == ["", *(result.method.name for result in boards["tiny", "styles"]), "", ""]


def test_the_board_has_the_shares_in_percent_and_says_what_they_are(site, boards):
    page = (site / "tiny/styles/index.html").read_text()
    measured = table(page, "Methods measured on styles")
    for result in boards["tiny", "styles"]:
        for name in ("learned", "kept"):
            share = result.summary["csd"][name]
            assert share is not None
            cell = f"{100 * share.mean:.0f} %<small>± {100 * share.std:.0f} %</small>"
            assert re.search(rf'csd\.{name} of tiny/styles/{result.method.name}\.json"[^>]*>{cell}', measured)
    assert re.search("<dt>Learned</dt><dd>Share of the way from the untouched model to real images", page)
    assert re.search("<dt>Kept</dt><dd>The same share for past tasks", page)
    assert "memory" not in measured.lower()
    assert "<dt>Memory</dt>" not in page


def test_method_and_comparison_pages_show_shares_in_percent_too(site, boards):
    best, second = boards["tiny", "styles"][:2]
    kept = {result.method.name: result.summary["csd"]["kept"] for result in (best, second)}
    own = (site / f"tiny/styles/methods/{best.method.name}.html").read_text()
    both = (site / "tiny/styles/compare.html").read_text()
    for name, share in kept.items():
        assert share is not None
        shown = f"{100 * share.mean:.0f} %"
        assert f"{shown} <span" in both[both.index('<th scope="row">kept</th>') :].partition("</tr>")[0]
        if name == best.method.name:
            assert f'<th scope="row">kept</th><td>{shown}</td>' in own


def test_the_board_says_that_its_p_values_are_exact(site):
    assert "Exact sign-flip permutation test, corrected over all pairs" in (site / "tiny/styles/index.html").read_text()


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


def test_a_result_can_be_downloaded_and_read_again(site, boards):
    for result in boards["tiny", "styles"]:
        assert load_result(site / f"tiny/styles/methods/{result.method.name}.json") == result


def test_the_board_can_be_downloaded_with_what_was_verified(site, boards):
    names = [result.method.name for result in boards["tiny", "styles"]]
    found = {
        row["method"]: row["verified"] for row in json.loads((site / "tiny/styles/board.json").read_text())["methods"]
    }
    assert list(found) == names
    assert found == dict.fromkeys(names, "unverified") | {"naive": "recomputed"}
    with (site / "tiny/styles/board.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == names


def test_pages_forbid_everything_but_the_sites_own_files(site):
    for path in site.rglob("*.html"):
        assert "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'" in path.read_text()


def test_every_page_is_at_its_depth_below_the_root(site):
    for path in site.rglob("*.html"):
        depth = len(PurePosixPath(path.relative_to(site)).parts) - 1
        assert f'href="{"../" * depth}static/site.css"' in path.read_text()


# --- The plots ---


@pytest.mark.parametrize("runs", [4, 8, 16])
def test_the_ellipse_reaches_as_far_as_hotellings_region(runs):
    from scipy.stats import f

    expected = 2 * (runs - 1) / (runs - 2) * f.ppf(0.95, 2, runs - 2)
    assert hotelling(runs) == pytest.approx(expected)


def test_the_pareto_front_has_the_points_that_none_beats():
    assert pareto([(0.0, 1.0), (0.5, 0.5), (0.4, 0.4), (1.0, 0.0), (0.5, 0.2)]) == [0, 1, 3]
    assert pareto([(0.5, 0.5), (0.5, 0.5)]) == [0, 1], "equal points share it"


@pytest.mark.parametrize("values", [(0.1, 0.4), (-0.37, 0.95), (0.5,), (0.0,), (0.1234, 0.1235), (-1.0, 1.0)])
def test_an_axis_holds_its_values_and_is_ticked_at_round_numbers(values):
    found = axis(values, 0, 100)
    assert found.low < min(values) <= max(values) < found.high
    assert 2 <= len(found.ticks) <= 8
    texts = [text.replace("−", "-") for _, text in found.ticks]
    assert len(set(texts)) == len(texts)
    for at, text in found.ticks:
        assert found.at(float(text.replace("−", "-"))) == at


def test_more_plasticity_is_further_right_and_less_forgetting_further_up(boards):
    methods = [measure(result, SUITE.track("styles")) for result in boards["tiny", "styles"]]
    plot = scatter(methods, series([method.name for method in methods]), "csd")
    assert plot is not None
    places = {}
    for dot, method in zip(plot.dots, methods, strict=True):
        plasticity, forgetting = (method.figure("csd", name) for name in ("plasticity", "average_forgetting"))
        assert plasticity is not None
        assert forgetting is not None
        places[plasticity.spread.mean] = dot.x
        assert plot.box.y.at(forgetting.spread.mean) == dot.y
        assert dot.ellipse is not None
    assert all(places[a] < places[b] for a, b in pairwise(sorted(places)))
    assert plot.box.y.at(0.0) < plot.box.y.at(0.1), "less forgetting is further up, where y is smaller"


def test_the_rank_plot_has_the_boards_ranks_and_intervals_around_the_means(boards):
    track, results = SUITE.track("styles"), boards["tiny", "styles"]
    methods = [measure(result, track) for result in results]
    ranking = rank_results(track, results)
    plot = ranks(methods, series([method.name for method in methods]), "csd", ranking)
    assert [span.rank for span in plot.spans] == [standing.rank for standing in ranking.standings]
    assert all(span.low <= span.x <= span.high for span in plot.spans)


def test_many_methods_are_told_apart_by_more_than_colour():
    styles = series([f"m{n}" for n in range(24)])
    assert len({(style.css, style.marker) for style in styles}) == 24


def test_shades_run_from_the_lowest_to_the_highest_and_differences_both_ways():
    assert [score_shade(value, 0.0, 1.0).css for value in (0.0, 0.5, 1.0)] == ["h0", "h8", "h15"]
    assert score_shade(0.3, 0.3, 0.3).css == "h0"
    assert score_shade(None, 0.0, 1.0).text == ""
    assert [difference_shade(value, 0.5).css for value in (-0.5, -0.01, 0.0, 0.2, 0.5)] == [
        "n7",
        "d0",
        "d0",
        "p3",
        "p7",
    ]
    assert [difference_shade(value, 0.5).text for value in (-0.5, 0.25)] == ["−0.50", "+0.25"]
