"""Log-probabilities that came with responses, and the temperature that they were drawn at."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from opd_diag.inference import sample_rollouts, score
from opd_diag.records.sampling import Sampling
from opd_diag.replay.selftests.expected import surprise_of
from opd_diag.replay.selftests.kept import Kept
from opd_diag.replay.selftests.logprobs import likeliest_temperature, logprobs, own_tokens
from replay.selftests.conftest import DATA, loaded


@pytest.fixture(scope="module")
def warm(student, tokenizer, prompts):
    """Responses drawn at temperature 0.6."""
    sampling = Sampling(rollouts_per_prompt=6, max_new_tokens=48, temperature=0.6)
    return tuple(sample_rollouts(student, tokenizer, prompts, sampling=sampling))


def stated(rollouts, temperature):
    return [replace(r, provenance=replace(r.provenance, temperature=temperature)) for r in rollouts]


def asked(student, teacher, rollouts, scored=1.0):
    kept = Kept.of(score(student, teacher, rollouts, student_temperature=scored), rollouts, "student")
    return logprobs("step 0", kept, rollouts, scored_temperature=scored, dtype="float32")


def asked_of_tokens(student, teacher, rollouts):
    kept = Kept.of(score(student, teacher, rollouts), rollouts, "student")
    everything = np.ones(len(kept.rows), dtype=bool)
    return own_tokens("step 0", surprise_of(kept, everything), likeliest_temperature(kept, everything, 1.0))


class TestOfRecords:
    def test_as_sampled(self, student, teacher, rollouts):
        found = asked(student, teacher, rollouts)
        assert (found.name, found.model, found.status, found.threshold) == ("logprobs", "step 0", "pass", 1e-3)
        assert found.value < 1e-5

    @pytest.mark.parametrize("scored", [1.0, 0.8])
    def test_another_temperature_that_is_known(self, student, teacher, warm, scored):
        assert asked(student, teacher, warm, scored).status == "pass"

    def test_a_wrong_temperature_is_told_and_the_right_one_said(self, student, teacher, warm):
        found = asked(student, teacher, stated(warm, 1.0))
        assert found.status == "fail"
        assert "At temperature 0.6 they fit" in found.evidence
        assert "temperature" in found.advice

    def test_other_weights_fit_at_no_temperature(self, student, teacher, tokenizer, prompts):
        theirs = sample_rollouts(
            teacher, tokenizer, prompts, sampling=Sampling(rollouts_per_prompt=1, max_new_tokens=48)
        )
        found = asked(student, teacher, theirs)
        assert found.status == "fail"
        assert "they fit" not in found.evidence
        assert found.advice == (
            "Other weights, another prompt template or other numerics wrote these responses than are scored here: find "
            "out which, or leave --rollouts out; where vLLM sampled them, leave --sampler out."
        )

    def test_a_shift_fails_here_too(self, student, teacher, rollouts):
        moved = [replace(r, sampled_logprobs=(*r.sampled_logprobs[1:], -1.0)) for r in rollouts]
        assert asked(student, teacher, moved).status == "fail"

    def test_nothing_or_little_recorded(self, student, teacher, rollouts):
        assert asked(student, teacher, [replace(r, sampled_logprobs=None) for r in rollouts]) is None
        assert asked(student, teacher, rollouts[:1]).status == "unknown"
        assert asked(student, teacher, stated(rollouts, math.nan)).status == "unknown"


class TestOfTokensAlone:
    def test_freely_drawn(self, student, teacher, rollouts):
        found = asked_of_tokens(student, teacher, rollouts)
        assert (found.name, found.model, found.status) == ("logprobs", "step 0, own tokens", "pass")

    def test_a_wrong_temperature_is_told_without_any_record(self, student, teacher, warm):
        found = asked_of_tokens(student, teacher, [replace(r, sampled_logprobs=None) for r in warm])
        assert found.status == "fail"
        assert "less than it expects" in found.evidence
        assert "temperature 0.6" in found.advice or "temperature 0.5" in found.advice

    def test_other_weights_are_told(self, student, teacher, tokenizer, prompts):
        lost = loaded(DATA / "other" / "checkpoint-20", "step 20")
        theirs = sample_rollouts(lost, tokenizer, prompts, sampling=Sampling(rollouts_per_prompt=1, max_new_tokens=48))
        found = asked_of_tokens(student, teacher, theirs)
        assert found.status == "fail"
        assert "more than it expects" in found.evidence
