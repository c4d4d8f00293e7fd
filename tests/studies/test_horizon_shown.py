"""What a study of depth says of the length of responses, on made-up runs."""

from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.studies.horizon_shown import WentOn, study_of
from opd_diag.tables.continuations import CONTINUATION_COLUMNS
from opd_diag.verdicts import DEFAULTS
from opd_diag.verdicts.continuing import CONTINUING, Lost
from opd_diag.verdicts.unanswered import unknown

from .made_up_depth import seen, with_status

OPEN = unknown(*CONTINUING, "Continuations were left out.", "")
NOTHING = pd.DataFrame(columns=CONTINUATION_COLUMNS)


def study(place=None, entropy_place=None, went_on=None):
    return study_of(seen(place, entropy_place), went_on or WentOn(OPEN, NOTHING), DEFAULTS)


def suggested(made):
    return made.shown[0].rows[-1]


def test_none_seen():
    made = study(went_on=WentOn(with_status(OPEN, "pass"), NOTHING))
    assert made.headline == "No limit seen: the signal lasts through the first 12 tokens"
    assert [row[1] for row in made.shown[0].rows] == ["none seen"] * 4


def test_none_seen_says_of_what_where_the_rest_is_not_known():
    made = study()
    assert made.headline == (
        "No limit seen in the dense signal: the signal lasts through the first 12 tokens; not known: teacher's "
        "advantage in going on"
    )
    assert [row[1] for row in made.shown[0].rows] == [
        "none seen", "none seen", "not known", "none seen in the dense signal",
    ]  # fmt: skip


def test_a_break_of_the_signal():
    made = study(7)
    assert made.headline == "Keep responses to about 7 tokens: from there the dense signal breaks"
    assert suggested(made) == ("suggested maximum", "7", "7 to 7")
    assert [v.status for v in made.verdicts] == ["warn", "pass", "unknown"]


def test_the_earliest_place_counts():
    made = study(9, 4)
    assert [row[1] for row in made.shown[0].rows] == ["9", "4", "not known", "4"]


def test_the_teachers_advantage_counts_where_it_is_lost():
    warned = WentOn(with_status(OPEN, "warn"), NOTHING, Lost(3, 6))
    assert suggested(study(9, None, warned)) == ("suggested maximum", "3", "3 to 6")
    not_told = WentOn(OPEN, NOTHING, Lost(3, 6))  # lost, and yet the rule could not tell
    assert suggested(study(9, None, not_told)) == ("suggested maximum", "9", "9 to 9")


LOST_AT_ONCE = WentOn(with_status(OPEN, "warn"), NOTHING, Lost(0, 6))


def test_lost_at_the_first_depth_tried_is_no_length():
    made = study(went_on=LOST_AT_ONCE)
    assert made.headline == (
        "Keep responses below 6 tokens: after more of its own words the teacher cannot mend them; try smaller --depths"
    )
    assert made.shown[0].rows[2][1:] == suggested(made)[1:] == ("below 6", "0 to 6")


def test_lost_at_the_first_depth_tried_is_not_the_earliest_place():
    made = study(9, None, LOST_AT_ONCE)
    assert made.headline == (
        "Keep responses to about 9 tokens: from there the dense signal breaks; teacher's advantage in going on: lost "
        "below 6 tokens; try smaller --depths"
    )
    assert suggested(made) == ("suggested maximum", "9", "9 to 9")


def test_continuations_side_by_side():
    rows = [
        (kind, depth, metric, value, value - 0.1, value + 0.1, False, 9, 9, 18, 0.25)
        for kind, depth in (("none", 0), ("student", 4), ("teacher", 4))
        for metric, value in (("teacher_accuracy", 0.8), ("student_accuracy", 0.5), ("continuation_advantage", 0.3))
    ]
    shown = study(went_on=WentOn(OPEN, pd.DataFrame(rows, columns=CONTINUATION_COLUMNS))).shown[1]
    lead, right = "+0.30 [+0.20, +0.40]", "0.80 [0.70, 0.90]"
    assert shown.rows == [("0", lead, lead, lead, right, right, "–"), ("4", lead, lead, "–", right, right, "0.25")]
    assert {len(row) for row in shown.rows} == {len(shown.columns)}


def test_what_was_measured():
    assert study().measured == (
        "The cohort: responses of at least 12 tokens, cut there; 16 of 16 of step 9 and 16 of 16 of the teacher's, on "
        "prompts that both have.",
        "No response of step 9 was cut at 20 tokens.",
        "Intervals are 95 %, over prompts.",
    )


@pytest.mark.parametrize("place", [None, 7])
def test_its_tables(place):
    made = study(place)
    assert {name: len(table) > 0 for name, table in made.tables.items()} == {
        "cohort": True, "survivors": True, "excess": True, "entropies": True, "continuations": False,
    }  # fmt: skip
    assert set(made.tables["excess"]["metric"]) == {"reverse_kl", "student_entropy"}
