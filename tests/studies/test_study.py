"""A study's answer is the most urgent of its verdicts."""

import math
from dataclasses import replace

import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.studies import Picture, Shown, Study


def study(*statuses):
    nan = math.nan
    verdicts = [Verdict(f"v{i}", "?", s, nan, nan, nan, nan, ".", ".", ".") for i, s in enumerate(statuses)]
    return Study("name", "?", "!", "run", verdicts, {}, (), (), ())


@pytest.mark.parametrize(
    ("statuses", "first"),
    [(["pass", "warn", "fail"], "v2"), (["unknown", "pass", "unknown"], "v0"), (["pass", "pass"], "v0")],
)
def test_the_answer(statuses, first):
    assert study(*statuses).answer.name == first


def test_in_a_notebook_everything_is_escaped():
    shown = Shown("<t>", "", ["a", "<b>"], [["1", "<i>"]])
    html = replace(study("pass"), headline="<h>", facts=["<f>"], shown=[shown])._repr_html_()
    for said in ("&lt;h&gt;", "<br>&lt;f&gt;</div>", "&lt;t&gt;", ">&lt;b&gt;</th>", ">&lt;i&gt;</td>"):
        assert said in html
    assert "<h>" not in html


def test_words_are_told_from_numbers_column_by_column():
    assert Shown("", "", ["", "n", "why"], [["a", "1", "8 of 32"], ["b", "−", "left out"]]).words == [True, False, True]


def test_lines_under_the_headline_are_what_verdicts_saw_and_what_to_do_stands_only_under_an_alarm():
    made = study("warn", "pass")
    verdicts = [replace(v, evidence="Yes: 0.2; more, 32 prompts.", advice=f"Do {v.name}.") for v in made.verdicts]
    alarmed = replace(made, verdicts=verdicts)
    assert (list(alarmed.said), alarmed.advice) == (["Yes: 0.2."] * 2, "Do v0.")
    assert "What to do: Do v0." in alarmed._repr_html_()
    assert replace(alarmed, headline_status="pass").advice == ""
    assert list(replace(alarmed, facts=["a; b."]).said) == ["a; b."]


def test_a_picture_and_a_table_show_what_is_to_be_seen_in_them():
    from opd_diag.plots.style import new_axes

    shown = Picture("p", "<title>", "It <rises>.", new_axes)._repr_html_()
    assert shown.startswith('<img src="data:image/svg+xml;base64,')
    assert "<p>&lt;title&gt;: It &lt;rises&gt;.</p>" in shown
    assert "<p>Look &lt;here&gt;.</p>" in Shown("t", "Look <here>.", ["a"], [["b"]])._repr_html_()


def test_what_would_not_be_seen_is_shown_in_a_notebook():
    from opd_diag.plots.style import new_axes

    picture = Picture("p", "a\u202e", "b\x1b", new_axes)._repr_html_()
    assert r"<p>a\u202e: b\x1b</p>" in picture
    assert r"<p>c\u200b</p>" in Shown("t", "c\u200b", ["a"], [["b"]])._repr_html_()
