"""The one sentence at the top, for every way the verdicts can fall."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.verdicts import headline

STATUSES = ("pass", "warn", "fail", "unknown")


def verdicts(own, start, task, before="pass", false="pass"):
    named = {
        "false_success": false, "alignment_on_policy": own, "alignment_at_start": start,
        "alignment_at_teacher": "pass", "accuracy": task, "patterns_compatible": before, "shared_mass": "pass",
        "entropy_gap": "pass",
    }  # fmt: skip
    nan = math.nan
    return [Verdict(n, "Is it?", s, nan, nan, nan, nan, f"evidence of {n}", "Go on.", "") for n, s in named.items()]


@pytest.mark.parametrize(
    ("own", "start", "task", "before", "status", "said"),
    [
        ("unknown", "pass", "pass", "pass", "unknown", "Nothing to compare yet"),
        ("unknown", "fail", "fail", "warn", "unknown", "Nothing to compare yet"),
        ("pass", "pass", "fail", "pass", "fail", "The student gets worse at the task while it looks more aligned"),
        ("warn", "warn", "fail", "pass", "fail", "The student gets worse at the task"),
        ("fail", "pass", "pass", "pass", "fail", "The student moves away from its teacher"),
        ("warn", "pass", "pass", "warn", "warn", "Better at the task, with no gain in alignment"),
        ("warn", "warn", "warn", "pass", "warn", "Alike from the start, and nothing is learned"),
        (
            "warn",
            "warn",
            "warn",
            "warn",
            "warn",
            "Nothing happens: no gain in alignment is established, nor at the task",
        ),
        ("pass", "pass", "pass", "warn", "pass", "The student grows like its teacher, and better at the task"),
        ("pass", "pass", "warn", "pass", "warn", "More alike, but no gain at the task is established"),
        ("pass", "pass", "unknown", "pass", "unknown", "More alike; whether anything was learned is unknown"),
        ("pass", "unknown", "pass", "unknown", "unknown", "More alike on own states; without step 0 nobody knows"),
        ("pass", "fail", "pass", "pass", "fail", "More alike on own states, less at the start's"),
        ("pass", "warn", "pass", "pass", "warn", "Better at the task, and alike where the student goes now"),
        ("pass", "warn", "unknown", "pass", "warn", "More alike where the student goes now"),
    ],
)
def test_every_branch(own, start, task, before, status, said):
    found = headline(verdicts(own, start, task, before))
    assert found.status == status
    assert found.title.startswith(said)


def test_success_needs_all_three():
    for combination in itertools.product(STATUSES, repeat=4):
        found = headline(verdicts(*combination))
        assert found.status in STATUSES
        assert found.title
        assert (found.status == "pass") is (combination[:3] == ("pass", "pass", "pass")), combination


def test_success_with_something_that_gets_worse_is_not_green():
    found = headline(verdicts("pass", "pass", "pass", false="warn"))
    assert found.status == "warn"
    assert found.title == "The student grows like its teacher, and better at the task, but something else gets worse"


def test_what_failed_is_never_green_or_unknown_to_the_reader():
    for own, start, task, before in itertools.product(STATUSES, repeat=4):
        if own != "unknown" and "fail" in (own, task):
            assert headline(verdicts(own, start, task, before)).status == "fail"


def test_facts_are_the_evidence_behind_it_without_intervals():
    made = verdicts("pass", "pass", "pass")
    made = [replace(v, evidence=f"evidence of {v.name}; difference +1.0 [0.9, 1.1], 32 prompts.") for v in made]
    facts = headline(made).facts
    behind = ("alignment_on_policy", "alignment_at_start", "alignment_at_teacher", "accuracy")
    assert facts == tuple(f"evidence of {n}." for n in behind)


def test_a_false_success_outweighs_all_else():
    for combination in itertools.product(STATUSES, repeat=4):
        found = headline(verdicts(*combination, false="fail"))
        assert found.status == "fail"
        assert found.title.startswith("False success: ")
        for other in ("pass", "warn", "unknown"):
            assert not headline(verdicts(*combination, false=other)).title.startswith("False success")
