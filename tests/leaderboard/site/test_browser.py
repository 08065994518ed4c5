"""The site in a real browser: what it does at a click or a key, on a phone, and for who sees little."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from boards import REGIMES
from browsing import Witness, needs_chromium
from hostile import LONG
from playwright.sync_api import Page, expect

pytestmark = needs_chromium
BOARD = "tiny/styles/index.html"
KINDS = (BOARD, "index.html", "tiny/styles/methods/naive.html", "tiny/styles/compare.html")
KINDS += ("printed/styles/index.html", "printed/prompt-study.html")


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


def methods(page: Page) -> list[str]:
    """The names of the board's rows that show, from the top."""
    return page.locator("#methods tr:visible th").all_inner_texts()


def all_rows(page: Page) -> list[str]:
    return page.locator("#board tbody tr:visible th").all_inner_texts()


def test_a_click_on_a_heading_sorts_the_methods_between_the_controls(page, local_site):
    page.goto(local_site.address + BOARD)
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
    page.locator("#board th", has_text="Variant").get_by_role("button").click()
    assert methods(page) == sorted(by_rank)
    assert page.locator("[aria-sort]").count() == 1
    assert all_rows(page) == ["base model", *sorted(by_rank), "last-task floor", "real against real"]
    page.locator("#board th", has_text="Rank").get_by_role("button").click()
    assert methods(page) == by_rank


def test_the_board_is_filtered_by_name_by_family_and_by_regime(page, local_site):
    page.goto(local_site.address + BOARD)
    everyone = methods(page)
    page.get_by_label("Variant", exact=True).fill("MERGE")
    assert methods(page) == ["merge_init"]
    assert page.get_by_role("status").inner_text() == "1 of 4 methods"
    assert page.locator(".key li.faint").count() == 3, "the plots follow"
    page.get_by_label("Variant", exact=True).fill("")
    page.get_by_label("Regime").select_option("strict")
    assert sorted(methods(page)) == ["merge_init", "naive"], "the others keep or grow more than one adapter"
    assert all_rows(page)[0] == "base model"
    page.get_by_label("Regime").select_option("growing")
    assert methods(page) == ["keeper"]
    page.get_by_label("Family").select_option("paper")
    assert methods(page) == [], "filters hold together"
    page.get_by_label("Regime").select_option("any")
    assert sorted(methods(page)) == ["merge_init", "naive"]
    page.get_by_label("Family").select_option("none named")
    assert methods(page) == ["steady"]
    page.get_by_label("Family").select_option("any")
    assert methods(page) == everyone
    assert page.get_by_label("Settings", exact=True).count() == 0, "all are default: there is nothing to choose"


def test_of_many_methods_the_plots_name_the_best_until_a_few_are_chosen(page, many_methods):
    page.goto(many_methods.address + BOARD)
    plot = page.get_by_role("img", name=re.compile("^CSD: what becomes"))
    named = plot.locator("text.label:visible")
    best = methods(page)[:14]
    assert sorted(named.all_text_contents()) == sorted(best)
    assert page.get_by_text("All 30 methods' signs").is_visible()
    page.get_by_label("Variant", exact=True).fill("m2")
    few = methods(page)
    assert few == [name for name in few if name.startswith("m2")]
    assert len(few) == 10
    assert sorted(named.all_text_contents()) == sorted(few)
    heights = sorted(named.evaluate_all("names => names.map(name => Number(name.getAttribute('y')))"))
    assert all(below - above >= 16 for above, below in pairwise(heights)), "no name lies over another"
    page.get_by_label("Variant", exact=True).fill("")
    assert sorted(named.all_text_contents()) == sorted(best)


def test_the_metric_switch_changes_columns_and_plots(page, local_site):
    page.goto(local_site.address + BOARD)
    assert page.get_by_role("img", name=re.compile("^CSD: learned")).is_visible()
    assert page.get_by_role("columnheader", name="CSD learned").is_visible()
    dino = page.get_by_role("group", name="Metric").first.get_by_role("button", name="DINO")
    dino.click()
    assert dino.get_attribute("aria-pressed") == "true"
    assert page.locator('button[data-metric="0"][aria-pressed="true"]').count() == 0
    assert page.get_by_role("img", name=re.compile("^DINO: learned")).is_visible()
    assert not page.get_by_role("img", name=re.compile("^CSD: learned")).is_visible()
    assert page.get_by_role("columnheader", name="DINO learned").is_visible()
    assert not page.get_by_role("columnheader", name="CSD learned").is_visible()
    for name in ("CSD kept", "DINO kept"):
        assert page.get_by_role("columnheader", name=name).is_visible(), "what ranks methods always shows"


def test_tabs_and_rows_lead_to_their_pages(page, local_site):
    page.goto(local_site.address + "index.html")
    page.get_by_role("navigation").get_by_role("link", name="tiny", exact=True).click()
    page.get_by_role("navigation").get_by_role("link", name="styles", exact=True).click()
    assert page.locator("h1").inner_text() == "tiny styles"
    page.locator("#methods").get_by_role("link", name="naive").click()
    assert page.locator("h1").inner_text() == "naive"
    page.get_by_text("Each run").first.click()
    page.get_by_text("Order 5, seed 0").first.click()
    assert page.get_by_role("region", name="CSD, order 5, seed 0").is_visible()
    assert page.get_by_role("columnheader", name="ink art").first.is_visible()


def test_keys_alone_reach_and_sort_a_column(page, local_site):
    page.goto(local_site.address + BOARD)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.textContent.startsWith('Variant')"):
            break
    else:
        pytest.fail("Tab does not reach the heading's button")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert methods(page) == sorted(REGIMES)
    page.keyboard.press("Space")
    assert methods(page) == sorted(REGIMES, reverse=True)


def test_choosing_other_methods_changes_every_cell_that_differs(page, local_site):
    page.goto(local_site.address + "tiny/styles/compare.html")

    def shown() -> list[str]:
        cells = page.locator("main td, main caption, main thead th, #verdict")
        return cells.evaluate_all("found => found.map(cell => `${cell.className} ${cell.textContent}`)")

    before = shown()
    names = page.get_by_label("First").locator("option").all_inner_texts()
    page.get_by_label("First").select_option(names[3])
    after = shown()
    assert page.locator('[data-heat="left-0"] caption').inner_text() == names[3]
    assert names[3] in page.locator("#verdict").inner_text()
    assert sum(a != b for a, b in zip(before, after, strict=True)) > 50
    page.get_by_label("First").select_option(names[0])
    assert shown() == before, "the script writes what the page was built with"
    page.get_by_label("Second").select_option(names[0])
    cells = page.locator('[data-heat="difference-0"] tbody td').all_inner_texts()
    assert {cell for cell in cells if cell} == {"+0.00"}


def test_the_command_is_copied_or_at_least_marked(page, local_site):
    page.goto(local_site.address + "tiny/styles/methods/naive.html")
    page.get_by_role("button", name="Copy").click()
    button = page.locator("[data-copy]")
    expect(button).not_to_have_text("Copy")
    if button.inner_text() == "Selected":
        assert page.evaluate("String(getSelection())").strip() == page.locator("#command").inner_text()


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_then_remembered(page, served_site):
    page.emulate_media(color_scheme="dark")
    page.goto(served_site.address + BOARD)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    assert page.get_by_role("button", name="Dark theme").get_attribute("aria-pressed") == "false"
    assert page.evaluate(background) == "rgb(255, 255, 255)" != dark
    page.goto(served_site.address + "tiny/styles/compare.html")
    assert page.evaluate(background) == "rgb(255, 255, 255)"


def test_without_scripts_everything_is_there_and_nothing_is_promised(browser, local_site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(local_site.address + BOARD)
    assert len(methods(page)) == 4
    assert page.get_by_role("columnheader", name="DINO kept").is_visible()
    assert page.locator("button:visible").count() == 0
    page.goto(local_site.address + "tiny/styles/compare.html")
    assert page.locator("noscript p").is_visible()
    assert page.locator("select:visible").count() == 0
    context.close()


@pytest.mark.parametrize("where", ["local_site", "served_site"])
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


def test_no_page_scrolls_sideways_on_a_phone_but_wide_tables_do(page, local_site, hostile_site):
    page.set_viewport_size({"width": 390, "height": 844})
    long = [f"hostile/styles/{name}.html" for name in ("index", "compare", f"methods/{LONG}")]
    for address in (*(local_site.address + name for name in KINDS), *(hostile_site.address + name for name in long)):
        page.goto(address)
        page.evaluate(UNFOLD)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    page.goto(local_site.address + BOARD)
    region = page.get_by_role("region", name="Methods measured")
    assert region.evaluate("element => element.scrollWidth > element.clientWidth")
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("element => element.scrollLeft > 0", arg=region.element_handle())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(page, local_site, scheme):
    page.emulate_media(color_scheme=scheme)
    for name in KINDS:
        page.goto(local_site.address + name)
        page.evaluate(UNFOLD)
        found = page.evaluate(CONTRAST)
        assert found["low"] == [], name
        assert found["measured"] > 20
