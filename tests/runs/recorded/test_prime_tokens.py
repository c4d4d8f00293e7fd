"""prime-rl's token exports: exact, of weights that the file does not name."""

import math

from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import PRIME_TOKENS, lines, refusal


def test_a_sequence_of_two_turns(tmp_path):
    path = lines(tmp_path / "token_exports" / "step_4" / "rank_0.jsonl", PRIME_TOKENS)
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness) == ("prime-tokens", 4, "ids")
    (recorded,) = read_recorded(file)
    assert (recorded.place, recorded.step, recorded.updates) == (f"{path}, line 1", 4, None)
    assert (recorded.prompt_ids, recorded.response_ids) == ((1, 2), (10, 11, 5, 12))
    assert recorded.generated == (True, True, False, True)
    assert [p for p in recorded.sampled_logprobs if not math.isnan(p)] == [-0.5, -0.75]
    assert (recorded.group, recorded.stop_reason, recorded.prompt) == ("gsm8k", "unknown", None)


def test_log_probabilities_that_only_fill_the_column_are_unknown(tmp_path):
    record = PRIME_TOKENS | {"inference_logprobs": [0.0] * 7}
    path = lines(tmp_path / "token_exports" / "step_4" / "rank_0.jsonl", record)
    assert [r.sampled_logprobs for r in read_recorded(path)] == [None]


def test_sequences_without_a_prompt_are_left_out(tmp_path):
    record = PRIME_TOKENS | {"loss_mask": [True] * 7}
    path = lines(tmp_path / "token_exports" / "step_4" / "rank_0.jsonl", record, PRIME_TOKENS)
    notes = []
    assert len(read_recorded(path, notes=notes)) == 1
    assert notes == [f"{path}: 1 of 2 records left out, as no token of them is marked as generated."]


def test_a_mask_of_another_length_is_named(tmp_path):
    path = lines(tmp_path / "token_exports" / "step_4" / "rank_0.jsonl", PRIME_TOKENS | {"loss_mask": [True]})
    assert refusal(path) == (
        "rank_0.jsonl, line 1: 7 token ids, but 1 entries of the mask of generated tokens. Mend it "
        "or leave the file out."
    )
