"""The rule on continuations, on counts made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.tables.continuations import ATTEMPT_COLUMNS
from opd_diag.verdicts import DEFAULTS
from opd_diag.verdicts.continuing import Lost, continuation_advantage, lost_between

PROMPTS = 100


def attempts(start, by_depth, prompts=PROMPTS):
    """`start`: how often of 100 teacher and student are right; `by_depth`: the same after each kind of prefix."""
    parts = [("none", 0, start)]
    parts += [(kind, depth, of) for depth, kinds in by_depth.items() for kind, of in kinds.items()]
    rows = [
        (kind, depth, writer, prompt, 0, float((prompt * 37 + 11 * i) % prompts < right * prompts / 100), 1.0, 0.0)
        for kind, depth, shares in parts
        for i, (writer, right) in enumerate(zip(("teacher", "student"), shares, strict=True))
        for prompt in range(prompts)
    ]
    return pd.DataFrame(rows, columns=ATTEMPT_COLUMNS)


def kinds(student, teacher, filler=(80, 40)):
    return {"student": student, "teacher": teacher, "filler": filler}


LASTS = {4: kinds((88, 40), (90, 40)), 8: kinds((60, 50), (62, 51))}
"""After 8 tokens little is left to decide, whoever wrote them."""

LOST = {4: kinds((88, 40), (90, 40)), 8: kinds((45, 40), (90, 45))}


def test_what_is_lost_after_the_teachers_own_too_is_not_held_against_the_student():
    found = continuation_advantage(attempts((90, 40), LASTS), DEFAULTS)
    assert (found.name, found.status, found.threshold) == ("continuation_advantage", "pass", 0.1)
    assert lost_between(attempts((90, 40), LASTS), DEFAULTS) is None
    assert found.evidence.startswith("It lasts at δ = 0.1: going on, the teacher is right more often than the student")


def test_what_the_students_own_words_lose():
    continued = attempts((90, 40), LOST)
    found = continuation_advantage(continued, DEFAULTS)
    assert found.status == "warn"
    assert lost_between(continued, DEFAULTS) == Lost(4, 8)
    assert found.value == pytest.approx(0.45 - 0.05)
    assert "after the student's own first 8 tokens" in found.evidence
    assert found.evidence.endswith(
        "less than after filler as long; after 8 tokens of the student's the teacher itself is right in 0.45, after "
        "its own in 0.90; 100 prompts."
    )


def test_lost_at_the_first_depth_already():
    continued = attempts((90, 40), {4: LOST[8], 8: LOST[8]})
    assert lost_between(continued, DEFAULTS) == Lost(0, 4)
    assert continuation_advantage(continued, DEFAULTS).advice == (
        "Train on responses that end before (below 4 tokens; try smaller --depths), or let the teacher write the "
        "beginnings."
    )
    assert continuation_advantage(attempts((90, 40), LOST), DEFAULTS).advice == (
        "Train on responses that end before, or let the teacher write the beginnings."
    )


@pytest.mark.parametrize(("lost", "at_once"), [(Lost(0, 4), True), (Lost(4, 8), False)])
def test_whether_it_is_lost_at_once(lost, at_once):
    assert lost.at_once == at_once


def test_without_a_lead_there_is_none_to_lose():
    found = continuation_advantage(attempts((60, 60), LOST), DEFAULTS)
    assert (found.status, math.isnan(found.value)) == ("unknown", True)
    assert found.evidence.startswith("From the start of a response no lead of the teacher in accuracy is established (")
    assert found.evidence.endswith(
        "so that there is none to lose; after 8 tokens of the student's the teacher itself is right in 0.45, after its "
        "own in 0.90; 100 prompts."
    )


def test_neither():
    found = continuation_advantage(attempts((90, 40), {4: kinds((75, 40), (90, 45))}, prompts=20), DEFAULTS)
    assert found.status == "unknown"
    assert found.evidence.startswith("Inconclusive at δ = 0.1")
    assert "would tell" in found.evidence or "would be needed" in found.evidence


@pytest.mark.parametrize("prompts", [0, 3])
def test_too_few_prompts_say_how_many(prompts):
    found = continuation_advantage(attempts((90, 40), LOST, prompts), DEFAULTS)
    assert found.status == "unknown"
    assert found.evidence == (
        f"{prompts} prompts are too few for an interval that means something; at least 5 are needed."
    )


def test_without_filler_nothing_is_said_of_it():
    depths = {8: {"student": (45, 40), "teacher": (90, 45)}}
    assert "filler" not in continuation_advantage(attempts((90, 40), depths), DEFAULTS).evidence


def test_of_many_depths_each_must_be_surer():
    """A loss of 0.22 [0.13, 0.31] at 95 %; at the level of twenty depths it reaches down to 0.08."""
    barely, level = kinds((68, 40), (90, 40)), kinds((90, 40), (90, 40))
    assert lost_between(attempts((90, 40), {1: barely}), DEFAULTS) == Lost(0, 1)
    assert lost_between(attempts((90, 40), {1: barely} | dict.fromkeys(range(2, 21), level)), DEFAULTS) is None
