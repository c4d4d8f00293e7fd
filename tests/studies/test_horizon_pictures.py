"""Pictures of a study of depth: what they are drawn from and what is said of them."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from opd_diag.studies.horizon_pictures import pictures
from opd_diag.studies.horizon_shown import study_of
from opd_diag.tables.continuations import CONTINUATION_COLUMNS
from opd_diag.verdicts import DEFAULTS
from opd_diag.verdicts.continuing import Lost

from .made_up_depth import seen, with_status
from .test_horizon_shown import NOTHING, OPEN, WentOn

NO_MARKS = dict.fromkeys(("depth_signal", "instability", "continuation_advantage"))


def test_a_break_is_marked_in_its_own_picture():
    made = study_of(seen(7), WentOn(OPEN, NOTHING), DEFAULTS)
    signal, entropy, *_ = (picture.draw() for picture in made.pictures)
    assert signal.lines[-1].get_label() == "break, 95 %"
    assert [line.get_label() for line in entropy.lines] == ["own responses", "teacher's own"]
    assert "Furthest above the teacher's own responses at position" in made.pictures[0].reading
    assert made.pictures[0].reading.endswith("nats, 16 prompts.")


@pytest.mark.parametrize(("before", "marked"), [(3, True), (0, False)])
def test_a_loss_at_the_first_depth_tried_is_no_place_to_mark(before, marked):
    rows = [
        (kind, 6, "continuation_advantage", 0.3, 0.2, 0.4, False, 9, 9, 18, 0.25) for kind in ("student", "teacher")
    ]
    continued = WentOn(with_status(OPEN, "warn"), pd.DataFrame(rows, columns=CONTINUATION_COLUMNS), Lost(before, 6))
    drawn = study_of(seen(), continued, DEFAULTS).pictures[-1].draw()
    assert ("lost beyond" in [line.get_label() for line in drawn.lines]) == marked


def test_the_maps_say_where_it_is_highest():
    made = study_of(seen(None, 8), WentOn(OPEN, NOTHING), DEFAULTS)
    assert made.pictures[2].reading.startswith("Highest at step 9, position")
    at = int(re.search(r"positions? (\d+)", made.pictures[2].reading)[1])
    assert at >= 8


def test_of_nothing_they_say_so():
    empty = {name: table.iloc[:0] for name, table in study_of(seen(), WentOn(OPEN, NOTHING), DEFAULTS).tables.items()}
    made = pictures(empty, "step 9", NO_MARKS)
    assert [picture.reading for picture in made] == [
        "Too few responses of both to compare.",
        "Too few responses of both to compare.",
        "Too few responses to show.",
        "Too few responses to show.",
        "Nothing was continued that could be graded.",
    ]
    assert all(picture.draw().texts for picture in made)
