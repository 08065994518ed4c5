"""Built sites: as files, and as a browser reaches them."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from boards import PUBLISHED, SUITE, load, submit, submitted
from browsing import ARGUMENTS, CHROMIUM, Site
from builders import make_result, tiny_suite
from hostile import LONG, PAYLOADS, hostile
from playwright import sync_api
from playwright.sync_api import Browser, Page

from clbench.leaderboard import Board, make_boards, read_submissions
from clbench.leaderboard.site import build_site
from clbench.results.analysis import Analysis


@pytest.fixture(scope="session")
def methods(tmp_path_factory) -> list[Analysis]:
    """Four methods of different regimes on each of two tracks."""
    return submitted(tmp_path_factory.mktemp("submissions"))


@pytest.fixture(scope="session")
def boards(methods) -> list[Board]:
    return make_boards(methods, load=load)


@pytest.fixture(scope="session")
def styles(boards) -> Board:
    [found] = [board for board in boards if board.folder == "tiny/styles"]
    return found


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    grid = folder / "tiny/styles/naive.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"a picture")
    return folder


@pytest.fixture(scope="session")
def full_boards(methods, samples) -> list[Board]:
    """With sample grids, published rows and a method that somebody has verified."""
    boards = make_boards(methods, load=load, samples=samples, published={"tiny": PUBLISHED})
    return [replace(board, levels={"naive": "recomputed"} if board.track.name == "styles" else {}) for board in boards]


@pytest.fixture(scope="session")
def site(full_boards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build_site(full_boards, out)
    return out


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(60_000)
    sync_api.expect.set_options(timeout=60_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def local_site(methods, tmp_path_factory) -> Site:
    """Four methods of different regimes on two tracks, and a suite with published rows alone."""
    out = tmp_path_factory.mktemp("local-site")
    build_site(make_boards(methods, load=tiny_suite, published={"printed": PUBLISHED, "tiny": PUBLISHED}), out)
    return Site(out, out.as_uri() + "/")


@pytest.fixture(scope="session")
def many_methods(tmp_path_factory) -> Site:
    folder, out = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("many-site")
    for number in range(30):
        submit(make_result(SUITE, method=f"m{number:02d}", seed=number, level=0.02 + 0.03 * (7 * number % 30)), folder)
    build_site(make_boards(read_submissions(folder, load), load=load), out)
    return Site(out, out.as_uri() + "/")


@pytest.fixture(scope="session")
def served_site(local_site) -> Iterator[Site]:
    """The same site below a path of a static host."""

    class Host(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            below = path.removeprefix("/some/where/")
            return super().translate_path("/" + below if below != path else "/no/such/file")

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Host, directory=str(local_site.folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(local_site.folder, f"http://127.0.0.1:{server.server_port}/some/where/")
    server.shutdown()


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory) -> Site:
    """A suite whose version, tasks and orders are payloads, and submissions that are nothing else."""
    tiny = tiny_suite("hostile")
    track = tiny.tracks["styles"]
    tasks = tuple(task.model_copy(update={"name": name}) for task, name in zip(track.tasks, PAYLOADS[2:5], strict=True))
    orders = dict(zip(PAYLOADS[:2], track.orders.values(), strict=True))
    track = track.model_copy(update={"tasks": tasks, "orders": orders})
    suite = tiny.model_copy(update={"tracks": {"styles": track}, "version": "".join(PAYLOADS)})
    folder, out = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("hostile-site")
    for number in range(len(PAYLOADS)):
        submit(hostile(suite, number, "styles"), folder)
    submit(make_result(suite, method=LONG, seed=len(PAYLOADS)), folder)
    levels = {f"m{number}": payload for number, payload in enumerate(PAYLOADS)}
    printed = PUBLISHED.model_copy(update={"source": "".join(PAYLOADS)})
    methods = read_submissions(folder, lambda name: suite)
    boards = make_boards(methods, load=lambda name: suite, published={"hostile": printed})
    build_site([replace(board, levels=levels) for board in boards], out)
    return Site(out, out.as_uri() + "/")
