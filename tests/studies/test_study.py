"""A study's answer is the most urgent of its verdicts."""

import math
from dataclasses import replace

import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.studies import Shown, Study


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
    for said in ("&lt;h&gt;", "<li>&lt;f&gt;</li>", "&lt;t&gt;", "<th>&lt;b&gt;</th>", "<td>&lt;i&gt;</td>"):
        assert said in html
    assert "<h>" not in html
