"""Questions to a teacher's server: which ids are asked for, what is asked once alone, what answers cannot be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import V, random_rollouts, tiny_model, wrapped

from opd_diag.errors import ModelError, ServerError
from opd_diag.inference import packing, score
from opd_diag.inference.model import Forwarded
from opd_diag.inference.served import score_served
from opd_diag.records.arrays import load_arrays, save_arrays
from opd_diag.records.scores import TENSOR_FIELDS
from opd_diag.servers import ALL
from opd_diag.tables import measure

from .behind import TOP, served


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

    def test_nothing_is_drawn_where_no_ids_can_be_asked_or_all_come_back(self, student, teacher, rollouts):
        assert not score_served(student, served(teacher), rollouts).drawn
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


class TestWhatCannotBe:
    def test_a_teacher_that_returns_ids_the_student_lacks(self, student, rollouts):
        hf = tiny_model("qwen3", vocab_size=V + 7)
        with torch.no_grad():
            hf.get_output_embeddings().weight[V + 3] += 50.0
        larger = replace(wrapped("qwen3", seed=2), hf=hf)
        with pytest.raises(ServerError) as error:
            score_served(student, served(larger), rollouts)
        assert f"but step 20 has only {V} ids. It is another model, or has another tokenizer." in str(error.value)

    def test_a_student_that_gives_nan(self, teacher, rollouts):
        student = wrapped("llama", name="step 20", label="step 20", step=20, seed=1)
        with torch.no_grad():
            student.hf.get_output_embeddings().weight[5, 0] = math.nan
        with pytest.raises(ModelError) as error:
            score_served(student, served(teacher), rollouts)
        assert "step 20 gives NaN or infinite logits at rollout" in str(error.value)
