"""Responses drawn otherwise than their record says."""

from __future__ import annotations

from functools import partial

import pytest

from lab.faults.conftest import changed, contents, everything
from opd_diag.lab.faults import sampled as faults


def planted(case, plant, seed=0):
    before, files = everything(case), contents(case)
    plant(case, seed)
    assert all(path.startswith("rollouts/") for path in changed(case, files))
    after = everything(case)
    return [pair for name in before for pair in zip(before[name], after[name], strict=True)]


@pytest.mark.parametrize("with_logprobs", [True, False])
def test_all_are_drawn_again(recorded, with_logprobs):
    pairs = planted(recorded, partial(faults.sample_at, temperature=0.5, with_logprobs=with_logprobs))
    for before, after in pairs:
        kept = ("prompt_index", "rollout_index", "prompt_ids", "teacher_prompt_ids", "provenance", "group", "answer")
        assert all(getattr(before, name) == getattr(after, name) for name in kept)
        assert (after.sampled_logprobs is not None) is with_logprobs
        assert after.stop_reason == ("stop" if after.response_ids[-1] == 3 else "length")
        assert after.is_correct is not None
    assert any(before.response_ids != after.response_ids for before, after in pairs)
    assert {after.provenance.temperature for _, after in pairs} == {1.0}


def test_the_seed_decides(recorded):
    plant = partial(faults.sample_at, temperature=1.0)
    once, again, other = ([after.response_ids for _, after in planted(recorded, plant, seed)] for seed in (1, 1, 2))
    assert once == again != other


def test_a_low_temperature_draws_what_is_likely(recorded):
    cold = [after.response_ids for _, after in planted(recorded, partial(faults.sample_at, temperature=0.01))]
    assert cold[0] == cold[1]  # two responses of one model to one prompt


def test_students_are_noisy_from_a_depth_on(recorded):
    pairs = planted(recorded, partial(faults.sample_noise_after, depth=3, temperature=5.0))
    for before, after in pairs:
        if before.provenance.step is None:
            assert before == after
            continue
        assert after.response_ids[:3] == before.response_ids[:3]
        assert after.response_ids[3:] != before.response_ids[3:]
        assert after.sampled_logprobs is None
        assert after.provenance == before.provenance
        assert (before.prompt_ids, before.prompt_index, before.rollout_index) == (
            after.prompt_ids, after.prompt_index, after.rollout_index,
        )  # fmt: skip


def test_responses_that_end_before_stay(recorded):
    pairs = planted(recorded, partial(faults.sample_noise_after, depth=40, temperature=5.0))
    assert all(before == after for before, after in pairs)
