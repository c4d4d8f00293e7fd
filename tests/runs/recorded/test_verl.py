"""verl's rollouts are of the weights before their update, its validations of those after it."""

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import lines, refusal, verl


def test_rollouts_of_a_step(tmp_path):
    path = verl(tmp_path / "rollouts" / "5.jsonl")
    first, second = read_recorded(path)
    assert first == Recorded(
        place=f"{path}, line 1",
        step=5,
        updates=4,
        exactness="text-stripped",
        prompt="user\n2 + 2 =",
        response=" 4",
        reward=1.0,
        answer="4",
    )
    assert (second.place, second.response, second.reward) == (f"{path}, line 2", " 6", 0.0)


@pytest.mark.parametrize(
    ("folder", "updates"),
    [("rollouts", 4), ("evaluator", 4), ("interval", 4), ("validation_log/run", 5), ("val", 5), ("my_eval_1", 5)],
)
def test_a_folder_that_is_called_so_holds_validations(tmp_path, folder, updates):
    path = verl(tmp_path / folder / "5.jsonl")
    (file,) = find_recorded(tmp_path)
    assert (file.path, file.evaluation) == (path, updates == 5)
    assert [r.updates for r in read_recorded(path)] == [updates] * 2


def test_a_step_0_tells_of_validations(tmp_path):
    verl(tmp_path / "log" / "0.jsonl", step=0)
    path = verl(tmp_path / "log" / "5.jsonl")
    verl(tmp_path / "log2" / "5.jsonl")
    found = {f.path.relative_to(tmp_path).as_posix(): f.evaluation for f in find_recorded(tmp_path)}
    assert found == {"log/0.jsonl": True, "log/5.jsonl": True, "log2/5.jsonl": False}
    assert {r.updates for r in read_recorded(path)} == {5}


def test_the_first_step_is_of_the_initial_student(tmp_path):
    assert {r.updates for r in read_recorded(verl(tmp_path / "1.jsonl", step=1))} == {0}


def test_each_line_has_the_step_that_it_names(tmp_path):
    rows = [{"input": "a", "output": "b", "step": step} for step in (7, 8, None)]
    recorded = read_recorded(lines(tmp_path / "5.jsonl", *rows))
    assert [(r.step, r.updates) for r in recorded] == [(7, 6), (8, 7), (5, 4)]


def test_a_score_that_is_no_number_is_unknown_and_other_answers_are_not_texts(tmp_path):
    rows = [{"input": "a", "output": "b", "step": 5, "score": float("nan"), "gts": value} for value in (None, [1], 7)]
    recorded = read_recorded(lines(tmp_path / "5.jsonl", *rows))
    assert [(r.reward, r.answer) for r in recorded] == [(None, None), (None, None), (None, "7")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": 3}, "5.jsonl, line 1: expected 'output' as text, found int (3). Mend it or leave the file out."),
        ({"input": None}, "5.jsonl, line 1: expected 'input' as text, found null. Mend it or leave the file out."),
        (
            {"step": -1},
            "5.jsonl, line 1: expected 'step' as a whole number from 0, found int (-1). Mend it or leave the file out.",
        ),
        (
            {"score": "good"},
            "5.jsonl, line 1: expected 'score' as a number or null, found str ('good'). Mend it or leave the file out.",
        ),
    ],
)
def test_values_of_another_type_are_named(tmp_path, changes, message):
    assert refusal(verl(tmp_path / "5.jsonl", **changes)) == message


def test_a_later_line_without_a_field_is_named(tmp_path):
    path = lines(tmp_path / "5.jsonl", {"input": "a", "output": "b", "step": 5}, {"input": "a", "score": 1})
    assert refusal(path) == (
        "5.jsonl, line 2: expected a field 'output', found input, score. Mend it or leave the file out."
    )
