"""The page in a real browser."""

from __future__ import annotations

import pytest
from chromium import IN_A_BROWSER, figures_out_of_sight, sideways, unfold

pytestmark = IN_A_BROWSER


@pytest.mark.parametrize("width", [375, 1280, 2560])
def test_every_figure_is_visible_and_nothing_scrolls_sideways(open_page, html, width):
    page = open_page(width)
    assert sideways(page) <= 0
    unfold(page)
    assert sideways(page) <= 0
    assert page.locator("figure svg").count() == html.count("<figure ") > 40
    assert figures_out_of_sight(page) == []


def test_a_wide_screen_is_used_and_lines_stay_short(open_page):
    page = open_page(2560)
    width = "e => e.getBoundingClientRect().width"
    panels, text = (page.locator(s).first.evaluate(width) for s in (".panels", "#alignment > p"))
    assert panels > 0.55 * 2560
    assert text < 0.4 * 2560


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

    @pytest.mark.parametrize("width", [375, 1280])
    def test_from_the_peak_of_a_map_one_click_to_its_token(self, open_page, page_with_a_map, width):
        page = open_page(width, path=page_with_a_map)
        assert sideways(page) <= 0
        page.evaluate("document.querySelectorAll('#tokens details').forEach(d => d.open = false)")
        link = page.locator("#depth figcaption .leads a").first
        target = page.locator(link.get_attribute("href"))
        assert not target.is_visible()
        link.click()
        assert target.is_visible()
        box = target.bounding_box()
        assert 0 <= box["y"] < 900
        assert target.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"

    def test_tokens_of_a_response_from_right_to_left_follow_each_other_so(self, open_page, page_with_a_map):
        page = open_page(1280, path=page_with_a_map)
        places = page.evaluate(
            "[...document.querySelectorAll('.stream[dir=rtl] .t')].map(t => t.getBoundingClientRect().x)"
        )
        assert places[0] > places[1] > places[2]
