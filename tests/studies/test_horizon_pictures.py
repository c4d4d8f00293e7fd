"""Pictures of a study of depth: what they are drawn from and what is said of them."""

from __future__ import annotations

from opd_diag.studies.horizon_pictures import pictures
from opd_diag.studies.horizon_shown import study_of
from opd_diag.verdicts import DEFAULTS

from .made_up_depth import seen
from .test_horizon_shown import NOTHING, OPEN, WentOn

NO_MARKS = dict.fromkeys(("depth_signal", "instability", "continuation_advantage"))


def test_a_break_is_marked_in_its_own_picture():
    made = study_of(seen(7), WentOn(OPEN, NOTHING), DEFAULTS)
    signal, entropy, *_ = (picture.draw() for picture in made.pictures)
    assert signal.lines[-1].get_label() == "break, 95 %"
    assert [line.get_label() for line in entropy.lines] == ["own responses", "teacher's own"]
    assert "Furthest above the control at tokens " in made.pictures[0].reading
    assert made.pictures[0].reading.endswith("nats, 16 prompts.")


def test_the_maps_say_where_it_is_highest():
    made = study_of(seen(None, 8), WentOn(OPEN, NOTHING), DEFAULTS)
    assert made.pictures[2].reading.startswith("Highest at step 9, tokens ")
    at = int(made.pictures[2].reading.split("tokens ")[1].split()[0])
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
