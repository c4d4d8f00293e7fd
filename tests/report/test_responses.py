"""Which responses a page shows, and when it raises the alarm."""

from __future__ import annotations

import dataclasses

import pytest

from opd_diag.report.responses import MOST_CHARACTERS, alarm, readings, text_of
from report.made_up_report import made_up_report


@pytest.fixture
def collapse(tmp_path):
    return made_up_report(tmp_path, "collapse")


def test_responses_to_one_prompt_stand_together(collapse):
    first = readings(collapse)[0]
    assert first.prompt_id == "gsm-0"
    assert [r.checkpoint for r in first.responses] == ["step 0", "step 100", "teacher"]
    assert [r.stop for r in first.responses] == ["cut at the length limit", "ended by itself", "ended by itself"]


def test_the_alarm_shows_one_prompt_before_and_after(collapse):
    found = alarm(collapse)
    assert found.verdict.name == "false_success"
    assert [r.checkpoint for r in found.reading.responses] == ["step 0", "step 100"]


@pytest.mark.parametrize("status", ["pass", "warn", "unknown"])
def test_no_alarm_unless_it_is_a_false_success(collapse, status):
    verdicts = [dataclasses.replace(v, status=status) if v.name == "false_success" else v for v in collapse.verdicts]
    assert alarm(dataclasses.replace(collapse, verdicts=verdicts)) is None


def test_without_a_prompt_that_both_answered_nothing_is_shown(collapse):
    first, last = list(collapse.excerpts)[:2]
    apart = collapse.excerpts | {first: collapse.excerpts[first][:1], last: collapse.excerpts[last][1:]}
    assert alarm(dataclasses.replace(collapse, excerpts=apart)).reading is None


def test_long_texts_are_cut_and_the_rest_counted():
    assert text_of("x" * (MOST_CHARACTERS + 5)) == dataclasses.replace(text_of("x" * MOST_CHARACTERS), left_out=5)
