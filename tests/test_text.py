"""A user's text made visible, wherever it is read: on a terminal, on a page, in a notebook."""

from __future__ import annotations

import pytest

from opd_diag.text import visible


@pytest.mark.parametrize("text", ["plain", "naïve 名前 שלום", "👩‍🔬", "a\tb\nc", "می‌روم"])
def test_readable_text_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x00", "\\x00"), ("\x1b[0m", "\\x1b[0m"), ("\x7f", "\\x7f"), ("\x85", "\\u0085"), ("\ud800", "\\ud800"),
        ("\ufffe", "\\ufffe"), ("\u202e", "\\u202e"), ("\u2028", "\\u2028"), ("\ufeff", "\\ufeff"), ("\r", "\\x0d"),
        ("\U0001fffe", "\\U0001fffe"), ("\u200b\u2060", "\\u200b\\u2060"), ("\U000e0041", "\\U000e0041"),
    ],
)  # fmt: skip
def test_hidden_text_shows(text, shown):
    assert visible(text) == shown


def test_line_feeds_and_tabs_stay_only_where_they_may():
    assert visible("a\n\tb", keep="") == r"a\n\tb"
    assert visible("a\n\tb", keep="\n") == "a\n\\tb"
    assert visible("می\u200cروم", keep="") == "می\u200cروم"
