"""The site as files: reproducible, self-contained, and nobody else's folder to tidy."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from boards import REGIMES, contents, load, submitted
from builders import make_result, tiny_suite
from paths import SUPPORT

from clbench.errors import ClbenchError
from clbench.leaderboard import make_boards
from clbench.leaderboard.site import build, build_site
from clbench.results.analysis import analyze
from clbench.utils.files import write_atomic


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


def test_a_rebuild_gives_the_same_bytes_anywhere(full_boards, site, tmp_path):
    for _ in range(2):
        build_site(full_boards, tmp_path / "deep/er")
        assert contents(tmp_path / "deep/er") == contents(site)


def test_hash_order_does_not_reach_the_pages(tmp_path):
    submitted(tmp_path / "submissions")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from boards import load\n"
        "from clbench.leaderboard import make_boards, read_submissions\n"
        "from clbench.leaderboard.site import build_site\n"
        "methods = read_submissions(Path(sys.argv[2]), load)\n"
        "build_site(make_boards(methods, load=load), Path(sys.argv[3]))\n"
        "assert not {'torch', 'scipy.stats', 'PIL'} & sys.modules.keys()"
    )
    arguments = [str(SUPPORT), str(tmp_path / "submissions")]
    for seed in ("1", "2"):
        out = str(tmp_path / seed)
        subprocess.run([sys.executable, "-c", script, *arguments, out], check=True, env={"PYTHONHASHSEED": seed})
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_building_needs_neither_torch_nor_pictures_nor_all_of_scipy():
    script = (
        "import sys\n"
        "import clbench.leaderboard.site\n"
        "assert not {'torch', 'scipy.stats', 'PIL', 'diffusers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_all_that_is_written_is_returned(boards, tmp_path):
    written = build_site(boards, tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == sorted(
        contents(tmp_path / "out")
    )


def test_every_link_leads_to_a_file_of_the_site(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 1 + 2 * (1 + 1 + len(REGIMES)) + 1 + 1, (
        "the front page, the tracks, overall and the prompt study"
    )
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
    methods = [analyze(result, track) for result in results]
    build_site(make_boards(methods, load=lambda name: suite), tmp_path)
    assert max(path.stat().st_size for path in tmp_path.rglob("*.html")) < 900_000


def test_files_of_removed_methods_go_and_files_of_others_stay(methods, boards, tmp_path):
    build_site(boards, tmp_path)
    (tmp_path / "CNAME").write_text("example.org")
    (tmp_path / "tiny/styles/methods/notes.txt").write_text("mine")
    fewer = [method for method in methods if method.variant != "naive" and method.track.name != "objects"]
    build_site(make_boards(fewer, load=load), tmp_path)
    left = contents(tmp_path)
    assert left.pop("CNAME") == b"example.org"
    assert left.pop("tiny/styles/methods/notes.txt") == b"mine"
    assert not [name for name in left if "naive" in name or name.startswith("tiny/objects/methods")]
    assert not (tmp_path / "tiny/objects/methods").exists(), "a folder that became empty goes too"
    assert sorted(left) == sorted(["site-files.json", *json.loads(left["site-files.json"])["files"]])


def test_an_interrupted_build_is_known_to_the_next(boards, tmp_path, monkeypatch):
    def broken(path, write, **options):
        if path.name == "compare.html":
            raise KeyboardInterrupt
        write_atomic(path, write, **options)

    monkeypatch.setattr(build, "write_atomic", broken)
    with pytest.raises(KeyboardInterrupt):
        build_site(boards, tmp_path)
    monkeypatch.undo()
    build_site([], tmp_path)
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
        build_site([], tmp_path / "out")
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_link_out_of_the_folder_is_not_followed(boards, tmp_path):
    build_site(boards, tmp_path / "out")
    methods = tmp_path / "out/tiny/styles/methods"
    methods.rename(tmp_path / "elsewhere")
    methods.symlink_to(tmp_path / "elsewhere")
    build_site([], tmp_path / "out")
    assert (tmp_path / "elsewhere/naive.html").is_file()


def test_pages_forbid_everything_but_the_sites_own_files(site):
    for path in site.rglob("*.html"):
        assert "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'" in path.read_text()


def test_every_page_is_at_its_depth_below_the_root(site):
    for path in site.rglob("*.html"):
        depth = len(PurePosixPath(path.relative_to(site)).parts) - 1
        assert f'href="{"../" * depth}static/site.css"' in path.read_text()
