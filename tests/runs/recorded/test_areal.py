"""AReaL's trajectories: text with its special tokens, filed under the version of the weights."""

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import areal, refusal


def test_the_version_counts_updates(tmp_path):
    path = areal(tmp_path / "rollout" / "3" / "8.jsonl")
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness) == ("areal", 3, "text-with-specials")
    assert read_recorded(file) == [
        Recorded(
            place=f"{path}, line 1",
            step=3,
            updates=3,
            exactness="text-with-specials",
            prompt="<user>2 + 2 =<end><assistant>",
            response="4<end>",
            reward=1.0,
        )
    ]


def test_tasks_of_evaluations_stand_apart(tmp_path):
    areal(tmp_path / "eval-rollout" / "3" / "8.jsonl")
    areal(tmp_path / "rollout" / "4" / "9.jsonl")
    assert [(f.step, f.evaluation) for f in find_recorded(tmp_path)] == [(4, False), (3, True)]


def test_another_place_is_told_by_its_fields(tmp_path):
    (recorded,) = read_recorded(areal(tmp_path / "kept.jsonl", version=6))
    assert (recorded.step, recorded.updates, recorded.exactness) == (6, 6, "text-with-specials")


def test_a_version_that_is_none_is_named(tmp_path):
    path = areal(tmp_path / "rollout" / "3" / "8.jsonl", version=-1)
    assert refusal(path) == (
        "8.jsonl, line 1: expected 'tail_version' as a whole number from 0, found int (-1). Mend it "
        "or leave the file out."
    )
