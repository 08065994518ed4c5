"""The site in a real browser: what it does at a click or a key, on a phone, and with a stranger's text in it."""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from boards import LEVELS, PUBLISHED, REGIMES
from builders import make_result, signed, tiny_suite
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from clbench.leaderboard.build import read_submissions
from clbench.leaderboard.site import build_site
from clbench.results.io import save_result
from clbench.results.schema import Environment, Result
from clbench.suite import Suite

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `apt-get install chromium` brings one"),
]

PAYLOADS = (
    "<script>window.__xss=1</script>",
    "</script><script>window.__xss=1</script>",
    "<img src=x onerror=window.__xss=1>",
    '"><img src=x onerror=window.__xss=1>',
    "'><svg onload=window.__xss=1>",
    "<svg/onload=window.__xss=1>",
    "<svg><script>window.__xss=1</script></svg>",
    "<iframe src=javascript:window.__xss=1></iframe>",
    "<iframe srcdoc='<script>parent.__xss=1</script>'></iframe>",
    "<a href=javascript:window.__xss=1 autofocus onfocus=window.__xss=1>x</a>",
    '" autofocus onfocus="window.__xss=1',
    "' onmouseover='window.__xss=1",
    "` onclick=`window.__xss=1",
    "<body onload=window.__xss=1>",
    "<details open ontoggle=window.__xss=1>x</details>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.__xss=1>",
    "</title><script>window.__xss=1</script>",
    "</code></pre><script>window.__xss=1</script>",
    "<!--><script>window.__xss=1</script>-->",
    "<style>@import 'https://example.org/x.css'; * { background: url(https://example.org/x) }</style>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<meta http-equiv=refresh content='0; url=https://example.org/'>",
    "<base href=https://example.org/>",
    "<object data=https://example.org/x></object><embed src=https://example.org/x>",
    "<template><script>window.__xss=1</script></template>",
    "{{ 7 * 7 }}{% raw %}${7*7}#{7*7}",
    "&lt;script&gt;window.__xss=1&lt;/script&gt;",
    "\\u003cscript\\u003ewindow.__xss=1\\u003c/script\\u003e",
    "javascript:window.__xss=1//",
    "]]><script>window.__xss=1</script>",
)
"""Each ends up in every free-text field of some submission."""
LONG = "a_name_of_64_letters".ljust(64, "x")
"""As long as a method's name may be."""


@dataclass
class Site:
    """A built site and how it is reached."""

    folder: Path
    address: str
    """With a trailing slash."""

    @property
    def pages(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.html"))


@dataclass
class Witness:
    """What a page did besides showing itself."""

    told: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.told.append(f"error: {error}"))
        page.on("dialog", self.refuse)
        page.on("request", lambda request: self.asked.append(request.url))

    def refuse(self, dialog: Dialog) -> None:
        self.told.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


def submit(folder: Path, result: Result, regime: str = "adapter") -> None:
    runs = tuple(run.model_copy(update={"regime": regime}) for run in result.runs)
    result = signed(result.model_copy(update={"runs": runs}))
    save_result(result, folder / result.suite.name / result.track / f"{result.method.name}.json")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    """Four methods of different regimes on two tracks, and a suite with published rows alone."""
    suite, folder, out = tiny_suite(), tmp_path_factory.mktemp("submissions"), tmp_path_factory.mktemp("site")
    for seed, (method, regime) in enumerate(REGIMES.items()):
        for track in suite.tracks:
            submit(folder, make_result(suite, track, method, seed, LEVELS[method]), regime)
    boards = read_submissions(folder, lambda name: suite)
    build_site(boards, out, load=tiny_suite, published={"printed": PUBLISHED, "tiny": PUBLISHED})
    return Site(out, out.as_uri() + "/")


@pytest.fixture(scope="session")
def served(site) -> Iterator[Site]:
    """The same site below a path of a static host."""

    class Host(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            below = path.removeprefix("/some/where/")
            return super().translate_path("/" + below if below != path else "/no/such/file")

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Host, directory=str(site.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(site.folder, f"http://127.0.0.1:{server.server_port}/some/where/")
    server.shutdown()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield context.new_page()
    context.close()


BOARD = "tiny/styles/index.html"
KINDS = (BOARD, "index.html", "tiny/styles/methods/naive.html", "tiny/styles/compare.html")
KINDS += ("printed/styles/index.html", "printed/prompt-study.html")


def methods(page: Page) -> list[str]:
    """The names of the board's rows that show, from the top."""
    return page.locator("#methods tr:visible th").all_inner_texts()


def all_rows(page: Page) -> list[str]:
    return page.locator("#board tbody tr:visible th").all_inner_texts()


# --- The board ---


def test_a_click_on_a_heading_sorts_the_methods_between_the_controls(page, site):
    page.goto(site.address + BOARD)
    by_rank = methods(page)
    heading = page.locator("#board th", has_text=re.compile(r"^CSD\sforgetting"))
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending", "less forgetting first"
    values = page.locator(f"#methods td:nth-child({heading.evaluate('th => th.cellIndex') + 1})")
    shown = values.evaluate_all("cells => cells.map(cell => Number(cell.dataset.sort))")
    assert shown == sorted(shown)
    assert methods(page) != by_rank
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert values.evaluate_all("cells => cells.map(cell => Number(cell.dataset.sort))") == sorted(shown, reverse=True)
    page.locator("#board th", has_text="Method").get_by_role("button").click()
    assert methods(page) == sorted(by_rank)
    assert page.locator("[aria-sort]").count() == 1
    assert all_rows(page) == ["base model", *sorted(by_rank), "last-task floor", "real against real"]
    page.locator("#board th", has_text="Rank").get_by_role("button").click()
    assert methods(page) == by_rank


def test_the_board_is_filtered_by_name_and_by_regime(page, site):
    page.goto(site.address + BOARD)
    everyone = methods(page)
    page.get_by_label("Method", exact=True).fill("MERGE")
    assert methods(page) == ["merge_init"]
    assert page.get_by_role("status").inner_text() == "1 of 4 methods"
    assert page.locator(".key li.faint").count() == 3, "the plots follow"
    page.get_by_label("Method", exact=True).fill("")
    strict = page.get_by_role("button", name="Strict regimes only")
    strict.click()
    assert strict.get_attribute("aria-pressed") == "true"
    assert sorted(methods(page)) == ["merge_init", "naive"], "the others keep or grow more than one adapter"
    assert all_rows(page)[0] == "base model"
    strict.click()
    assert methods(page) == everyone


def test_the_metric_switch_changes_columns_and_plots(page, site):
    page.goto(site.address + BOARD)
    assert page.get_by_role("img", name=re.compile("^CSD: plasticity")).is_visible()
    assert page.get_by_role("columnheader", name="CSD kept").is_visible()
    dino = page.get_by_role("group", name="Metric").first.get_by_role("button", name="DINO")
    dino.click()
    assert dino.get_attribute("aria-pressed") == "true"
    assert page.locator('button[data-metric="0"][aria-pressed="true"]').count() == 0
    assert page.get_by_role("img", name=re.compile("^DINO: plasticity")).is_visible()
    assert not page.get_by_role("img", name=re.compile("^CSD: plasticity")).is_visible()
    assert page.get_by_role("columnheader", name="DINO kept").is_visible()
    assert not page.get_by_role("columnheader", name="CSD kept").is_visible()
    assert page.locator("#board th", has_text=re.compile(r"^CSD\sscore")).is_visible(), "scores always show"


def test_tabs_and_rows_lead_to_their_pages(page, site):
    page.goto(site.address + "index.html")
    page.get_by_role("navigation").get_by_role("link", name="tiny", exact=True).click()
    page.get_by_role("navigation").get_by_role("link", name="styles", exact=True).click()
    assert page.locator("h1").inner_text() == "tiny styles"
    page.locator("#methods").get_by_role("link", name="naive").click()
    assert page.locator("h1").inner_text() == "naive"
    page.get_by_text("Each run").first.click()
    page.get_by_text("Order 5, seed 0").first.click()
    assert page.get_by_role("region", name="CSD, order 5, seed 0").is_visible()
    assert page.get_by_role("columnheader", name="ink art").first.is_visible()


def test_keys_alone_reach_and_sort_a_column(page, site):
    page.goto(site.address + BOARD)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.textContent.startsWith('Method')"):
            break
    else:
        pytest.fail("Tab does not reach the heading's button")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert methods(page) == sorted(REGIMES)
    page.keyboard.press("Space")
    assert methods(page) == sorted(REGIMES, reverse=True)


# --- Compare, copy, theme ---


def test_choosing_other_methods_changes_every_cell_that_differs(page, site):
    page.goto(site.address + "tiny/styles/compare.html")

    def shown() -> list[str]:
        cells = page.locator("main td, main caption, main thead th, #verdict")
        return cells.evaluate_all("found => found.map(cell => `${cell.className} ${cell.textContent}`)")

    before = shown()
    names = page.get_by_label("First").locator("option").all_inner_texts()
    page.get_by_label("First").select_option(names[3])
    after = shown()
    assert page.locator('[data-heat="left-0"] caption').inner_text() == names[3]
    assert names[3] in page.locator("#verdict").inner_text()
    assert sum(a != b for a, b in zip(before, after, strict=True)) > 60
    page.get_by_label("First").select_option(names[0])
    assert shown() == before, "the script writes what the page was built with"
    page.get_by_label("Second").select_option(names[0])
    cells = page.locator('[data-heat="difference-0"] tbody td').all_inner_texts()
    assert {cell for cell in cells if cell} == {"+0.00"}


def test_the_command_is_copied_or_at_least_marked(page, site):
    page.goto(site.address + "tiny/styles/methods/naive.html")
    page.get_by_role("button", name="Copy").click()
    button = page.locator("[data-copy]")
    expect(button).not_to_have_text("Copy")
    if button.inner_text() == "Selected":
        assert page.evaluate("String(getSelection())").strip() == page.locator("#command").inner_text()


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_then_remembered(page, served):
    page.emulate_media(color_scheme="dark")
    page.goto(served.address + BOARD)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    assert page.get_by_role("button", name="Dark theme").get_attribute("aria-pressed") == "false"
    assert page.evaluate(background) == "rgb(255, 255, 255)" != dark
    page.goto(served.address + "tiny/styles/compare.html")
    assert page.evaluate(background) == "rgb(255, 255, 255)"


def test_without_scripts_everything_is_there_and_nothing_is_promised(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.address + BOARD)
    assert len(methods(page)) == 4
    assert page.get_by_role("columnheader", name="DINO kept").is_visible()
    assert page.locator("button:visible").count() == 0
    page.goto(site.address + "tiny/styles/compare.html")
    assert page.locator("noscript p").is_visible()
    assert page.locator("select:visible").count() == 0
    context.close()


# --- Every kind of page ---


@pytest.mark.parametrize("where", ["site", "served"])
def test_no_page_complains_or_asks_for_anything_but_the_sites_own_files(page, where, request):
    reached = request.getfixturevalue(where)
    witness = Witness()
    witness.watch(page)
    page.on(
        "response", lambda response: response.status < 400 or witness.told.append(f"{response.status} {response.url}")
    )
    for name in KINDS:
        page.goto(reached.address + name, wait_until="load")
        page.evaluate("document.querySelectorAll('button').forEach((button) => button.click())")
    assert witness.told == []
    assert {url.removeprefix(reached.address) for url in witness.asked} == {
        *KINDS,
        *(f"static/{name}" for name in ("site.css", "site.js", "icon.svg")),
    }


def test_no_page_scrolls_sideways_on_a_phone_but_wide_tables_do(page, site, hostile_site):
    page.set_viewport_size({"width": 390, "height": 844})
    long = [f"hostile/styles/{name}.html" for name in ("index", "compare", f"methods/{LONG}")]
    for address in (*(site.address + name for name in KINDS), *(hostile_site.address + name for name in long)):
        page.goto(address)
        page.evaluate(UNFOLD)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    page.goto(site.address + BOARD)
    region = page.get_by_role("region", name="Methods measured")
    assert region.evaluate("element => element.scrollWidth > element.clientWidth")
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("element => element.scrollLeft > 0", arg=region.element_handle())


UNFOLD = """
for (const details of document.querySelectorAll("details")) {
  details.removeAttribute("name"); // else opening one run closes the others
  details.open = true;
}
"""

CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (channels) => {
    const [r, g, b] = channels.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgba(getComputedStyle(one).backgroundColor);
      if (found[3] === 255) return found;
      if (found[3] !== 0) throw new Error("a half transparent background");
    }
    return [255, 255, 255];
  };
  const low = [];
  let measured = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const [ink, paper] = element.closest("svg") ? [style.fill, element.closest("figure")] : [style.color, element];
    const [a, b] = [light(rgba(ink).slice(0, 3)), light(behind(paper).slice(0, 3))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    measured += 1;
    if (ratio < 4.5) low.push(`${element.tagName} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return { low, measured };
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(page, site, scheme):
    page.emulate_media(color_scheme=scheme)
    for name in KINDS:
        page.goto(site.address + name)
        page.evaluate(UNFOLD)
        found = page.evaluate(CONTRAST)
        assert found["low"] == [], name
        assert found["measured"] > 20


# --- A stranger's text ---


def hostile(suite: Suite, number: int, track: str) -> Result:
    """A valid result with payloads in all its free text: each field has another one, and over the results all."""

    def payload(place: int) -> str:
        return PAYLOADS[(number + place) % len(PAYLOADS)]

    result = make_result(suite, track, f"m{number}", seed=number)
    everything = {f"{name} {value}": value for name, value in enumerate(PAYLOADS)}
    return result.model_copy(
        update={
            "submitter": payload(0),
            "command": payload(1),
            "settings": everything,
            "method": result.method.model_copy(
                update={
                    "version": payload(2),
                    "config": {**everything, "deep": [everything]},
                    "distribution": payload(3),
                }
            ),
            "backbone": result.backbone.model_copy(update={"id": payload(4), "revision": payload(5)}),
            "environment": Environment(
                python=payload(6),
                platform=payload(7),
                processor=payload(8),
                device=payload(9),
                packages={**everything, payload(10): None},
                git_commit=payload(11),
            ),
        }
    )


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
        submit(folder, hostile(suite, number, "styles"))
    submit(folder, make_result(suite, method=LONG))
    levels = {("hostile", "styles", f"m{number}"): payload for number, payload in enumerate(PAYLOADS)}
    printed = PUBLISHED.model_copy(update={"source": "".join(PAYLOADS)})
    boards = read_submissions(folder, lambda name: suite)
    build_site(boards, out, load=lambda name: suite, published={"hostile": printed}, verified=levels)
    return Site(out, out.as_uri() + "/")


def test_a_strangers_text_is_text_on_every_page(page, hostile_site):
    witness = Witness()
    witness.watch(page)
    for name in hostile_site.pages:
        page.goto(hostile_site.address + name)
        assert page.evaluate("window.__xss") is None, name
        elements = page.locator(
            "main :is(script:not([type='application/json']), iframe, object, embed, base, style, img)"
        )
        assert elements.count() == 0, name
        assert page.locator("footer").text_content().count("".join(PAYLOADS)) == 1
        method = re.search(r"methods/m(\d+)\.html", name)
        if method:
            shows_what_was_written(page, int(method[1]))
    page.goto(hostile_site.address + "hostile/styles/compare.html")
    page.get_by_label("First").select_option("m7")
    assert page.evaluate("window.__xss") is None
    assert witness.told == []
    assert all(url.startswith(hostile_site.address) for url in witness.asked)


def shows_what_was_written(page: Page, number: int) -> None:
    """Every free text of one submission is on its method's page, letter by letter."""

    def payload(place: int) -> str:
        return PAYLOADS[(number + place) % len(PAYLOADS)]

    names, texts = (page.locator(f".facts {kind}").all_text_contents() for kind in ("dt", "dd"))
    fields = dict(zip(names, texts, strict=True))
    assert fields["Submitted by"] == payload(0)
    assert page.locator("#command").text_content() == payload(1)
    assert fields["Method version"] == payload(2)
    assert fields["Installed from"] == payload(3)
    assert fields["Backbone"] == f"{payload(4)}, revision {payload(5)}"
    places = ("Python", "Platform", "Processor", "Device")
    assert [fields[place] for place in places] == [payload(place) for place in (6, 7, 8, 9)]
    assert fields["Git commit"] == payload(11)
    for name in ("Settings", "Configuration", "Packages"):
        assert all(f"{place} {text}" in fields[name] for place, text in enumerate(PAYLOADS))
    assert page.locator(".chips").get_by_text(f"verification {PAYLOADS[number]}", exact=True).count() == 1
