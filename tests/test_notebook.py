"""What objects show of themselves in a notebook: readable on light and dark, and escaped."""

from __future__ import annotations

import math
import re

import pytest

from opd_diag.notebook import EDGES, answer_html, figure_html, table_html
from opd_diag.records.verdict import BY_URGENCY, Verdict, VerdictList

GROUNDS = {"white": "#ffffff", "JupyterLab, dark": "#111111", "Visual Studio Code, dark": "#1e1e1e"}
"""What notebooks are written on."""


def luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def verdict(status, **more):
    nan = math.nan
    given = {
        "name": "a",
        "question": f"Is it {status}?",
        "evidence": "32 < 64 prompts.",
        "advice": "Go on.",
        "reference": "",
    }
    return Verdict(status=status, value=nan, ci_low=nan, ci_high=nan, threshold=nan, **(given | more))


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_bar_is_seen_on_every_ground(ground):
    for status, colour in EDGES.items():
        assert contrast(colour, GROUNDS[ground]) >= 3.0, status


def test_no_text_has_a_colour_of_its_own():
    shown = answer_html("fail", "no", ["why"]) + table_html(["", "b"], [["c", "1"]]) + verdict("warn")._repr_html_()
    assert not re.search(r"[;\"]color:", shown)
    assert "background" not in shown


@pytest.mark.parametrize("status", BY_URGENCY)
def test_a_verdict_shows_question_evidence_advice_and_caution(status):
    shown = verdict(status, caution="It may be <else>.")._repr_html_()
    for said in ("Is it ", "32 &lt; 64 prompts.", "What to do: Go on.", "How it misleads: It may be &lt;else&gt;."):
        assert said in shown
    assert "How it misleads" not in verdict(status)._repr_html_()


def test_a_list_of_verdicts_shows_alarms_first_and_only_names_what_passed():
    shown = VerdictList(verdict(status) for status in ("pass", "unknown", "fail", "warn"))._repr_html_()
    places = [shown.index(f"Is it {status}?") for status in ("fail", "warn", "unknown", "pass")]
    assert places == sorted(places)
    assert shown.count("32 &lt; 64 prompts.") == 3
    assert "✓ pass: 1 of 4" in shown
    assert VerdictList()._repr_html_() == ""


def test_columns_of_words_are_aligned_to_the_left_and_those_of_numbers_are_not():
    shown = table_html(["", "n", "why"], [["a", "1", "8 of 32"], ["b", "−2", "left out"]])
    looks = re.findall(r"<td( style=\"text-align:left;[^\"]*\")?>([^<]*)<", shown)
    assert [(bool(look), cell) for look, cell in looks] == [
        (True, "a"), (False, "1"), (True, "8 of 32"), (True, "b"), (False, "−2"), (True, "left out"),
    ]  # fmt: skip


HIDDEN = "a\x1b[31m\x00\u202e\u200b\U000e0041<b>"
HIDDEN_SHOWN = r"a\x1b[31m\x00\u202e\u200b\U000e0041&lt;b&gt;"


def test_what_would_not_be_seen_is_shown_wherever_a_name_may_stand():
    from opd_diag.plots.style import new_axes

    for shown in (
        answer_html("fail", HIDDEN, [HIDDEN]),
        table_html([HIDDEN, "n"], [[HIDDEN, "1"]], caption=HIDDEN),
        figure_html(new_axes().figure, HIDDEN),
        verdict("warn", question=HIDDEN, evidence=HIDDEN, advice=HIDDEN, caution=HIDDEN)._repr_html_(),
        VerdictList([verdict("fail", question=HIDDEN), verdict("pass", question=HIDDEN)])._repr_html_(),
    ):
        assert not set(shown) & set("\x1b\x00\u202e\u200b\U000e0041")
        assert HIDDEN_SHOWN in shown
    assert answer_html("fail", HIDDEN, [HIDDEN]).count(HIDDEN_SHOWN) == 2
    assert table_html([HIDDEN, "n"], [[HIDDEN, "1"]], caption=HIDDEN).count(HIDDEN_SHOWN) == 3


def test_a_figure_is_an_image_without_a_display():
    from opd_diag.plots.style import new_axes

    ax = new_axes()
    shown = figure_html(ax.figure, "a <title>")
    assert shown.startswith('<img src="data:image/svg+xml;base64,')
    assert 'alt="a &lt;title&gt;"' in shown
    assert "width:32rem;max-width:100%" in shown
    assert ax.figure._repr_html_().startswith("<img ")
