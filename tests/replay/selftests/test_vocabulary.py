"""Ids that mean something else: the map of tokenizers, and models that cannot read what they are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import random_rollouts, word_tokenizer, wrapped

from opd_diag.errors import TokenizerMismatchError
from opd_diag.inference import sample_rollouts, score
from opd_diag.replay.selftests.kept import Kept, tokens_near
from opd_diag.replay.selftests.vocabulary import known_of_place, vocabulary_map, vocabulary_of_responses
from replay.selftests.broken import permuted
from replay.selftests.conftest import SAMPLING


def asked(student, teacher, rollouts, who="teacher"):
    kept = Kept.of(score(student, teacher, rollouts), rollouts, who)
    return vocabulary_of_responses(who, kept, tokens_near(kept, rollouts, 0))


class TestTheMap:
    def test_the_same_tokenizer(self, tokenizer):
        found = vocabulary_map({1, 2, 3}, tokenizer, tokenizer)
        assert (found.name, found.status) == ("vocabulary", "pass")
        assert "all 3 ids" in found.evidence

    def test_another_one_is_refused(self):
        words = ("the", "a", "dog", "cat")
        with pytest.raises(TokenizerMismatchError):
            vocabulary_map(range(28), word_tokenizer(), word_tokenizer(words=words))

    def test_none_is_not_known(self, tokenizer):
        assert vocabulary_map({1}, tokenizer, None).status == "unknown"


class TestReading:
    def test_healthy_models_read_both(self, student, teacher, rollouts):
        for who in ("student", "teacher"):
            found = asked(student, teacher, rollouts, who)
            assert (found.status, found.advice) == ("pass", "")
            assert found.value > 5

    def test_a_teacher_with_permuted_ids(self, student, teacher, rollouts):
        found = asked(student, permuted(teacher), rollouts)
        assert found.status == "fail"
        assert abs(found.value) < found.threshold
        assert "order of the rows" in found.advice

    def test_a_student_with_permuted_ids_writes_what_the_teacher_cannot_read(
        self, student, teacher, tokenizer, prompts
    ):
        broken = permuted(student)
        theirs = sample_rollouts(broken, tokenizer, prompts, sampling=SAMPLING)
        assert asked(broken, teacher, theirs).status != "pass"
        assert asked(broken, teacher, theirs, "student").status == "pass", "its own tokens are its own"

    def test_recorded_ids_of_another_vocabulary(self, student, teacher, rollouts):
        order = np.random.default_rng(1).permutation(506).tolist()
        wrong = [
            replace(
                r,
                prompt_ids=tuple(order[i] for i in r.prompt_ids),
                teacher_prompt_ids=tuple(order[i] for i in r.prompt_ids),
                response_ids=tuple(order[i] for i in r.response_ids),
            )
            for r in rollouts
        ]
        for who in ("student", "teacher"):
            assert asked(student, teacher, wrong, who).status == "fail", who

    def test_random_models_are_asked_for_little(self):
        student = wrapped(seed=1, spread=0.5)
        strangers = random_rollouts([(4, 20)] * 8, seed=3)
        assert asked(student, wrapped(seed=2, spread=0.5), strangers).status != "pass"

    def test_tokens_that_are_all_alike_tell_nothing(self, student, teacher, rollouts):
        loops = [replace(r, response_ids=(40,) * 30, sampled_logprobs=None) for r in rollouts[:8]]
        found = asked(student, teacher, loops)
        assert found.status == "unknown"
        assert "too much alike" in found.evidence

    def test_what_is_known_of_place_is_the_difference_of_the_means(self, kept, rollouts):
        tokens = tokens_near(kept, rollouts, 0)
        by_hand = [
            kept.clipped(np.full(len(tokens), t))[i]
            - np.mean([kept.clipped(np.full(len(tokens), s))[i] for s in tokens])
            for i, t in enumerate(tokens[:3])
        ]
        np.testing.assert_allclose(known_of_place(kept, tokens)[:3], by_hand)
