"""Every kind of page under axe-core, with all that is folded open; and what a keyboard reaches."""

from __future__ import annotations

from chromium import IN_A_BROWSER, unfold

from opd_diag.report.study import write_study

from .made_up_study import study_with_all

pytestmark = IN_A_BROWSER


def test_the_page_of_a_run(problems_of, report):
    assert problems_of(report.out_dir / "report.html") == []


def test_the_token_view_with_a_token_held(problems_of, page_with_tokens):
    """Both models' choices at it stand at the foot of the screen."""

    def hold_one(page):
        unfold(page)
        page.locator("#tokens .t").nth(2).focus()
        assert page.locator(".peek:visible").count() == 1

    assert problems_of(page_with_tokens, hold_one) == []


def test_the_page_of_a_study(problems_of, tmp_path):
    assert problems_of(write_study(study_with_all(), tmp_path)) == []


def test_what_stands_at_a_token_needs_no_scrolling_on_a_small_phone(open_file, page_with_tokens):
    """What scrolls is out of reach of a keyboard, since it is no stop of the Tab key."""
    page = open_file(page_with_tokens, 375)
    page.set_viewport_size({"width": 375, "height": 667})
    unfold(page)
    tokens = page.locator("#tokens .t")
    hidden = [
        page.evaluate("(e => e.scrollHeight - e.clientHeight)(document.querySelector('.t:focus + .peek'))")
        for i in range(0, tokens.count(), 5)
        if tokens.nth(i).focus() is None
    ]
    assert len(hidden) > 10
    assert max(hidden) == 0
