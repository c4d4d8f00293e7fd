"""A study's answer is the most urgent of its verdicts."""

import math

import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.studies import Study


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
