"""The page in a real browser: desktop and phone, light and dark, and printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.tables.table import Table
from tests.pages.browser import Browser, installed
from tests.pages.test_document import written

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium here; apt-get install chromium")

#: Elements that are wider than what they are in, but for those that scroll and what is inside of these.
OVERFLOWING = """[...document.querySelectorAll("body *")].filter((each) => {
  if (each.closest(".scroll, pre, nav") || each.closest("svg") || !each.getClientRects().length) return false;
  return each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline"
    || each.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map((each) => each.outerHTML.slice(0, 120))"""
#: Text of figures beyond the figure.
CUT = """[...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const out = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width && (box.left < out.left - 1 || box.right > out.right + 1 || box.top < out.top - 1);
  }).map((each) => each.textContent);
})"""
INK = """(() => {
  const figure = document.querySelector("details[open] figure svg text");
  return [getComputedStyle(figure).fill, getComputedStyle(document.body).color,
          getComputedStyle(document.body).backgroundColor];
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(real: Table) -> Path:
    folder = real.path.parent / "shown"
    written(real, folder)
    return folder / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_nothing_is_complained_of(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.said.clear()
    browser.requests.clear()
    browser.open(page, width, scheme=scheme)
    for unfold in (False, True):
        if unfold:
            browser.evaluate('document.querySelector("nav button").click()')
            assert browser.evaluate('document.querySelectorAll("details:not([open])").length') == 0
        assert browser.evaluate("innerWidth") == width
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(OVERFLOWING) == []
        assert browser.evaluate(CUT) == []
    assert browser.said == [] and {url for url in browser.requests if not url.startswith("data:")} == {
        page.resolve().as_uri()
    }


def test_dark_and_light(browser: Browser, page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(page, 1280, scheme=scheme)
        text, ink, paper = browser.evaluate(INK)
        assert text == ink, "the figures have the color of the text"
        seen[scheme] = (ink, paper)
    assert seen["light"] == ("rgb(31, 30, 29)", "rgb(255, 255, 255)")
    assert seen["dark"] == ("rgb(232, 230, 227)", "rgb(21, 24, 28)")


def test_a_press_on_a_column_sorts_by_it(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    column = 'document.querySelectorAll("section table")[0].querySelectorAll("tbody tr > :nth-child(2)")'
    values = f"[...{column}].map((each) => each.dataset.value || null)"
    press = 'document.querySelectorAll("section table")[0].tHead.rows[1].cells[1].querySelector("button").click()'
    for reverse in (True, False):
        browser.evaluate(press)
        found = browser.evaluate(values)
        assert isinstance(found, list) and found[-1] is None, "what is missing is last"
        known = [float(value) for value in found if value is not None]
        assert known == sorted(known, reverse=reverse) and len(known) == 4


def test_a_link_to_what_is_folded_unfolds_it(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    last = 'document.querySelector("#curves details:last-of-type")'
    assert browser.evaluate(f"{last}.open") is False
    browser.evaluate(f'document.querySelector(`td a[href="#${{{last}.id}}"]`).click()')
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert browser.evaluate(f"{last}.open") is True


def test_printed_on_paper_all_is_unfolded(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, scheme="dark")
    printed = browser.call("Page.printToPDF")["data"]
    assert len(printed) > 50_000
    browser.evaluate('dispatchEvent(new Event("beforeprint"))')
    assert browser.evaluate('document.querySelectorAll("details:not([open])").length') == 0
    browser.evaluate('dispatchEvent(new Event("afterprint"))')
    assert browser.evaluate('document.querySelectorAll("details:not([open])").length') > 0
