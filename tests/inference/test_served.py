"""Scores with a teacher behind a server: the local ones where they are exact, the truth inside where they are not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_server import ModelServer
from models import V, random_rollouts, rollout, tiny_model, wrapped

from opd_diag.errors import ModelError, RolloutsError, ServerError
from opd_diag.inference import packing, score
from opd_diag.inference.model import Forwarded
from opd_diag.inference.partial import BOUNDED, repeated
from opd_diag.inference.served import ServedTeacher, score_served
from opd_diag.records.arrays import load_arrays, save_arrays
from opd_diag.records.scores import OF_WHOLE, TENSOR_FIELDS, Scores
from opd_diag.servers import ALL
from opd_diag.tables import measure

RAGGED = ((1, 7), (12, 20), (5, 1), (30, 3), (3, 30), (9, 9))
TOP = 20
EXACT = (
    "student_sampled_logprobs", "teacher_sampled_logprobs", "student_topk_logprobs", "teacher_topk_logprobs",
    "student_at_teacher_topk_logprobs", "student_entropy", "student_stop_logprobs", "curve_student_shared_mass",
    "curve_teacher_shared_mass", "curve_student_mass", "curve_teacher_mass",
)  # fmt: skip


@pytest.fixture(scope="module")
def student():
    return wrapped("llama", name="step 20", label="step 20", step=20, seed=1)


@pytest.fixture(scope="module")
def teacher():
    return wrapped("qwen3", name="big teacher", seed=2, eos_token_id=[2, 5])


@pytest.fixture(scope="module")
def rollouts():
    return random_rollouts(RAGGED)


@pytest.fixture(scope="module")
def local(student, teacher, rollouts):
    return score(student, teacher, rollouts)


def served(teacher, top=TOP, **server):
    return ServedTeacher("big", "key", ModelServer(teacher, **server), top, stop_ids=teacher.stop_ids, at_once=3)


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


def told_its_size(of):
    """The same, of a server that tells how many ids its model has."""
    of.server.about = replace(of.server.about, vocab_size=V)
    return of


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


@pytest.fixture(scope="module")
def drawn(student, teacher, rollouts):
    return score_served(student, served(teacher, exact_ids=True), rollouts)


class TestIdsThatAreAskedFor:
    def test_the_students_and_the_stop_ids_are_exact(self, student, teacher, rollouts, local):
        scores = score_served(student, served(teacher, exact_ids=True), rollouts)
        truth = local.teacher_at_student_topk_logprobs[:, :TOP]
        np.testing.assert_allclose(scores.teacher_at_student_topk_logprobs, truth, atol=2e-5)
        np.testing.assert_allclose(scores.teacher_stop_logprobs, local.teacher_stop_logprobs, atol=2e-5)

    def test_they_narrow_the_bounds(self, student, teacher, rollouts, local):
        without, asked = (
            score_served(student, served(teacher, exact_ids=of), rollouts).bounds["forward_kl"][:, -1]
            for of in (False, True)
        )
        assert (asked[:, 1] - asked[:, 0]).mean() < (without[:, 1] - without[:, 0]).mean()
        truth = local.forward_kl
        assert ((asked[:, 0] <= truth + 1e-4) & (truth - 1e-4 <= asked[:, 1])).all()

    def test_one_token_a_state_is_drawn_and_known_to_both(self, drawn, student, teacher, rollouts):
        ids = drawn.drawn["ids"]
        assert drawn.drawn.keys() == {"ids", "student_logprobs", "teacher_logprobs"}
        assert len(set(ids.tolist())) > 30
        for name, model in (("student", student), ("teacher", teacher)):
            truth = np.concatenate([logprobs_of(model, r) for r in rollouts])
            assert truth.shape == (len(ids), V)
            found = drawn.drawn[f"{name}_logprobs"]
            np.testing.assert_allclose(found, truth[np.arange(len(ids)), ids], atol=2e-5)

    def test_it_is_drawn_from_the_student(self, student, teacher):
        """Of a thousand states with equal uniform numbers as many as expected lie below the place that was drawn."""
        many = random_rollouts([(3, 25)] * 40)
        many = [replace(r, prompt_index=i) for i, r in enumerate(many)]
        found = score_served(student, served(teacher, exact_ids=True), many)
        truth = np.concatenate([logprobs_of(student, r) for r in many])
        below = (np.exp(truth) * (np.arange(V) < found.drawn["ids"][:, None])).sum(-1)
        at = np.exp(found.drawn["student_logprobs"])
        middle = below + at / 2  # uniform on average where ids are drawn in proportion to their probability
        assert abs(middle.mean() - 0.5) < 4 * math.sqrt(1 / 12 / len(middle))
        assert np.histogram(middle, 4, (0, 1))[0].min() > 0.2 * len(middle)

    def test_another_student_is_given_the_same_random_numbers_and_other_rollouts_others(self, teacher, rollouts):
        one, same = (wrapped("llama", name=name, seed=1) for name in ("step 20", "step 40"))
        first, second = (score_served(s, served(teacher, exact_ids=True), rollouts) for s in (one, same))
        assert first.drawn["ids"].tolist() == second.drawn["ids"].tolist()
        other = [replace(r, rollout_index=r.rollout_index + 1) for r in rollouts]
        third = score_served(one, served(teacher, exact_ids=True), other)
        assert (first.drawn["ids"] != third.drawn["ids"]).mean() > 0.5

    def test_nothing_is_drawn_where_no_ids_can_be_asked_or_all_come_back(self, scores, student, teacher, rollouts):
        assert not scores.drawn
        assert not score_served(student, served(teacher, ALL, exact_ids=True), rollouts).drawn

    def test_its_estimate_of_the_mean_reverse_kl_is_the_local_one_but_for_chance(self, drawn, rollouts, local):
        states = ~drawn.terminal
        estimate = measure(drawn, rollouts, k=8)["tail_sampled_reverse_kl"].to_numpy(float)
        distance = estimate - local.reverse_kl[states]
        assert np.isfinite(estimate).all(), "on every state set, whoever wrote the responses"
        assert 0 < abs(distance.mean()) < 3 * distance.std() / math.sqrt(len(distance))


def logprobs_of(model, r):
    """(states, V) of a response, by the model's own forward pass."""
    ids = torch.tensor([[*r.prompt_ids, *r.response_ids]])
    with torch.inference_mode():
        every = model.hf(ids).logits[0].double().log_softmax(-1).numpy()
    return every[len(r.prompt_ids) - 1 : len(r.prompt_ids) - 1 + len(r.response_ids) + r.truncated]


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


class TestShards:
    @pytest.fixture
    def small(self, monkeypatch):
        monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", 30)
        monkeypatch.setattr("opd_diag.inference.shards.TOKENS_PER_SHARD", 40)

    @pytest.fixture
    def keep(self, tmp_path):
        """Keep shards in the folder, and find them there again."""

        def found_or_made(shard, make):
            path = tmp_path / f"{shard.number}.safetensors"
            if path.is_file():
                return load_arrays(path)
            save_arrays(path, part := make())
            return part

        return found_or_made

    @pytest.mark.usefixtures("small")
    def test_what_was_found_is_not_asked_for_again(self, student, teacher, rollouts, keep, tmp_path):
        first = served(teacher)
        scores = score_served(student, first, rollouts, keep=keep)
        assert len({*tmp_path.iterdir()}) > 2
        assert len(first.server.asked) == len(rollouts)
        (tmp_path / "2.safetensors").unlink()
        again = served(teacher)
        same = score_served(student, again, rollouts, keep=keep)
        assert 0 < len(again.server.asked) < len(rollouts)
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(scores, name), getattr(same, name))

    @pytest.mark.usefixtures("small")
    def test_answers_serve_another_student_at_the_same_states(self, student, teacher, rollouts, keep):
        other = wrapped("llama", name="step 40", label="step 40", step=40, seed=3)
        score_served(student, served(teacher), rollouts, keep_answers=keep)
        silent = served(teacher)
        scores = score_served(other, silent, rollouts, keep_answers=keep)
        assert silent.server.asked == []
        truth = score(other, teacher, rollouts)
        np.testing.assert_allclose(scores.teacher_topk_logprobs, truth.teacher_topk_logprobs[:, :TOP], atol=2e-5)
        np.testing.assert_allclose(scores.student_entropy, truth.student_entropy, atol=2e-5)

    def test_tokens_bytes_and_requests_are_counted(self, student, teacher, rollouts):
        of, told = served(teacher), []
        scores = score_served(student, of, rollouts, progress=lambda done, total: told.append((done, total)))
        tokens = sum(len(r.teacher_prompt_ids) + len(r.response_ids) for r in rollouts)
        assert of.forwarded == Forwarded(tokens, requests=len(rollouts), received=100 * len(scores))
        assert told[-1] == (tokens, tokens)
        assert told == sorted(told)


class TestBadInput:
    def test_nothing_to_score(self, student, teacher):
        with pytest.raises(RolloutsError) as error:
            score_served(student, served(teacher), [rollout([3], ())])
        assert str(error.value) == "Nothing to score: none of the 1 rollouts has a response token."

    def test_ids_of_another_vocabulary(self, student, teacher):
        with pytest.raises(RolloutsError) as error:
            score_served(student, served(teacher), [rollout([3], (V + 2, 4))])
        assert f"holds token id {V + 2}, but step 20 and big have only {V} ids in common" in str(error.value)

    def test_a_teacher_that_returns_ids_the_student_lacks(self, student, rollouts):
        hf = tiny_model("qwen3", vocab_size=V + 7)
        with torch.no_grad():
            hf.get_output_embeddings().weight[V + 3] += 50.0
        larger = replace(wrapped("qwen3", seed=2), hf=hf)
        with pytest.raises(ServerError) as error:
            score_served(student, served(larger), rollouts)
        assert f"but step 20 has only {V} ids. It is another model, or has another tokenizer." in str(error.value)

    def test_longer_than_the_server_reads(self, student, teacher, rollouts):
        of = served(teacher)
        of.server.about = replace(of.server.about, context=30)
        with pytest.raises(RolloutsError) as error:
            score_served(student, of, rollouts)
        assert "has 32 tokens, big takes 28. Lower --max-new-tokens" in str(error.value)

    def test_a_student_that_gives_nan(self, teacher, rollouts):
        student = wrapped("llama", name="step 20", label="step 20", step=20, seed=1)
        with torch.no_grad():
            student.hf.get_output_embeddings().weight[5, 0] = math.nan
        with pytest.raises(ModelError) as error:
            score_served(student, served(teacher), rollouts)
        assert "step 20 gives NaN or infinite logits at rollout" in str(error.value)


def test_repeated_marks_later_places():
    ids = np.array([[3, 5, 3, 3, 5], [1, 2, 3, 4, 5]])
    assert repeated(ids).tolist() == [[False, False, True, True, True], [False] * 5]
