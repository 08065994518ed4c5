"""A stranger's text is text on every page."""

from __future__ import annotations

import re

from browsing import Witness, needs_chromium
from hostile import ADDRESS, PAYLOADS
from playwright.sync_api import Page

pytestmark = needs_chromium


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
    links = page.locator(".facts a")
    if number % 2:
        assert (fields["Paper"], fields["Code"], fields["Licence"]) == (ADDRESS, ADDRESS, "MIT")
        assert fields["Contact"] == payload(12)
        assert [link.get_attribute("href") for link in links.all()] == [ADDRESS, ADDRESS]
        assert all("noopener" in (link.get_attribute("rel") or "").split() for link in links.all())
    else:
        assert links.count() == 0
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
