"""NeMo-RL's rows: slices of one entry, ids under GRPO, text under distillation."""

import math

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import NEMO_IDS, NEMO_TEXT, nemo, refusal


def test_ids_without_padding_and_what_the_environment_said(tmp_path):
    path = nemo(tmp_path / "logs" / "exp_001" / "train_data_step3.jsonl", NEMO_IDS)
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness) == ("nemo-rl", 3, "ids")
    assert read_recorded(file) == [
        Recorded(
            place=f"{path}, line 1",
            step=3,
            updates=2,
            exactness="ids",
            prompt_ids=(1, 2, 3),
            response_ids=(10, 11),
            sampled_logprobs=(-0.5, -0.25),
            reward=1.0,
        )
    ]


def test_what_stands_between_two_turns_was_not_generated(tmp_path):
    mask = [0, 0, 1, 0, 1, 0, 0, 0]
    path = nemo(tmp_path / "train_data_step3.jsonl", NEMO_IDS | {"token_loss_mask": mask})
    (recorded,) = read_recorded(path)
    assert (recorded.prompt_ids, recorded.response_ids) == ((1, 2), (3, 10, 11))
    assert recorded.generated == (True, False, True)
    assert recorded.sampled_logprobs[2] == -0.25
    assert math.isnan(recorded.sampled_logprobs[1])


def test_text_of_a_distillation(tmp_path):
    path = nemo(tmp_path / "train_data_step3.jsonl", NEMO_TEXT, NEMO_TEXT | {"content": ["<user>1<assistant>", "2"]})
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.exactness) == ("nemo-rl-text", "text-stripped")
    first, second = read_recorded(file)
    assert first == Recorded(
        place=f"{path}, line 1",
        step=3,
        updates=2,
        exactness="text-stripped",
        prompt="<user>2 + 2 =<assistant>",
        response="4",
    )
    assert (second.prompt, second.response) == ("<user>1<assistant>", "2")


def test_rows_that_do_not_tell_which_is_the_prompt_are_left_out(tmp_path):
    conversation = NEMO_TEXT | {"content": ["system", "user", "assistant", "environment"]}
    joined = NEMO_TEXT | {"content": "all in one"}
    path = nemo(tmp_path / "train_data_step3.jsonl", conversation, NEMO_TEXT, joined)
    notes = []
    assert [r.response for r in read_recorded(path, notes=notes)] == ["4"]
    assert notes == [f"{path}: 2 of 3 records left out, as their messages do not tell which is the prompt."]


def test_rows_that_are_masked_whole_are_left_out(tmp_path):
    path = nemo(tmp_path / "train_data_step3.jsonl", NEMO_IDS | {"token_loss_mask": [0] * 8}, NEMO_IDS)
    notes = []
    assert len(read_recorded(path, notes=notes)) == 1
    assert notes == [f"{path}: 1 of 2 records left out, as no token of them is marked as generated."]


def test_filtered_rewards_are_those_of_the_rows(tmp_path):
    path = nemo(tmp_path / "train_data_step3.jsonl", NEMO_IDS | {"filtered_rewards": 0.25})
    assert [r.reward for r in read_recorded(path)] == [0.25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_lengths": 9},
            "train_data_step3.jsonl, line 1: input_lengths is 9, but there are 8 token ids. Mend it or leave the file "
            "out.",
        ),
        (
            {"token_loss_mask": [1, 1]},
            "train_data_step3.jsonl, line 1: 6 token ids, but 2 entries of the mask of generated tokens. Mend it or "
            "leave the file out.",
        ),
        (
            {"token_ids": [1, 2.5]},
            "train_data_step3.jsonl, line 1: expected 'token_ids' as a list of token ids (whole numbers from 0), found "
            "list ([1, 2.5]). Mend it or leave the file out.",
        ),
    ],
)
def test_values_that_do_not_fit_are_named(tmp_path, changes, message):
    if "token_ids" in changes:
        changes = changes | {"input_lengths": 2}
    assert refusal(nemo(tmp_path / "train_data_step3.jsonl", NEMO_IDS | changes)) == message


def test_a_row_without_content_is_named(tmp_path):
    path = nemo(tmp_path / "train_data_step3.jsonl", NEMO_TEXT, {"input_lengths": 6})
    assert refusal(path) == (
        "train_data_step3.jsonl, line 2: expected a field 'content', found input_lengths, idx. Mend it or leave the "
        "file out."
    )
