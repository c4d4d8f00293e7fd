"""The page in a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; set CHROMIUM to its executable"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, report):
    """Open the report at a width and scheme; afterwards nothing was logged and nothing asked for."""
    opened, said, asked = [], [], []

    def at(width: int, scheme: str = "light", path: Path | None = None):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((path or report.out_dir / "report.html").as_uri())
        opened.append(page)
        return page

    yield at
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(opened)
    for page in opened:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280, 2560])
def test_every_figure_is_visible_and_nothing_scrolls_sideways(open_page, width, scheme):
    page = open_page(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure svg")
    assert figures.count() == 44
    for i in range(figures.count()):
        box = figures.nth(i).bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_headline_is_seen_without_scrolling(open_page):
    page = open_page(1280)
    box = page.locator(".headline").bounding_box()
    assert box["y"] + box["height"] < 500


def test_wide_tables_scroll_in_their_own_box(open_page):
    page = open_page(375)
    assert page.evaluate("(b => b.scrollWidth > b.clientWidth)(document.querySelector('#differences .scroll'))")


def test_no_column_of_the_changes_is_cut_off_on_a_desk(open_page):
    box = open_page(1280).locator("#differences .scroll").first
    assert box.evaluate("e => e.scrollWidth - e.clientWidth") <= 1


def test_definition_is_one_click_away(open_page):
    page = open_page(1280)
    page.locator("#alignment figcaption a.term").first.click()
    assert page.url.endswith("#def-overlap_ratio")
    assert page.locator("#def-overlap_ratio").bounding_box()["y"] < 900


def test_printing_opens_what_is_folded(open_page):
    page = open_page(800)
    advice = page.locator(".verdicts details p").first
    assert not advice.is_visible()
    page.emulate_media(media="print")
    assert advice.bounding_box()["height"] > 5


def test_text_is_legible_on_its_ground(open_page):
    """Contrast of text to its ground is 4.5 or more, for every kind of text and both schemes."""
    for scheme in ("light", "dark"):
        page = open_page(1280, scheme)
        for selector in ("body", ".muted", ".status.fail", ".status.warn", ".status.pass", "nav a", "summary", "dt"):
            assert page.evaluate(_CONTRAST, selector) >= 4.5, (scheme, selector)


_CONTRAST = """selector => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parts(c).slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  let e = document.querySelector(selector), ground = e;
  while (ground && parts(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const a = light(getComputedStyle(e).color), b = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""  # noqa: E501


@pytest.fixture(scope="module")
def page_with_tokens(report, scored, tmp_path_factory):
    from dataclasses import replace

    from opd_diag.records.vocabulary import Token
    from opd_diag.report.figures import Figures
    from opd_diag.report.page import report_page
    from opd_diag.report.tokens import token_view

    texts = ("<script>alert(1)</script>", "word ", "\n", "<img src=x onerror=alert(1)>", "مرحبا", "\u202eabc")
    vocabulary = {i: Token(texts[i % len(texts)], i % 7 == 0) for i in range(200)}
    view = token_view(scored, vocabulary, k=8)
    path = tmp_path_factory.mktemp("tokens") / "page.html"
    page = report_page(replace(report, tokens=view), Figures({}, {}, {}, []))
    path.write_text(page, encoding="utf-8")
    return path


class TestTokens:
    """The token view by mouse, by keyboard and by link; nothing of a token runs."""

    @pytest.mark.parametrize("width", [375, 1280])
    def test_by_mouse_and_by_keyboard(self, open_page, page_with_tokens, width):
        page = open_page(width, path=page_with_tokens)
        tokens, shown = page.locator("#tokens .t"), page.locator("#tokens .peek:visible")
        assert shown.count() == 0
        tokens.nth(2).hover()
        assert shown.count() == 1
        page.mouse.move(0, 0)
        tokens.nth(0).focus()
        seen = [shown.inner_text()]
        for _ in range(2):  # where the sheet scrolls, the first goes into it
            page.keyboard.press("Tab")
            assert shown.count() == 1
            seen.append(shown.inner_text())
        assert seen[2] != seen[0]
        assert "Reverse KL" in seen[0]
        box = shown.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_colours_follow_the_choice(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)

        def colours():
            return page.evaluate("[...document.querySelectorAll('.t')].map(t => getComputedStyle(t).backgroundColor)")

        by_kl = colours()
        assert len(set(by_kl)) > 5
        page.locator("#by-ov").check()
        assert colours() != by_kl

    def test_a_link_opens_the_response_and_marks_its_token(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)
        page.evaluate("document.querySelectorAll('#tokens details').forEach(d => d.open = false)")
        link = page.locator("#tokens tbody a").nth(5)
        target = page.locator(link.get_attribute("href"))
        assert not target.is_visible()
        link.click()
        assert target.is_visible()
