"""KDFlow's rollouts: templated prompt, text without special tokens, step from the name."""

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import kdflow, lines, refusal


def test_rollouts_of_a_step(tmp_path):
    path = kdflow(tmp_path / "rollout_data" / "12.jsonl")
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness, file.evaluation) == ("kdflow", 12, "text-stripped", False)
    assert read_recorded(file) == [
        Recorded(
            place=f"{path}, line 1",
            step=12,
            updates=11,
            exactness="text-stripped",
            prompt="<user>2 + 2 =<assistant>",
            response=" 4",
            reward=0.5,
        )
    ]


@pytest.mark.parametrize("value", [{"score": 1}, True, float("inf"), None])
def test_a_reward_of_another_kind_is_unknown(tmp_path, value):
    path = lines(tmp_path / "rollout_data" / "1.jsonl", {"prompt": "a", "output": "b", "reward_result": value})
    assert [r.reward for r in read_recorded(path)] == [None]


def test_a_prompt_that_is_no_text_is_named(tmp_path):
    path = lines(tmp_path / "rollout_data" / "1.jsonl", {"prompt": ["a"], "output": "b"})
    assert refusal(path) == (
        "1.jsonl, line 1: expected 'prompt' as text, found list (['a']). Mend it or leave the file out."
    )
