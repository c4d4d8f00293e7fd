"""Off by one: of tokens, of records, at first tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.replay.selftests.expected import surprise_of
from opd_diag.replay.selftests.kept import Kept
from opd_diag.replay.selftests.logprobs import as_table, recorded_at
from opd_diag.replay.selftests.shift import shift, shift_at_first_token, shift_of_records
from replay.selftests.broken import Late


class TestOfTokens:
    def test_healthy_models_fit_best_at_0(self, kept, read, rollouts):
        for name, side in (("step 0", kept), ("teacher", read)):
            found = shift(name, side, rollouts)
            assert (found.name, found.model, found.status, found.advice) == ("shift", name, "pass", "")
            assert found.value > 5
            assert "24 prompts" in found.evidence

    @pytest.mark.parametrize("by", [1, 2])
    def test_a_model_that_is_late(self, student, teacher, rollouts, by):
        """It gives what it should have given one token before: the tokens before fit."""
        scores = score(student, Late.of(teacher, by=by), rollouts)
        found = shift("teacher", Kept.of(scores, rollouts, "teacher"), rollouts)
        assert found.status == "fail"
        assert found.value < -3
        places = "1 place" if by == 1 else "2 places"
        assert f"the tokens {places} before" in found.evidence
        assert "shifted" in found.advice

    def test_a_model_that_is_early(self, student, teacher, rollouts):
        scores = score(Late.of(student, by=-1), teacher, rollouts)
        found = shift("step 0", Kept.of(scores, rollouts, "student"), rollouts)
        assert (found.status, "1 place after" in found.evidence) == ("fail", True)

    def test_a_loop_tells_nothing(self, student, teacher, rollouts):
        loops = [replace(r, response_ids=(40,) * 30, sampled_logprobs=None) for r in rollouts[:8]]
        scores = score(student, teacher, loops)
        assert shift("step 0", Kept.of(scores, loops, "student"), loops).status == "unknown"

    def test_neither_does_a_model_that_has_nothing_to_do_with_it(self):
        strangers = random_rollouts([(4, 20)] * 8, seed=3)
        scores = score(wrapped(seed=1), wrapped(seed=2), strangers)
        assert shift("m", Kept.of(scores, strangers, "teacher"), strangers).status in ("unknown", "pass")

    def test_few_tokens_or_prompts_are_too_few(self, student, teacher, rollouts):
        for few in (
            rollouts[:1],
            [replace(r, response_ids=r.response_ids[:2], sampled_logprobs=None) for r in rollouts[:6]],
        ):
            scores = score(student, teacher, few)
            found = shift("step 0", Kept.of(scores, few, "student"), few)
            assert (found.status, bool(found.advice)) == ("unknown", True)


class TestOfRecords:
    def of(self, kept, rollouts, change):
        moved = [replace(r, sampled_logprobs=tuple(change(list(r.sampled_logprobs)))) for r in rollouts]
        recorded = recorded_at(kept, moved)
        return shift_of_records("step 0", as_table(kept, recorded), as_table(kept, kept.sampled))

    def test_healthy(self, kept, rollouts):
        found = self.of(kept, rollouts, lambda values: values)
        assert (found.name, found.status, found.value) == ("shift", "pass", 0.0)

    @pytest.mark.parametrize(("change", "best"), [
        (lambda v: [*v[1:], -1.0], 1), (lambda v: [-1.0, *v[:-1]], -1), (lambda v: [*v[2:], -1.0, -1.0], 2),
    ], ids=["one late", "one early", "two late"])  # fmt: skip
    def test_a_trainer_that_records_them_shifted(self, kept, rollouts, change, best):
        found = self.of(kept, rollouts, change)
        assert (found.status, found.value) == ("fail", best)
        assert "beside the token" in found.advice

    def test_wrong_values_at_every_offset_are_no_shift(self, kept, rollouts):
        rng = np.random.default_rng(0)
        assert self.of(kept, rollouts, lambda v: -rng.exponential(size=len(v))).status == "pass"

    def test_nothing_recorded(self, kept, rollouts):
        empty = recorded_at(kept, [replace(r, sampled_logprobs=None) for r in rollouts])
        assert shift_of_records("m", as_table(kept, empty), as_table(kept, kept.sampled)) is None


class TestAtFirstTokens:
    def of(self, student, teacher, rollouts):
        kept = Kept.of(score(student, teacher, rollouts), rollouts, "student")
        return shift_at_first_token("step 0", surprise_of(kept, kept.positions == 0))

    def test_healthy(self, student, teacher, rollouts):
        found = self.of(student, teacher, rollouts)
        assert (found.name, found.model, found.status) == ("shift", "step 0, first tokens", "pass")

    def test_prompts_that_run_into_the_response(self, student, teacher, rollouts):
        """The last token of the prompt counts as the first of the response: the student never wrote one."""
        moved = [
            replace(
                r,
                prompt_ids=r.prompt_ids[:-2],
                response_ids=(*r.prompt_ids[-2:], *r.response_ids),
                sampled_logprobs=None,
            )
            for r in rollouts
        ]
        found = self.of(student, teacher, moved)
        assert found.status == "fail"
        assert "last ids of the prompts" in found.advice

    def test_responses_that_lost_their_first_token(self, student, teacher, rollouts):
        cut = [replace(r, response_ids=r.response_ids[1:], sampled_logprobs=None) for r in rollouts]
        assert self.of(student, teacher, cut).status == "fail"
