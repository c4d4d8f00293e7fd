from __future__ import annotations

import pytest

from opd_diag.report.wording import count, one_line, visible


@pytest.mark.parametrize("n", [0, 1, 2])
def test_counts(n):
    assert count(n, "state") == f"{n} state{'' if n == 1 else 's'}"


@pytest.mark.parametrize("text", ["plain", "naïve 名前 שלום", "👩‍🔬", "a\tb\nc", "می‌روم"])
def test_readable_text_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x00", "\\x00"), ("\x1b[0m", "\\x1b[0m"), ("\x7f", "\\x7f"), ("\x85", "\\u0085"), ("\ud800", "\\ud800"),
        ("\ufffe", "\\ufffe"), ("\u202e", "\\u202e"), ("\u2028", "\\u2028"), ("\ufeff", "\\ufeff"), ("\r", "\\x0d"),
        ("\U0001fffe", "\\U0001fffe"),
    ],
)  # fmt: skip
def test_hidden_text_shows(text, shown):
    assert visible(text) == shown


def test_one_line_is_one_line():
    assert one_line(" a \r\n b\u2028c ") == "a b c"
    assert len(one_line("x" * 1000)) == 300
