"""Scores are the truth, whatever the family, the batch, the vocabulary, the temperature or the teacher's prompt."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import CONTEXT, FAMILIES, RAGGED, V, random_rollouts, rollout, tiny_model, word_tokenizer, wrapped
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from opd_diag.errors import ModelError, RolloutsError
from opd_diag.inference import linear, onepass, packing, sample_rollouts, score, wrap_model
from opd_diag.inference.head import Head
from opd_diag.inference.model import Model
from opd_diag.records.prompt import Prompt
from opd_diag.records.sampling import Sampling
from opd_diag.records.scores import TENSOR_FIELDS, Scores
from opd_diag.tokenization import EncodedPrompt

from .truth import assert_same_scores, assert_scores_are_true, logprobs_before, true_distributions


@pytest.fixture(scope="module")
def scores(student, teacher, rollouts):
    return score(student, teacher, rollouts)


def token_budget(monkeypatch, tokens: int) -> None:
    monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", tokens)


class TestEveryFieldIsTrue:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_every_family_on_both_sides(self, family):
        other = FAMILIES[(FAMILIES.index(family) + 1) % len(FAMILIES)]
        student, teacher = wrapped(family, seed=1), wrapped(other, seed=2)
        rollouts = random_rollouts(RAGGED)
        assert_scores_are_true(score(student, teacher, rollouts), student, teacher, rollouts, stop_ids=[2])

    @pytest.mark.parametrize("side", ["student", "teacher", "both"])
    def test_of_models_without_a_linear_head(self, student, teacher, rollouts, side):
        hf = tiny_model(seed=9)
        hf.set_output_embeddings(nn.Sequential(nn.Linear(32, 20), nn.Tanh(), nn.Linear(20, V)))
        odd = wrap_model(hf, name="odd", stop_ids=(2, 5))
        pair = {"student": (odd, teacher), "teacher": (student, odd), "both": (odd, odd)}[side]
        assert_scores_are_true(score(*pair, rollouts), *pair, rollouts, stop_ids=[2, 5])

    def test_where_the_teacher_sees_another_prompt(self, student, teacher):
        own = random_rollouts(((4, 6), (9, 12), (2, 3)))
        hints = ([7], range(20, 50), [*own[2].prompt_ids, 9])
        rollouts = [
            rollout(r.prompt_ids, r.response_ids, teacher_prompt_ids=hint, stop_reason=r.stop_reason)
            for r, hint in zip(own, hints, strict=True)
        ]
        scores = score(student, teacher, rollouts)
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2, 5])

    def test_where_some_tokens_are_not_the_students(self, student, teacher):
        ids = random_rollouts([(5, 12)])[0].response_ids
        masks = ([True] * 3 + [False] * 6 + [True] * 3, [False] * 10 + [True, False], [False] * 12, [True] * 12)
        rollouts = [
            rollout([3, 4, 5], ids, generated=tuple(mask), stop_reason=reason)
            for mask in masks
            for reason in ("stop", "length", "unknown")
        ]
        scores = score(student, teacher, rollouts)
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2, 5])
        assert len(scores) == 3 * (6 + 1 + 0 + 12) + len(masks)  # one terminal state for each that was cut

    @pytest.mark.parametrize("temperatures", [(0.5, 1.0), (1.0, 2.0), (0.7, 0.3)])
    def test_at_other_temperatures(self, student, teacher, rollouts, temperatures):
        scores = score(
            student, teacher, rollouts, student_temperature=temperatures[0], teacher_temperature=temperatures[1]
        )
        assert_scores_are_true(scores, student, teacher, rollouts, temperatures=temperatures, stop_ids=[2, 5])
        assert scores.provenance["student_temperature"] == temperatures[0]
        assert scores.provenance["teacher_temperature"] == temperatures[1]

    @pytest.mark.parametrize("vocabulary", [100, 33, 32, 20, 6])
    def test_with_a_small_vocabulary(self, vocabulary):
        student, teacher = (wrapped(seed=s, vocabulary=vocabulary) for s in (1, 2))
        rollouts = random_rollouts(RAGGED, vocabulary=vocabulary)
        scores = score(student, teacher, rollouts)
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2])
        assert scores.k_kept == min(32, vocabulary)
        assert scores.grid[-1] <= vocabulary < 2 * scores.grid[-1] or vocabulary >= 128

    def test_of_ids_that_both_models_mask(self, rollouts):
        models = [tiny_model("phi", seed=s) for s in (1, 2)]
        for hf in models:
            hf.lm_head.bias.data[[150, 159]] = -math.inf
        student, teacher = (wrap_model(hf, name="masked") for hf in models)
        rollouts = [rollout([i % 140 for i in r.prompt_ids], [i % 140 for i in r.response_ids]) for r in rollouts]
        scores = score(student, teacher, rollouts)
        p, q, *_ = true_distributions(student, teacher, rollouts)
        keep = [i for i in range(V) if i not in (150, 159)]
        p, q = p[:, keep], q[:, keep]
        np.testing.assert_allclose(scores.reverse_kl, (np.exp(p) * (p - q)).sum(-1), atol=1e-5, rtol=1e-6)
        np.testing.assert_allclose(scores.student_entropy, -(np.exp(p) * p).sum(-1), atol=1e-5, rtol=1e-6)
        assert np.isfinite(scores.gradient_squared_norm).all()

    def test_in_sixteen_bits_the_head_still_computes_in_float32(self, rollouts):
        models = [wrap_model(tiny_model(seed=s).bfloat16(), name="half") for s in (1, 2)]
        scores = score(*models, rollouts)
        assert scores.student_entropy.dtype == np.float32
        # Logits in bfloat16 come in steps of 2⁻⁸ of their size; ours do not.
        hidden = models[0].hidden(torch.tensor([[3, 4, 5]]))[0]
        truth = hidden.double() @ models[0].hf.lm_head.weight.double().T
        torch.testing.assert_close(models[0].head.logits(hidden).double(), truth, atol=1e-5, rtol=1e-6)
        assert scores.provenance["dtype"] == "bfloat16"


class TestVocabulariesOfDifferentSize:
    @pytest.mark.parametrize(("ours", "theirs"), [(V, 192), (192, V), (V, V + 1), (60, 40)])
    def test_values_are_renormalised_and_the_cut_is_told(self, ours, theirs):
        student, teacher = wrapped(seed=1, vocabulary=ours), wrapped("gpt2", seed=2, vocabulary=theirs)
        common = min(ours, theirs)
        rollouts = random_rollouts(RAGGED, vocabulary=common)
        scores = score(student, teacher, rollouts)
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2])
        larger, smaller = ("student", "teacher") if ours > theirs else ("teacher", "student")
        assert getattr(scores, f"{larger}_cut_mass").min() > 0
        assert getattr(scores, f"{larger}_cut_mass").max() > 0.004
        assert getattr(scores, f"{smaller}_cut_mass").max() == 0
        assert scores.provenance["common_vocabulary"] == common
        assert max(scores.student_topk_ids.max(), scores.teacher_topk_ids.max()) < common

    def test_with_temperatures(self):
        student, teacher = wrapped(seed=1, vocabulary=64), wrapped(seed=2, vocabulary=80)
        rollouts = random_rollouts(RAGGED, vocabulary=64)
        scores = score(student, teacher, rollouts, student_temperature=0.5, teacher_temperature=1.5)
        assert_scores_are_true(scores, student, teacher, rollouts, temperatures=(0.5, 1.5), stop_ids=[2])

    def test_a_stop_token_outside_the_common_ids_is_left_out(self):
        student, teacher = wrapped(seed=1, vocabulary=40), wrapped(seed=2, vocabulary=50, eos_token_id=[2, 45])
        rollouts = random_rollouts(RAGGED, vocabulary=40)
        scores = score(student, teacher, rollouts)
        assert scores.provenance["stop_ids"] == [2]
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2])


class TestStops:
    def test_terminal_states_of_truncated_rollouts_only(self, student, teacher):
        reasons = ("stop", "length", "unknown", "length")
        rollouts = [rollout([1], [7, 8, 9], stop_reason=reason) for reason in reasons]
        scores = score(student, teacher, rollouts)
        assert scores.rollout[scores.terminal].tolist() == [1, 3]
        assert scores.position[scores.terminal].tolist() == [3, 3]
        assert scores.sampled_ids[scores.terminal].tolist() == [-1, -1]
        assert np.isnan(scores.student_sampled_logprobs[scores.terminal]).all()
        assert np.isnan(scores.teacher_sampled_logprobs[scores.terminal]).all()
        assert np.isfinite(scores.student_sampled_logprobs[~scores.terminal]).all()
        after, _ = logprobs_before(teacher, [1], [7, 8, 9], [3])
        wanted = np.logaddexp(after[0, 2], after[0, 5])
        np.testing.assert_allclose(scores.teacher_stop_logprobs[scores.terminal], [wanted] * 2, atol=1e-5)

    def test_a_cut_response_without_a_token_has_its_terminal_state(self, student, teacher):
        rollouts = [rollout([1, 2], [], stop_reason="length"), rollout([1, 2], [3])]
        scores = score(student, teacher, rollouts)
        assert scores.terminal.tolist() == [True, False]
        np.testing.assert_allclose(scores.reverse_kl[0], scores.reverse_kl[1], atol=1e-5)  # one prefix, one state

    def test_where_nothing_stops(self, rollouts):
        student, teacher = (wrapped(seed=s, eos_token_id=None) for s in (1, 2))
        scores = score(student, teacher, rollouts)
        assert (scores.student_stop_logprobs == -np.inf).all()
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[])

    def test_both_models_stop_at_the_union(self, student, teacher, scores):
        assert student.stop_ids == (2,)
        assert teacher.stop_ids == (2, 5)
        assert scores.provenance["stop_ids"] == [2, 5]


class TestNothingDependsOnTheBatch:
    def test_batched_equals_alone(self, student, teacher, rollouts, scores):
        alone = [score(student, teacher, [r]) for r in rollouts]
        assert_same_scores(scores, _joined([_of_rollout(s, i) for i, s in enumerate(alone)]))

    @pytest.mark.parametrize("tokens", [1, 40, 75])
    @pytest.mark.parametrize("rows", [1, 3])
    def test_small_batches_and_blocks(self, monkeypatch, student, teacher, rollouts, scores, tokens, rows):
        token_budget(monkeypatch, tokens)
        monkeypatch.setattr(onepass, "BUFFER_BYTES", 4 * V * rows)
        assert_same_scores(scores, score(student, teacher, rollouts))

    def test_a_block_smaller_than_one_row_still_holds_one(self, monkeypatch, student, teacher, rollouts, scores):
        monkeypatch.setattr(onepass, "BUFFER_BYTES", 1)
        assert_same_scores(scores, score(student, teacher, rollouts))

    def test_order_of_the_rollouts(self, student, teacher, rollouts, scores):
        order = [3, 0, 5, 2, 4, 1]
        shuffled = score(student, teacher, [rollouts[i] for i in order])
        rows = np.concatenate([np.flatnonzero(scores.rollout == i) for i in order])
        assert_same_scores(scores, shuffled, rows)
        assert (np.diff(shuffled.rollout) >= 0).all()

    def test_twice_is_equal_to_the_bit(self, student, teacher, rollouts, scores):
        again = score(student, teacher, rollouts)
        for name in ("reverse_kl", "student_topk_logprobs", "teacher_entropy", "gradient_squared_norm"):
            np.testing.assert_array_equal(getattr(again, name), getattr(scores, name))

    def test_a_model_left_in_training_mode_is_put_into_evaluation(self, student, rollouts):
        hf = tiny_model("gpt2", seed=4).train()
        teacher = wrap_model(hf, name="teacher")
        assert not hf.training
        assert_scores_are_true(score(student, teacher, rollouts), student, teacher, rollouts, stop_ids=[2])

    def test_no_gradient_is_kept(self, student, teacher, rollouts):
        assert student.hf.lm_head.weight.requires_grad
        score(student, teacher, rollouts[:1])
        assert student.hf.lm_head.weight.grad is None


def _joined(parts):
    fields = {name: np.concatenate([getattr(part, name) for part in parts]) for name in TENSOR_FIELDS}
    return Scores(**fields, grid=parts[0].grid, provenance=parts[0].provenance)


def _of_rollout(scores: Scores, index: int) -> Scores:
    return Scores(**{**vars(scores), "rollout": np.full_like(scores.rollout, index)})


class TestStudentEqualsTeacher:
    @pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe"])
    def test_all_agree(self, family, rollouts):
        model = wrapped(family, seed=1)
        scores = score(model, model, rollouts)
        assert (scores.reverse_kl == 0).all()
        assert (scores.forward_kl == 0).all()
        assert scores.jensen_shannon.max() < 1e-6
        assert scores.common_mass.min() > 1 - 1e-5
        assert scores.gradient_squared_norm.max() < 1e-12
        np.testing.assert_array_equal(scores.student_entropy, scores.teacher_entropy)
        np.testing.assert_array_equal(scores.student_sampled_logprobs, scores.teacher_sampled_logprobs)
        np.testing.assert_array_equal(scores.student_topk_ids, scores.teacher_topk_ids)
        np.testing.assert_array_equal(scores.student_topk_logprobs, scores.teacher_at_student_topk_logprobs)
        np.testing.assert_array_equal(scores.curve_shared, np.broadcast_to(scores.grid, scores.curve_shared.shape))
        np.testing.assert_allclose(scores.curve_student_shared_mass, scores.curve_student_mass, atol=1e-6)

    def test_another_prompt_for_the_teacher_moves_them_apart(self, student):
        ids = random_rollouts([(5, 10)])[0].response_ids
        scores = score(student, student, [rollout([3, 4], ids, teacher_prompt_ids=[9, 8, 7])])
        assert scores.reverse_kl.mean() > 0.1


class TestTies:
    def test_go_to_the_lower_id_and_are_counted(self, rollouts, teacher, scores):
        assert scores.provenance["n_tied"] == 0
        hf = tiny_model("phi", seed=1)
        hf.lm_head.weight.data.zero_()
        hf.lm_head.bias.data.copy_(torch.arange(V) >= 20)  # of 140 ids that are equally probable, 128 are looked at
        undecided = wrap_model(hf, name="undecided")
        for pair in ((undecided, teacher), (teacher, undecided)):
            tied = score(*pair, rollouts)
            assert tied.provenance["n_tied"] == len(tied)
            ids = tied.student_topk_ids if pair[0] is undecided else tied.teacher_topk_ids
            assert ids.tolist() == [list(range(20, 52))] * len(tied)
        hf.lm_head.bias.data[:40] = torch.arange(40.0, 0.0, -1.0)
        assert score(undecided, undecided, rollouts[:1]).provenance["n_tied"] == 7  # the 128th is one of 120 equals


class TestAlignment:
    @pytest.fixture
    def sampled(self):
        """Responses of a confident model, its own or at temperature 0."""
        author = wrapped("gpt2", name="author", label="author", seed=5, spread=0.4)
        prompts = [EncodedPrompt(i, Prompt("x", str(i)), (3 + i, 9), (3 + i, 9)) for i in range(12)]
        return author, {
            t: sample_rollouts(
                author,
                word_tokenizer(),
                prompts,
                sampling=Sampling(rollouts_per_prompt=2, max_new_tokens=20, temperature=t),
            )
            for t in (0.0, 1.0)
        }

    def test_the_authors_logprobs_peak_at_offset_zero(self, sampled, student):
        author, responses = sampled
        scores = score(student, author, responses[1.0])
        own = scores.teacher_sampled_logprobs[~scores.terminal].mean()
        means = {}
        for offset in (-1, 0, 1):
            values = []
            for r in responses[1.0]:
                n = len(r.response_ids)
                positions = [i for i in range(n) if 0 <= i + offset <= n - 1]
                before, _ = logprobs_before(author, r.prompt_ids, r.response_ids, [i + offset for i in positions])
                values += [before[row, r.response_ids[i]] for row, i in enumerate(positions)]
            means[offset] = np.mean(values)
        assert own == pytest.approx(means[0], abs=1e-5)
        assert own > max(means[-1], means[1]) + 1

    def test_greedy_responses_are_the_students_first_choice_at_every_state(self, sampled, teacher):
        author, responses = sampled
        scores = score(author, teacher, responses[0.0])
        states = ~scores.terminal
        assert states.sum() > 100
        np.testing.assert_array_equal(scores.sampled_ids[states], scores.student_topk_ids[states, 0])
        np.testing.assert_array_equal(scores.student_sampled_logprobs[states], scores.student_topk_logprobs[states, 0])


class TestCost:
    @pytest.fixture
    def spied(self, monkeypatch):
        """Rows given to each head and tokens given to each body, by the model's vocabulary."""
        rows: list[tuple[int, int]] = []
        tokens: list[tuple[str, int]] = []
        tile, hidden = Head.tile, Model.hidden

        def spy_tile(self, states, start, stop):
            assert states.dim() == 2
            rows.append((self.vocabulary, len(states) * (stop - start)))
            return tile(self, states, start, stop)

        def spy_hidden(self, batch, **inputs):
            tokens.append((self.name, batch.numel()))
            return hidden(self, batch, **inputs)

        monkeypatch.setattr(Head, "tile", spy_tile)
        monkeypatch.setattr(Model, "hidden", spy_hidden)
        return rows, tokens

    def test_the_head_sees_every_state_once_and_nothing_else(self, spied, rollouts):
        student, teacher = wrapped(seed=1), wrapped(seed=2, vocabulary=V + 8)
        masked = rollout([5] * 40, [6] * 10, generated=(True,) * 4 + (False,) * 6)
        scores = score(student, teacher, [*rollouts, masked])
        truncated = sum(r.stop_reason == "length" for r in rollouts)
        states = sum(n for _, n in RAGGED) + 4 + truncated
        rows, _ = spied
        assert len(scores) == states
        assert sum(n for vocabulary, n in rows if vocabulary == V) == states * V
        assert sum(n for vocabulary, n in rows if vocabulary == V + 8) == states * (V + 8)

    @pytest.mark.parametrize("rows", [5, 64])
    def test_blocks_are_bounded_by_the_common_vocabulary(self, monkeypatch, spied, rollouts, rows):
        monkeypatch.setattr(onepass, "BUFFER_BYTES", 4 * V * rows + 7)
        monkeypatch.setattr(onepass, "TILE_ELEMENTS", 64 * rows)
        score(wrapped(seed=1), wrapped(seed=2, vocabulary=2 * V), rollouts)
        tiles, _ = spied
        assert max(n for _, n in tiles) == 64 * rows

    def test_every_sequence_is_forwarded_once_by_each_model_within_the_budget(
        self, monkeypatch, spied, student, teacher, rollouts
    ):
        token_budget(monkeypatch, 70)
        assert student.takes_packs
        assert teacher.takes_packs
        _, tokens = spied
        tokens.clear()
        done = []
        score(student, teacher, rollouts, progress=lambda *ends: done.append(ends))
        useful = sum(p + r for p, r in RAGGED)
        for model in (student, teacher):
            forwarded = [n for name, n in tokens if name == model.name]
            assert sum(forwarded) == useful  # no padding
            assert max(forwarded) <= 70
        assert done[0] == (0, done[-1][1])
        assert len(done) == 1 + len(tokens) / 2
        assert done[-1] == (useful, useful)
        assert [d for d, _ in done] == sorted(d for d, _ in done)

    def test_a_prompt_is_forwarded_once_for_its_rollouts(self, student, teacher):
        assert student.takes_packs
        assert teacher.takes_packs
        own, other = list(range(3, 33)), list(range(40, 49))
        rollouts = [rollout(own, [5, 6], rollout_index=0), rollout(other, [9]), rollout(own, [7] * 4, rollout_index=1)]
        before = [m.forwarded.tokens for m in (student, teacher)]
        scores = score(student, teacher, rollouts)
        after = [m.forwarded.tokens for m in (student, teacher)]
        assert [a - b for a, b in zip(after, before, strict=True)] == [30 + 2 + 4 + 9 + 1] * 2
        assert_scores_are_true(scores, student, teacher, rollouts, stop_ids=[2, 5])

    def test_no_tensor_of_all_tokens_by_vocabulary_exists(self, monkeypatch):
        vocabulary, rows = 20000, 8
        monkeypatch.setattr(onepass, "BUFFER_BYTES", 4 * vocabulary * rows)
        student, teacher = (wrapped(seed=s, vocabulary=vocabulary) for s in (1, 2))
        rollouts = random_rollouts([(20, 30)] * 8, vocabulary=vocabulary)
        largest = _Largest()
        with largest:
            score(student, teacher, rollouts)
        assert vocabulary * rows <= largest.numel < 3 * vocabulary * rows  # all tokens would have 8 · 50 · 20000


class _Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor) and not func.is_view:
                self.numel = max(self.numel, value.numel())
        return out


class TestProvenance:
    def test_says_what_was_scored(self, student, teacher, rollouts, scores):
        about = scores.provenance
        assert about["states"] == "on-policy"
        assert score(student, teacher, rollouts[:1], states="start").provenance["states"] == "start"
        assert about["student"]["name"] == about["student"]["label"] == "step 20"
        assert about["student"]["step"] == 20
        assert about["student"]["parameters"] == sum(p.numel() for p in student.hf.parameters())
        assert about["teacher"]["name"] == "big teacher"
        assert about["common_vocabulary"] == V
        assert (about["dtype"], about["device"]) == ("float32", "cpu")

    def test_says_in_which_pieces_numbers_were_added_up(self, monkeypatch, student, teacher, rollouts, scores):
        assert scores.provenance["sizes"] == {
            "tokens_of_a_pack": 1024, "states_of_a_block": 256, "ids_of_a_tile": 1024, "onednn": linear.AVAILABLE,
        }  # fmt: skip
        token_budget(monkeypatch, 40)
        monkeypatch.setattr(onepass, "BUFFER_BYTES", 4 * V * 3)
        sizes = score(student, teacher, rollouts[:2]).provenance["sizes"]
        assert (sizes["tokens_of_a_pack"], sizes["states_of_a_block"]) == (40, 3)

    def test_survives_a_file(self, tmp_path, scores):
        scores.save(tmp_path / "s.safetensors")
        read = Scores.load(tmp_path / "s.safetensors")
        assert read.provenance == scores.provenance
        np.testing.assert_array_equal(read.reverse_kl, scores.reverse_kl)


def _forget_what_follows_7(module, args, kwargs, output):
    """Make the hidden state after every token 7 not a number, and no other."""
    output.last_hidden_state[kwargs["input_ids"] == 7] = math.nan


class TestErrors:
    def test_an_id_outside_the_common_vocabulary(self, student):
        teacher = wrapped(name="small", vocabulary=100)
        for ids in (([100], [1]), ([1], [100]), ([1], [1], [100])):
            bad = rollout(*ids[:2], teacher_prompt_ids=ids[2] if len(ids) > 2 else None, prompt_index=4)
            with pytest.raises(RolloutsError) as caught:
                score(student, teacher, [rollout([1], [99]), bad])
            assert str(caught.value) == (
                "Rollout p4/0 holds token id 100, but step 20 and small have only 100 ids in common. "
                "These rollouts belong to another tokenizer."
            )

    def test_a_sequence_longer_than_the_context(self, student, teacher):
        fits = rollout([1] * 10, [7] * (CONTEXT - 10))
        assert len(score(student, teacher, [fits])) == CONTEXT - 10
        long = rollout([1] * 10, [7] * (CONTEXT - 9), prompt_index=1)
        with pytest.raises(RolloutsError) as caught:
            score(student, teacher, [fits, long])
        assert str(caught.value) == (
            "Rollout p1/0 has 97 tokens, step 20 takes 96. Lower --max-new-tokens or leave the prompt out."
        )
        with pytest.raises(RolloutsError, match=r"^Rollout p0/0 has 97 tokens, big teacher takes 96\."):
            score(student, teacher, [rollout([1], [7] * 10, teacher_prompt_ids=[1] * 87)])

    def test_nothing_to_score(self, student, teacher):
        empty = [rollout([1], []), rollout([1], [2, 3], generated=(False, False), stop_reason="length")]
        with pytest.raises(RolloutsError) as caught:
            score(student, teacher, empty)
        assert str(caught.value) == "Nothing to score: none of the 2 rollouts has a response token."

    @pytest.mark.parametrize("side", ["student", "teacher"])
    def test_damaged_weights_name_model_rollout_and_state(self, monkeypatch, student, teacher, side):
        hf = tiny_model(seed=3)
        hf.model.register_forward_hook(_forget_what_follows_7, with_kwargs=True)
        damaged = wrap_model(hf, name="damaged")
        clean = [rollout([1] * n, [8] * (5 + n), prompt_index=n) for n in range(1, 5)]
        bad = rollout([1, 2], [3, 3, 7, 3, 3], prompt_index=9, rollout_index=3)
        pair = (damaged, teacher) if side == "student" else (student, damaged)
        assert np.isfinite(score(*pair, clean).reverse_kl).all()
        for rows in (1, 1000):
            monkeypatch.setattr(onepass, "BUFFER_BYTES", 4 * V * rows)
            with pytest.raises(ModelError) as caught:
                score(*pair, [*clean, bad])
            assert str(caught.value) == (
                "damaged gives NaN or infinite logits at rollout p9/3, position 3. "
                "Its weights are damaged or overflow in this precision; try --dtype float32."
            )

    def test_infinite_logits(self, student, rollouts):
        hf = tiny_model("phi", seed=3)
        hf.lm_head.bias.data[4] = math.inf
        with pytest.raises(ModelError, match=r"^overflowing gives NaN or infinite logits at rollout"):
            score(student, wrap_model(hf, name="overflowing"), rollouts)
