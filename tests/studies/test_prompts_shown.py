"""What the page of the prompts study says in words."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.stats import Estimate
from opd_diag.studies.prompts_shown import TITLES, chosen_shown, groups_shown, headline, sets_shown
from opd_diag.tables.prompts import QUANTITIES
from opd_diag.tables.selection import Choice

NAN = math.nan
CHOICE = Choice(10, "student_overlap_mass")


def at(value, half=0.1):
    return Estimate(value, value - half, value + half, half / 2, 20, 10, 0, degrees_of_freedom=9.0)


NONE = Estimate(NAN, NAN, NAN, NAN, 0, 0, 0)
FOUND = dict.fromkeys(QUANTITIES, (at(0.5), at(0.7), at(0.2))) | {"teacher_lead": (NONE, NONE, NONE)}


def verdict(name, status):
    return Verdict(name, "?", status, NAN, NAN, NAN, NAN, "", "", "")


def of_selection(alignment, entropy="pass", lead="pass"):
    names = {"selection_alignment": alignment, "selection_entropy": entropy, "selection_lead": lead}
    return headline([verdict(name, status) for name, status in names.items()], CHOICE, 40, [])


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (("pass",), "the ranking holds on new responses"),
        (("pass", "warn", "warn"), "but little to learn on them, less student entropy"),
        (("warn",), "on new responses they are no better than the others"),
        (("unknown",), "whether they differ beyond chance is not established"),
    ],
)
def test_the_headline_of_a_selection(statuses, said):
    assert of_selection(*statuses) == f"10 of 40 prompts chosen by student overlap mass: {said}"


@pytest.mark.parametrize(
    ("status", "lead", "said"),
    [
        ("pass", NONE, "Nothing is closer than what is in use"),
        ("warn", NONE, "Student and teacher are closer with new"),
        ("warn", at(-0.3), "Student and teacher are closer with new, but the teacher leads by less"),
        ("warn", at(-0.3, 0.0), "Student and teacher are closer with new"),
        ("unknown", NONE, "Which is closer is not established yet"),
    ],
)
def test_the_headline_of_a_comparison(status, lead, said):
    found = [("own", "new", FOUND | {"teacher_lead": (at(0.5), at(0.5), lead)}, True)]
    assert headline([verdict("template[new]", status)], None, 40, found) == said


def test_chosen_stand_before_the_others():
    shown = chosen_shown(FOUND, CHOICE)
    assert shown.columns == ["", "chosen", "others", "difference"]
    assert shown.rows[0] == ["Student overlap mass", "0.70 [0.60, 0.80]", "0.50 [0.40, 0.60]", "+0.20 [+0.10, +0.30]"]
    assert len(shown.rows) == len(QUANTITIES) - 1  # nothing was graded
    assert set(TITLES) == set(QUANTITIES)


def test_every_set_has_its_difference():
    shown = sets_shown([("own", "a", FOUND, True), ("own", "b", FOUND, False)])
    assert shown.columns == ["", "own", "a", "difference", "b", "difference"]
    assert all(len(row) == 6 for row in shown.rows)
    assert shown.reading == (
        "Compared as sets, or prompt by prompt where ids agree; differences from own, with 95 % intervals over prompts."
    )


def test_groups_by_size():
    table = pd.DataFrame({"group": ["a", "b", "b", None], "outcome": ["top", "drawn", "low entropy", "lower"]})
    assert groups_shown(table).rows == [
        ["b", "2", "0", "1", "1"],
        ["a", "1", "1", "0", "0"],
        ["no group", "1", "0", "0", "0"],
    ]
