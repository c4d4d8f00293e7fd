"""What a page is to those who have no mouse, and on paper."""

from __future__ import annotations

import pytest
from chromium import IN_A_BROWSER, sideways, unfold

from opd_diag.report.study import write_study

from .made_up_study import study_with_all

pytestmark = IN_A_BROWSER

FOCUSED = "(e => (e.innerText || e.getAttribute('aria-label') || e.id).split('\\n')[0])(document.activeElement)"


def tab(page, times: int) -> list[str]:
    """Press the Tab key, and say what has the focus after each time."""
    found = []
    for _ in range(times):
        page.keyboard.press("Tab")
        found.append(page.evaluate(FOCUSED))
    return found


class TestKeyboard:
    def test_it_goes_from_the_skip_link_over_the_sections_to_the_verdicts(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)
        links = page.locator("header a, header [tabindex='0'], header summary").count()
        order = tab(page, 1 + links)
        assert order[0] == "Skip to the verdicts"
        nav = page.locator("nav a").all_inner_texts()
        assert order[-len(nav) :] == nav
        assert tab(page, 3)[1:] == ["What to do, and where the rule comes from"] * 2  # after the link to the interval

    def test_the_skip_link_is_seen_when_it_has_the_focus_and_skips(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)
        link = page.locator(".skip")
        assert link.bounding_box()["x"] < 0
        tab(page, 1)
        assert link.bounding_box()["x"] > 0
        page.keyboard.press("Enter")
        assert page.url.endswith("#verdicts")
        assert page.evaluate("document.querySelector('#verdicts').getBoundingClientRect().top") < 5

    def test_it_is_seen_what_has_the_focus(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)
        unfold(page)
        for kind in ("nav a", "a.term", "summary", ".scroll", "pre.text", "#by-kl", "#tokens .t"):
            page.locator(kind).first.focus()
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Tab")
            assert page.evaluate(f"document.activeElement.matches({kind!r})"), kind
            style = page.evaluate("(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))")
            assert style[0] in ("solid", "auto"), kind
            assert style[1] != "0px", kind

    def test_what_is_folded_opens_and_colours_change(self, open_page, page_with_tokens):
        page = open_page(1280, path=page_with_tokens)
        summary = page.locator("#verdicts .verdicts summary").first
        advice = page.locator("#verdicts .verdicts details p").first
        assert not advice.is_visible()
        summary.focus()
        page.keyboard.press("Enter")
        assert advice.is_visible()
        token = page.locator("#tokens .t").first
        before = token.evaluate("t => getComputedStyle(t).backgroundColor")
        page.locator("#by-kl").focus()
        for _ in range(2):
            page.keyboard.press("ArrowDown")
        assert page.locator("#by-hs").is_checked()
        assert token.evaluate("t => getComputedStyle(t).backgroundColor") != before

    def test_the_sheet_of_a_token_does_not_hide_it(self, open_page, page_with_tokens):
        page = open_page(375, path=page_with_tokens)
        page.set_viewport_size({"width": 375, "height": 667})
        unfold(page)
        page.locator("#tokens .t").first.focus()
        seen = 0
        for _ in range(20):
            if page.evaluate("document.activeElement.matches('.t')"):
                token = page.evaluate("(b => [b.top, b.bottom])(document.activeElement.getBoundingClientRect())")
                assert 0 <= token[0] < token[1] <= page.locator(".peek:visible").bounding_box()["y"]
                seen += 1
            page.keyboard.press("Tab")
        assert seen > 10


PAPER = 680
"""Pixels of A4's width between the margins."""


class TestPaper:
    @pytest.fixture
    def printed(self, open_file):
        """Lay a page out as for printing."""

        def laid_out(path):
            page = open_file(path, PAPER)
            page.emulate_media(media="print")
            return page

        return laid_out

    def test_printing_opens_what_is_folded(self, printed, report):
        page = printed(report.out_dir / "report.html")
        heights = page.evaluate(
            "[...document.querySelectorAll('details > :not(summary)')].map(e => e.getBoundingClientRect().height)"
        )
        assert len(heights) > 20
        assert min(heights) > 5

    def test_nothing_is_cut_on_paper(self, printed, report, page_with_tokens, tmp_path):
        for path in (report.out_dir / "report.html", page_with_tokens, write_study(study_with_all(), tmp_path)):
            page = printed(path)
            assert sideways(page) <= 0
            beyond = page.evaluate(
                """[...document.querySelectorAll('table, pre, figure, dd, td, th')]
                    .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                        || (getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1)
                        || (getComputedStyle(e).overflowY !== 'visible' && e.scrollHeight > e.clientHeight + 1))
                    .map(e => e.innerText.slice(0, 80))"""
            )
            assert beyond == []

    def test_what_needs_a_screen_is_left_out(self, printed, page_with_tokens):
        page = printed(page_with_tokens)
        for selector in ("nav", ".peek", ".colours input"):
            assert page.locator(f"{selector}:visible").count() == 0
        assert page.locator(".colours label:visible").all_inner_texts()[0].startswith("Reverse KL")
        assert page.locator(".colours label:visible").count() == 1

    def test_it_prints(self, printed, report):
        pdf = printed(report.out_dir / "report.html").pdf(prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF")
        assert 10 < pdf.count(b"/Type /Page\n") < 80
