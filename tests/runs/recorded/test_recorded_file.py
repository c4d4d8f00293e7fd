"""What a name tells: step, kind of prompts, whether reading it unpickles."""

import re
from pathlib import Path

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile, file_of, updates_before

FORM = Format("x", "X", "ids", re.compile(r"(?:/[^/]+){0,1}/(?P<step>\d+)\.jsonl$"), lambda file, reading: [])


def test_step_and_kind_of_prompts_come_from_the_name():
    assert file_of(Path("/run/rollouts/0012.jsonl"), FORM) == RecordedFile(
        Path("/run/rollouts/0012.jsonl"), "x", 12, "ids", False
    )
    assert file_of(Path("/run/val/0012.jsonl"), FORM).evaluation
    assert not file_of(Path("/eval/run/rollouts/12.jsonl"), FORM).evaluation
    assert file_of(Path("/run/kept.jsonl"), FORM) == RecordedFile(Path("/run/kept.jsonl"), "x", None, "ids", False)


@pytest.mark.parametrize(
    ("name", "pickled"), [("7.pt", True), ("7.pkl", True), ("7.jsonl", False), ("7.parquet", False)]
)
def test_pickles_are_told_by_their_suffix(name, pickled):
    assert RecordedFile(Path(name), "x", None, "ids").pickled == pickled


def test_rollouts_come_before_the_update_and_evaluations_after_it():
    training, evaluation = RecordedFile(Path("a"), "x", 5, "ids"), RecordedFile(Path("a"), "x", 5, "ids", True)
    assert [updates_before(step, training) for step in (None, 0, 1, 5)] == [None, 0, 0, 4]
    assert [updates_before(step, evaluation) for step in (None, 0, 1, 5)] == [None, 0, 1, 5]


def test_nothing_left_out_is_no_note():
    reading = Reading()
    reading.left_out(Path("a"), 0, 5, "they are odd")
    reading.left_out(Path("a"), 2, 5, "they are odd")
    assert reading.notes == ["a: 2 of 5 records left out, as they are odd."]


def test_records_out_of_which_nothing_could_be_made_are_counted():
    reading, made = Reading(), Recorded("here", 1, 0, "ids")
    assert reading.kept(Path("a"), [made]) == [made]
    assert reading.notes == []
    assert reading.kept(Path("a"), [None, made, None]) == [made]
    assert reading.notes == ["a: 2 of 3 records left out, as no token of them is marked as generated."]
