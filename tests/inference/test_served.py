"""Scores with a teacher behind a server: the local ones where they are exact, the truth inside where they are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import V, random_rollouts, rollout, wrapped

from opd_diag.errors import RolloutsError
from opd_diag.inference import score
from opd_diag.inference.partial import BOUNDED
from opd_diag.inference.served import score_served
from opd_diag.records.scores import OF_WHOLE, TENSOR_FIELDS, Scores
from opd_diag.servers import ALL

from .behind import TOP, served, told_its_size

EXACT = (
    "student_sampled_logprobs", "teacher_sampled_logprobs", "student_topk_logprobs", "teacher_topk_logprobs",
    "student_at_teacher_topk_logprobs", "student_entropy", "student_stop_logprobs", "curve_student_shared_mass",
    "curve_teacher_shared_mass", "curve_student_mass", "curve_teacher_mass",
)  # fmt: skip


def cut(values, like):
    """The first columns of the local scores, as many as a server's top K leaves."""
    return values[:, : like.shape[1]] if like.ndim > 1 else values


class TestTheWholeVocabulary:
    def test_every_field_is_that_of_a_teacher_that_is_loaded_here(self, student, teacher, rollouts, local):
        scores = score_served(student, served(teacher, ALL), rollouts)
        assert scores.grid == local.grid
        assert not scores.bounds
        for name in TENSOR_FIELDS:
            found, truth = getattr(scores, name), getattr(local, name)
            assert found.dtype == truth.dtype, name
            np.testing.assert_allclose(found, truth, atol=2e-5, rtol=2e-5, err_msg=name)

    def test_ids_that_only_the_teacher_has_are_cut_off_and_counted(self, student, rollouts):
        larger = wrapped("qwen3", seed=2, vocab_size=V + 7)
        scores, truth = score_served(student, served(larger, ALL), rollouts), score(student, larger, rollouts)
        assert (truth.teacher_cut_mass > 0).all()
        for name in ("teacher_cut_mass", "forward_kl", "teacher_entropy", "reverse_kl"):
            np.testing.assert_allclose(getattr(scores, name), getattr(truth, name), atol=2e-5, err_msg=name)

    def test_ids_that_only_the_student_has_are_cut_off_and_counted(self, teacher, rollouts):
        larger = wrapped("llama", seed=1, vocab_size=V + 7)
        of = told_its_size(served(teacher, ALL))
        scores, truth = score_served(larger, of, rollouts), score(larger, teacher, rollouts)
        assert (truth.student_cut_mass > 0).all()
        assert scores.provenance["common_vocabulary"] == V
        for name in TENSOR_FIELDS:
            np.testing.assert_allclose(getattr(scores, name), getattr(truth, name), atol=2e-5, rtol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def scores(student, teacher, rollouts):
    return score_served(student, served(teacher), rollouts)


class TestTheTopK:
    def test_what_it_decides_is_exact(self, scores, local):
        assert scores.k_kept == TOP
        assert scores.grid == (1, 2, 4, 8, 16)
        for name in EXACT:
            found = getattr(scores, name)
            np.testing.assert_allclose(found, cut(getattr(local, name), found), atol=2e-5, err_msg=name)
        for name in ("rollout", "position", "terminal", "sampled_ids", "student_topk_ids", "teacher_topk_ids",
                     "curve_shared"):  # fmt: skip
            found = getattr(scores, name)
            np.testing.assert_array_equal(found, cut(getattr(local, name), found), err_msg=name)

    def test_the_teacher_is_known_at_the_students_ids_that_it_returned_or_that_were_sampled(self, scores, local):
        at, ids = scores.teacher_at_student_topk_logprobs, scores.student_topk_ids
        among = (ids[:, :, None] == scores.teacher_topk_ids[:, None]).any(-1) | (ids == scores.sampled_ids[:, None])
        np.testing.assert_array_equal(np.isnan(at), ~among)
        assert 0 < among.sum() < among.size
        truth = local.teacher_at_student_topk_logprobs[:, :TOP]
        np.testing.assert_allclose(at[among], truth[among], atol=2e-5)

    def test_the_truth_lies_inside_the_bounds_at_every_state_for_every_k(self, scores, local):
        assert scores.bound_ks == (1, 2, 4, 8, 16, TOP)
        for name in OF_WHOLE:
            truth, ends = getattr(local, name).astype(np.float64)[:, None], scores.bounds[name]
            assert ends.shape == (len(scores), 6, 2)
            known = np.isfinite(truth)
            assert ((ends[..., 0] <= truth + 1e-4) | ~known).all(), name
            assert ((truth - 1e-4 <= ends[..., 1]) | ~known).all(), name

    def test_more_ids_leave_less_room(self, scores):
        for name in BOUNDED:
            low, high = scores.bounds[name][..., 0], scores.bounds[name][..., 1]
            assert (np.diff(low, axis=1) >= -1e-5).all(), name
            with np.errstate(invalid="ignore"):  # infinity less infinity
                assert not (np.diff(high, axis=1) > 1e-5).any(), name
        width = np.diff(scores.bounds["forward_kl"], axis=-1)[..., 0].mean(axis=0)
        assert width[-1] < width[0] / 2

    def test_ids_that_only_the_student_has_are_cut_off_and_the_truth_is_inside(self, teacher, rollouts):
        larger = wrapped("llama", seed=1, vocab_size=V + 7)
        scores, truth = (
            score_served(larger, told_its_size(served(teacher)), rollouts),
            score(larger, teacher, rollouts),
        )
        np.testing.assert_allclose(scores.student_cut_mass, truth.student_cut_mass, atol=2e-5)
        for name in ("student_entropy", "student_topk_logprobs", "curve_student_shared_mass"):
            found = getattr(scores, name)
            np.testing.assert_allclose(found, cut(getattr(truth, name), found), atol=2e-5, err_msg=name)
        for name in BOUNDED:
            (low, high), value = scores.bounds[name][:, -1].T, getattr(truth, name)
            assert ((low <= value + 1e-4) & (value - 1e-4 <= high)).all(), name

    def test_what_is_not_known_is_nan_and_nothing_is_filled_in(self, scores):
        for name in ("teacher_entropy", "forward_kl", "reverse_kl", "jensen_shannon", "common_mass",
                     "gradient_squared_norm", "centred_reverse_kl"):  # fmt: skip
            assert np.isnan(getattr(scores, name)).all(), name
        assert np.isposinf(scores.bounds["reverse_kl"][..., 1]).all()
        assert np.isnan(scores.teacher_cut_mass).all()

    def test_a_stop_is_known_where_both_stop_ids_are(self, scores, local):
        known = np.isfinite(scores.teacher_stop_logprobs)
        stops = (scores.teacher_topk_ids[:, None] == np.array([2, 5])[:, None]).any(-1)
        sampled = scores.sampled_ids[:, None] == np.array([2, 5])
        np.testing.assert_array_equal(known, (stops | sampled).all(-1))
        np.testing.assert_allclose(scores.teacher_stop_logprobs[known], local.teacher_stop_logprobs[known], atol=2e-5)

    def test_they_are_kept_and_read_again(self, scores, tmp_path):
        scores.save(tmp_path / "scores.safetensors")
        again = Scores.load(tmp_path / "scores.safetensors")
        assert (again.bound_ks, again.grid, again.provenance) == (scores.bound_ks, scores.grid, scores.provenance)
        for name in OF_WHOLE:
            np.testing.assert_array_equal(again.bounds[name], scores.bounds[name])

    def test_who_answered_is_said(self, scores):
        assert scores.provenance["teacher"] == {
            "name": "big", "key": "key", "vocabulary": None, "parameters": None,
            "served": {"engine": "vllm 0.32.0", "model": "served/teacher", "exact_ids": False, "top": TOP},
        }  # fmt: skip

    def test_fewer_ids_than_are_compared_elsewhere(self, student, teacher, rollouts, local):
        few = score_served(student, served(teacher, 3), rollouts)
        assert (few.k_kept, few.grid, few.bound_ks) == (3, (1, 2), (1, 2, 3))
        np.testing.assert_array_equal(few.teacher_topk_ids, local.teacher_topk_ids[:, :3])


class TestWhatIsSeen:
    def test_where_the_teacher_sees_another_prompt(self, student, teacher):
        own = random_rollouts(((4, 6), (9, 12), (2, 3)))
        hints = ([7], range(20, 50), [*own[2].prompt_ids, 9])
        rollouts = [
            rollout(r.prompt_ids, r.response_ids, teacher_prompt_ids=hint, stop_reason=r.stop_reason)
            for r, hint in zip(own, hints, strict=True)
        ]
        truth, scores = (score(student, teacher, rollouts), score_served(student, served(teacher), rollouts))
        np.testing.assert_allclose(scores.teacher_topk_logprobs, truth.teacher_topk_logprobs[:, :TOP], atol=2e-5)

    def test_where_some_tokens_are_not_the_students(self, student, teacher):
        ids = random_rollouts([(5, 12)])[0].response_ids
        generated = tuple(i not in (0, 4, 5, 11) for i in range(12))
        rollouts = [rollout([3, 4], ids, generated=generated), rollout([3], ids)]
        truth, scores = (score(student, teacher, rollouts), score_served(student, served(teacher), rollouts))
        np.testing.assert_array_equal(scores.position, truth.position)
        np.testing.assert_allclose(scores.teacher_sampled_logprobs, truth.teacher_sampled_logprobs, atol=2e-5)

    def test_rollouts_without_a_state_are_not_asked_about(self, student, teacher):
        rollouts = [rollout([3, 4], ()), *random_rollouts([(5, 4)])]
        of = served(teacher)
        scores = score_served(student, of, rollouts)
        assert {*scores.rollout} == {1}
        assert len(of.server.asked) == 1

    def test_a_students_temperature_is_the_students_alone(self, student, teacher, rollouts):
        truth = score(student, teacher, rollouts, student_temperature=2.0)
        scores = score_served(student, served(teacher, ALL), rollouts, student_temperature=2.0)
        np.testing.assert_allclose(scores.reverse_kl, truth.reverse_kl, atol=2e-5)


class TestBadInput:
    def test_nothing_to_score(self, student, teacher):
        with pytest.raises(RolloutsError) as error:
            score_served(student, served(teacher), [rollout([3], ())])
        assert str(error.value) == "Nothing to score: none of the 1 rollouts has a response token."

    def test_ids_of_another_vocabulary(self, student, teacher):
        with pytest.raises(RolloutsError) as error:
            score_served(student, served(teacher), [rollout([3], (V + 2, 4))])
        assert f"holds token id {V + 2}, but step 20 and big have only {V} ids in common" in str(error.value)

    def test_longer_than_the_server_reads(self, student, teacher, rollouts):
        of = served(teacher)
        of.server.about = replace(of.server.about, context=30)
        with pytest.raises(RolloutsError) as error:
            score_served(student, of, rollouts)
        assert "has 32 tokens, big takes 28. Lower --max-new-tokens" in str(error.value)
