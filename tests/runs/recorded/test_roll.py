"""ROLL's steps: one line of columns, counted from 0."""

import json

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import refusal, roll


def test_a_step(tmp_path):
    path = roll(tmp_path / "rollout_dump_data.step_2.jsonl")
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step) == ("roll", 2)
    first, second = read_recorded(file)
    assert first == Recorded(
        place=f"{path}, line 1, row 1",
        step=2,
        updates=2,
        exactness="text-stripped",
        prompt="2 + 2 =",
        response=" 4",
        temperature=0.75,
        reward=1.0,
        answer="4",
        group="math",
    )
    assert (second.response, second.answer) == (" 6", "5")


@pytest.mark.parametrize("as_json", [True, False])
def test_messages_stand_in_for_the_prompt(tmp_path, as_json):
    messages = [{"role": "user", "content": "2 + 2 ="}]
    column = [json.dumps(messages) if as_json else messages] * 2
    path = roll(tmp_path / "rollout_dump_data.step_2.jsonl", prompt=None, messages=column)
    assert [r.prompt for r in read_recorded(path)] == [tuple(messages)] * 2


@pytest.mark.parametrize("value", ["not json", "[1]", "{}", '{"generation_config": {"temperature": "hot"}}'])
def test_a_temperature_that_is_not_there_is_unknown(tmp_path, value):
    path = roll(tmp_path / "rollout_dump_data.step_2.jsonl", sampling_params=[value] * 2)
    assert {r.temperature for r in read_recorded(path)} == {None}


def test_a_data_set_without_prompts_is_refused(tmp_path):
    path = roll(
        tmp_path / "rollout_dump_data.step_2.jsonl", **dict.fromkeys(("prompt", "id", "domain", "ground_truth"))
    )
    assert refusal(path) == (
        "rollout_dump_data.step_2.jsonl, line 1, row 1: expected a column 'prompt' or 'messages', found global_step, "
        "responses, scores, sampling_params. Keep one of them in the data set that ROLL reads."
    )


def test_a_line_without_responses_is_refused(tmp_path):
    path = roll(tmp_path / "rollout_dump_data.step_2.jsonl")
    path.write_text(path.read_text() + '{"global_step": [2], "prompt": ["a"]}\n')
    assert refusal(path) == (
        "rollout_dump_data.step_2.jsonl, line 2: expected a column 'responses', found global_step, prompt. Mend it or "
        "leave the file out."
    )
