"""Records that are broken in one way, and in no other."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest

from lab.faults.conftest import changed, contents, everything
from opd_diag.lab.faults import recorded as faults
from opd_diag.lab.tokenizer import load_tokenizer

END, PAD = 3, 0


def planted(case, plant):
    """Pairs of each rollout before and after; nothing but rollouts may have changed."""
    before, files = everything(case), contents(case)
    plant(case, 0)
    assert changed(case, files)
    assert all(path.startswith("rollouts/") for path in changed(case, files))
    after = everything(case)
    return [pair for name in before for pair in zip(before[name], after[name], strict=True)]


def unlike(before, after):
    """Names of the fields that differ."""
    return {name for name in vars(before) if getattr(before, name) != getattr(after, name)}


def test_log_probabilities_are_one_late(recorded):
    for before, after in planted(recorded, faults.shift_logprobs):
        assert math.isnan(after.sampled_logprobs[0])
        assert after.sampled_logprobs[1:] == before.sampled_logprobs[:-1]
        assert unlike(before, after) == {"sampled_logprobs"}


def test_only_responses_that_stopped_lose_their_end(recorded):
    pairs = planted(recorded, faults.drop_last_token)
    for before, after in pairs:
        stopped = before.stop_reason == "stop"
        assert after.response_ids == (before.response_ids[:-1] if stopped else before.response_ids)
        assert unlike(before, after) == ({"response_ids", "sampled_logprobs"} if stopped else set())
        assert END not in after.response_ids
    assert {before.stop_reason for before, _ in pairs} == {"stop", "length"}


def test_the_record_may_be_silent_about_it(recorded):
    for before, after in planted(recorded, partial(faults.drop_last_token, says_stop=False, of_teacher=False)):
        stripped = before.stop_reason == "stop" and before.provenance.step is not None
        assert after.stop_reason == ("unknown" if stripped else before.stop_reason)
        assert (after == before) is not stripped


def test_first_tokens_are_cut_off(recorded):
    for before, after in planted(recorded, faults.drop_first_token):
        assert after.response_ids == before.response_ids[1:]
        assert unlike(before, after) == {"response_ids", "sampled_logprobs"}


@pytest.mark.parametrize(("with_stop_token", "pad"), [(False, PAD), (True, END)])
def test_responses_are_filled_to_the_longest(recorded, with_stop_token, pad):
    pairs = planted_padding(recorded, with_stop_token)
    assert len({len(after.response_ids) for _, after in pairs}) == 1
    for before, after in pairs:
        n = len(before.response_ids)
        assert after.response_ids[:n] == before.response_ids
        assert {*after.response_ids[n:]} <= {pad}
        assert after.sampled_logprobs[:n] == before.sampled_logprobs
        assert after.generated is None
    assert any(len(after.response_ids) > len(before.response_ids) for before, after in pairs)


def planted_padding(case, with_stop_token):
    return planted(case, partial(faults.count_padding, with_stop_token=with_stop_token))


def test_the_teacher_sees_a_token_less(recorded):
    for before, after in planted(recorded, faults.lose_prompt_token):
        assert after.teacher_prompt_ids == before.teacher_prompt_ids[:-1]
        assert unlike(before, after) == {"teacher_prompt_ids"}


def test_both_models_see_two_bos(recorded):
    before, files = everything(recorded), contents(recorded)
    faults.double_bos(recorded, 0)
    for name, rollouts in everything(recorded).items():
        for old, new in zip(before[name], rollouts, strict=True):
            assert new.prompt_ids == new.teacher_prompt_ids == (old.prompt_ids[0], *old.prompt_ids)
            assert unlike(old, new) == {"prompt_ids", "teacher_prompt_ids"}
    assert load_tokenizer(recorded.student).bos_token_id == before["teacher"][0].prompt_ids[0]
    assert all("rollouts/" in path or "tokenizer_config" in path for path in changed(recorded, files))


def test_stale_rollouts_are_step_0s_under_the_last_name(recorded):
    before = everything(recorded)
    marked = [replace(r, response_text="of the first") for r in before["step-000000"]]
    faults.save_rollouts(recorded.rollouts / "step-000000.jsonl", marked)
    faults.record_stale_rollouts(recorded, 0)
    after = everything(recorded)
    assert (after["teacher"], after["step-000000"]) == (before["teacher"], marked)
    assert [r.response_text for r in after["step-000020"]] == ["of the first"] * 4
    assert {r.provenance.weights for r in after["step-000020"]} == {"step 20"}
