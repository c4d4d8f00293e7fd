"""Responses are the model's own, token for token, whatever else shares their batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from models import CONTEXT, FAMILIES, V, tiny_model, word_tokenizer, wrapped
from scipy import stats

from opd_diag.errors import ModelError, PromptsError
from opd_diag.inference import growing, sample_rollouts, sampling, score, wrap_model
from opd_diag.inference.places import SPARE
from opd_diag.records.prompt import Prompt
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import EncodedPrompt

from .truth import logprobs_before

TOKENIZER = word_tokenizer()
WORDS = len(TOKENIZER.hf)
LENGTHS = (1, 40, 3, 17, 2)


def prompt(index, ids, *, answer=None, teacher_ids=None, group=None):
    content = Prompt("text", f"id{index}", answer=answer, group=group)
    return EncodedPrompt(index, content, tuple(ids), tuple(ids if teacher_ids is None else teacher_ids))


def ragged_prompts():
    generator = torch.Generator().manual_seed(3)
    return [prompt(i, torch.randint(3, WORDS, (n,), generator=generator).tolist()) for i, n in enumerate(LENGTHS)]


def sample(model, prompts, *, vocabulary=None, progress=None, **settings):
    settings = {"rollouts_per_prompt": 3, "max_new_tokens": 25} | settings
    return sample_rollouts(
        model, TOKENIZER, prompts, sampling=Sampling(**settings), vocabulary=vocabulary, progress=progress
    )


def tokens(rollouts):
    return [r.response_ids for r in rollouts]


@pytest.fixture(scope="module")
def model():
    return wrapped(name="step 20", label="step 20", step=20, vocabulary=WORDS, seed=1)


@pytest.fixture(scope="module")
def prompts():
    return ragged_prompts()


@pytest.fixture(scope="module")
def rollouts(model, prompts):
    return sample(model, prompts)


class TestRecord:
    def test_one_rollout_each_in_order(self, rollouts, prompts):
        assert [(r.prompt_index, r.rollout_index) for r in rollouts] == [(p, r) for p in range(5) for r in range(3)]
        assert [r.prompt_ids for r in rollouts[::3]] == [p.ids for p in prompts]
        assert all(1 <= len(r.response_ids) <= 25 for r in rollouts)

    def test_what_is_known_of_the_prompt_is_kept(self, model):
        (made,) = sample(
            model, [prompt(4, [5, 6], answer="3", teacher_ids=[7, 8, 9], group="maths")], rollouts_per_prompt=1
        )
        assert (made.prompt_index, made.prompt_id, made.group, made.answer) == (4, "id4", "maths", "3")
        assert made.teacher_prompt_ids == (7, 8, 9)
        assert made.exactness == "ids"
        assert made.generated is None

    def test_provenance(self, model, prompts):
        made = sample(model, prompts[:1], temperature=0.5, top_p=0.9, seed=8)[0].provenance
        assert (made.origin, made.weights, made.step) == ("sampled", "step 20", 20)
        assert (made.temperature, made.top_p, made.seed) == (0.5, 0.9, 8)
        assert not made.plain
        assert sample(model, prompts[:1])[0].provenance.plain

    def test_text_is_that_of_the_ids(self, rollouts):
        for r in rollouts:
            assert r.prompt_text == TOKENIZER.text(r.prompt_ids)
            assert r.response_text == TOKENIZER.text(r.response_ids)
        stopped = [r for r in rollouts if r.stop_reason == "stop"]
        assert stopped
        assert all(r.response_text.endswith("</s>") for r in stopped)

    def test_progress(self, monkeypatch, model, prompts):
        monkeypatch.setattr(sampling, "ROWS_PER_SHARD", 4)
        seen = []
        sample(model, prompts, progress=lambda *ends: seen.append(ends))
        assert seen[0] == (0, 15)
        assert seen[-1] == (15, 15)
        assert {(3, 15), (6, 15), (9, 15), (12, 15)} <= set(seen)
        assert seen == sorted(seen)
        assert len(seen) > 10  # told after every token, not only after every batch

    def test_graded_without_special_tokens(self):
        hf = tiny_model("phi", vocabulary=WORDS)
        hf.lm_head.bias.data[:] = -1e4
        hf.lm_head.bias.data[2] = 0.0  # </s> at once
        model = wrap_model(hf, name="silent")
        graded = [
            sample(model, [prompt(0, [5], answer=a)], rollouts_per_prompt=1, max_new_tokens=3)[0].is_correct
            for a in ("</s>", "7", None)
        ]
        assert graded == [False, False, None]
        hf.lm_head.bias.data[2], hf.lm_head.bias.data[10] = -1e4, 0.0  # the word "7", for ever
        model = wrap_model(hf, name="seven")
        graded = [
            sample(model, [prompt(0, [5], answer=a)], rollouts_per_prompt=1, max_new_tokens=3)[0].is_correct
            for a in ("7", "8", None)
        ]
        assert graded == [True, False, None]


class TestStopping:
    def test_stop_and_length(self, rollouts):
        reasons = {r.stop_reason for r in rollouts}
        assert reasons == {"stop", "length"}
        for r in rollouts:
            if r.stop_reason == "stop":
                assert r.response_ids[-1] == 2
                assert 2 not in r.response_ids[:-1]
            else:
                assert len(r.response_ids) == 25
                assert 2 not in r.response_ids

    def test_a_stop_token_at_the_limit_is_a_stop(self, model, prompts, rollouts):
        early = next(r for r in rollouts if r.stop_reason == "stop")
        limit = len(early.response_ids)
        again = sample(model, prompts, max_new_tokens=limit)
        same = next(r for r in again if (r.prompt_index, r.rollout_index) == (early.prompt_index, early.rollout_index))
        assert (same.response_ids, same.stop_reason) == (early.response_ids, "stop")
        cut = sample(model, prompts, max_new_tokens=limit - 1)
        same = next(r for r in cut if (r.prompt_index, r.rollout_index) == (early.prompt_index, early.rollout_index))
        assert (same.response_ids, same.stop_reason) == (early.response_ids[:-1], "length")

    def test_stop_tokens_of_the_model_and_of_the_tokenizer(self, prompts):
        hf = tiny_model(vocabulary=WORDS, seed=1)
        both = sample(wrap_model(hf, name="m", stop_ids=(9, 30)), prompts, rollouts_per_prompt=8)
        assert {r.response_ids[-1] for r in both if r.stop_reason == "stop"} == {2, 9, 30}
        assert all(not {2, 9, 30} & set(r.response_ids[:-1]) for r in both)

    def test_nothing_that_stops(self, prompts):
        endless = wrap_model(tiny_model(vocabulary=WORDS, seed=1), name="endless", stop_ids=())
        tokenizer = word_tokenizer(eos_token=None)
        made = sample_rollouts(endless, tokenizer, prompts, sampling=Sampling(max_new_tokens=25))
        assert {(r.stop_reason, len(r.response_ids)) for r in made} == {("length", 25)}

    def test_a_response_fills_the_context_and_no_more(self, model):
        full = prompt(0, [5] * (CONTEXT - 4))
        assert all(len(r.response_ids) <= 4 for r in sample(model, [full], max_new_tokens=4))
        with pytest.raises(PromptsError) as caught:
            sample(model, [prompt(1, [5]), full], max_new_tokens=5)
        assert str(caught.value) == (
            "Prompt id0 has 92 tokens; with --max-new-tokens 5 that exceeds the 96 tokens that step 20 takes. "
            "Lower --max-new-tokens or leave the prompt out."
        )

    def test_only_what_the_writer_sees_must_fit(self, model):
        longer = [prompt(0, [5], teacher_ids=[5] * 93)]
        assert len(sample(model, longer, max_new_tokens=4)) == 3
        with pytest.raises(PromptsError, match=r"^Prompt id0 has 93 tokens;"):
            sample_rollouts(model, TOKENIZER, longer, sampling=Sampling(max_new_tokens=4), as_teacher=True)


class TestRandomNumbers:
    def test_same_seed_same_responses(self, model, prompts, rollouts):
        assert sample(model, prompts) == rollouts

    def test_another_seed_other_responses(self, model, prompts, rollouts):
        other = sample(model, prompts, seed=1)
        assert sum(a != b for a, b in zip(tokens(other), tokens(rollouts), strict=True)) > 12

    def test_rollouts_of_one_prompt_differ(self, rollouts):
        assert all(len({r.response_ids for r in rollouts[i : i + 3]}) == 3 for i in range(0, 15, 3))

    def test_equal_prompts_at_other_places_differ(self, model):
        made = sample(model, [prompt(i, [5, 6, 7]) for i in range(6)], rollouts_per_prompt=1)
        assert len(set(tokens(made))) == 6

    def test_equal_prompts_with_another_between_them(self, model):
        """Read once, and each of their rollouts still has its own numbers and its own record."""
        ids = [[5, 6, 7], [8, 9, 10], [5, 6, 7]]
        made = sample(model, [prompt(i, x) for i, x in enumerate(ids)])
        alone = [r for i, x in enumerate(ids) for r in sample(model, [prompt(i, x)])]
        assert [(r.prompt_index, r.rollout_index, r.response_ids) for r in made] == [
            (r.prompt_index, r.rollout_index, r.response_ids) for r in alone
        ]

    def test_step_and_label_key_the_streams(self, prompts):
        hf = tiny_model(vocabulary=WORDS, seed=1)
        known = [
            {"label": "step 20", "step": 20},
            {"label": "another name", "step": 20},
            {"label": "step 40", "step": 40},
            {"label": "final", "step": None},
            {"label": "best", "step": None},
        ]
        made = [tokens(sample(wrap_model(hf, name="m", **about), prompts)) for about in known]
        assert made[0] == made[1]
        assert all(made[i] != made[j] for i in range(2, 5) for j in range(i))

    def test_a_smaller_limit_gives_the_same_beginning(self, model, prompts, rollouts):
        short = sample(model, prompts, max_new_tokens=6)
        assert tokens(short) == [ids[:6] for ids in tokens(rollouts)]

    def test_more_rollouts_keep_the_first_ones(self, model, prompts, rollouts):
        more = sample(model, prompts, rollouts_per_prompt=5)
        assert tokens([r for r in more if r.rollout_index < 3]) == tokens(rollouts)

    def test_the_global_state_is_neither_used_nor_touched(self, model, prompts, rollouts):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        assert tokens(sample(model, prompts)) == tokens(rollouts)
        assert torch.equal(torch.get_rng_state(), before)


class TestNothingDependsOnTheBatch:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_prompts_alone_or_together(self, family):
        """Prompts of 1 to 40 tokens side by side: padding, positions and sliding windows do not matter."""
        model, prompts = wrapped(family, vocabulary=WORDS, seed=1), ragged_prompts()
        together = sample(model, prompts)
        alone = [r for p in prompts for r in sample(model, [p])]
        assert tokens(alone) == tokens(together)
        np.testing.assert_allclose(
            np.concatenate([r.sampled_logprobs for r in alone]),
            np.concatenate([r.sampled_logprobs for r in together]),
            atol=1e-4,
        )

    def test_a_subset_in_another_order(self, model, prompts, rollouts):
        some = sample(model, [prompts[3], prompts[0]])
        assert tokens(some) == tokens(rollouts[:3] + rollouts[9:12])

    @pytest.mark.parametrize(
        ("places", "budget", "most"),
        # 5 places: prompts of 40 tokens, room for 25 and to spare
        [(1, 10**6, 1), (4, 10**6, 4), (128, 1, 1), (128, 5 * (40 + 25 + SPARE), 5), (128, 10**6, 15)],
    )
    def test_places_and_budget(self, monkeypatch, model, prompts, rollouts, places, budget, most):
        drawn = []
        draw = growing.draw

        def spy(logits, *others):
            drawn.append(len(logits))
            return draw(logits, *others)

        monkeypatch.setattr(growing, "draw", spy)
        monkeypatch.setattr(sampling, "PLACES", places)
        monkeypatch.setattr(sampling, "TOKENS_IN_PLACES", budget)
        assert tokens(sample(model, prompts)) == tokens(rollouts)
        assert max(drawn) == most
        assert sum(drawn) == sum(map(len, tokens(rollouts)))  # none for rows that have stopped

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}])
    def test_few_places_taken_again_and_again(self, monkeypatch, family, settings):
        model, prompts = wrapped(family, vocabulary=WORDS, seed=1), ragged_prompts()
        together = sample(model, prompts, **settings)
        monkeypatch.setattr(sampling, "PLACES", 4)
        few = sample(model, prompts, **settings)
        assert tokens(few) == tokens(together)
        np.testing.assert_allclose(
            np.concatenate([r.sampled_logprobs for r in few]),
            np.concatenate([r.sampled_logprobs for r in together]),
            atol=1e-4,
        )


class TestCost:
    def test_a_prompt_is_read_once_for_all_its_rollouts(self, model, prompts):
        before = model.forwarded.tokens
        made = sample(model, prompts, rollouts_per_prompt=8, max_new_tokens=1)
        assert len(made) == 40
        assert model.forwarded.tokens - before <= len(prompts) * max(LENGTHS) + 2 * (max(LENGTHS) + 1)

    def test_each_token_drawn_is_forwarded_once_and_rows_that_stopped_are_not(self, model, prompts, rollouts):
        """All that is forwarded: prompts with padding, each token but the last of a row, and the check."""
        before = model.forwarded.tokens
        sample(model, prompts)
        drawn, read = sum(map(len, tokens(rollouts))), model.forwarded.tokens - before
        checked = read - (drawn - len(rollouts)) - len(prompts) * max(LENGTHS)
        assert 0 < checked <= 2 * (max(LENGTHS) + 25)


class TestLogprobs:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_are_the_scored_ones_at_temperature_one(self, family):
        model = wrapped(family, vocabulary=WORDS, seed=1)
        rollouts = sample(model, ragged_prompts())
        scores = score(model, model, rollouts)
        states = ~scores.terminal
        np.testing.assert_array_equal(scores.sampled_ids[states], np.concatenate(tokens(rollouts)))
        np.testing.assert_allclose(
            np.concatenate([r.sampled_logprobs for r in rollouts]), scores.student_sampled_logprobs[states], atol=1e-4
        )

    @pytest.mark.parametrize(
        ("settings", "temperature"),
        [
            ({"temperature": 0.5}, 0.5),
            ({"temperature": 2.0, "top_p": 0.7}, 2.0),  # before top-p
            ({"top_p": 0.5}, 1.0),
            ({"temperature": 0.0}, 1.0),  # there is no distribution at 0: the model's own
        ],
    )
    def test_at_the_sampling_temperature(self, model, prompts, settings, temperature):
        for r in sample(model, prompts, **settings):
            n = len(r.response_ids)
            truth, _ = logprobs_before(model, r.prompt_ids, r.response_ids, range(n), temperature=temperature)
            np.testing.assert_allclose(r.sampled_logprobs, truth[range(n), r.response_ids], atol=1e-4)


class TestDistribution:
    N = 3000

    def first_tokens(self, model, **settings):
        made = sample(model, [prompt(0, [5, 6, 7])], rollouts_per_prompt=self.N, max_new_tokens=1, **settings)
        return np.bincount([r.response_ids[0] for r in made], minlength=WORDS)

    def probabilities(self, model, temperature=1.0):
        return np.exp(logprobs_before(model, [5, 6, 7], [0], [0], temperature=temperature)[0][0])

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_follows_the_model(self, model, temperature):
        counts = self.first_tokens(model, temperature=temperature)
        p = self.probabilities(model, temperature)
        rare = self.N * p < 5
        pooled = [np.append(x[~rare], x[rare].sum()) for x in (counts, self.N * p)]
        pooled = [x[pooled[1] > 0] for x in pooled]
        assert len(pooled[0]) > 8
        assert stats.chisquare(*pooled).pvalue > 0.01
        # The test has the power to tell: the same counts do not fit the next temperature.
        wrong = np.append(self.probabilities(model, temperature * 1.4)[~rare], 0)
        wrong[-1] = 1 - wrong.sum()
        assert stats.chisquare(pooled[0], self.N * wrong[: len(pooled[0])]).pvalue < 1e-6

    @pytest.mark.parametrize(("top_p", "temperature"), [(0.5, 1.0), (0.8, 2.0), (1e-6, 1.0)])
    def test_top_p_draws_the_nucleus_all_of_it_and_nothing_else(self, model, top_p, temperature):
        p = self.probabilities(model, temperature)
        order = np.argsort(-p)
        size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
        nucleus = order[:size]
        counts = self.first_tokens(model, top_p=top_p, temperature=temperature)
        assert set(np.flatnonzero(counts)) == set(nucleus.tolist())
        if size > 1:
            assert stats.chisquare(counts[nucleus], self.N * p[nucleus] / p[nucleus].sum()).pvalue > 0.01

    def test_temperature_zero_is_the_most_probable_token(self, model, prompts):
        greedy = sample(model, prompts, temperature=0.0)
        for r in greedy:
            n = len(r.response_ids)
            truth, _ = logprobs_before(model, r.prompt_ids, r.response_ids, range(n))
            assert truth.argmax(-1).tolist() == list(r.response_ids)
        assert tokens(greedy) == tokens(sample(model, prompts, temperature=0.0, seed=9))

    def test_ids_outside_the_vocabulary_are_never_drawn(self, prompts):
        model = wrapped(vocabulary=V, seed=1)
        free, limited = sample(model, prompts), sample(model, prompts, vocabulary=WORDS)
        assert max(map(max, tokens(free))) >= WORDS
        assert max(map(max, tokens(limited))) < WORDS
        for r in limited:
            n = len(r.response_ids)
            truth, _ = logprobs_before(model, r.prompt_ids, r.response_ids, range(n), vocabulary=WORDS)
            np.testing.assert_allclose(r.sampled_logprobs, truth[range(n), r.response_ids], atol=1e-4)

    def test_masked_ids_are_never_drawn(self, prompts):
        hf = tiny_model("phi", vocabulary=WORDS)
        hf.lm_head.bias.data[20:] = -math.inf
        made = sample(wrap_model(hf, name="m"), prompts, rollouts_per_prompt=10)
        assert max(map(max, tokens(made))) < 20


class TestModelsThatCannotBeSampled:
    ELSEWHERE = (
        "cannot be sampled from here: sample with the tool that trained it and give the responses with --rollouts."
    )

    def test_a_model_without_a_key_value_cache(self, prompts):
        config = transformers.MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, state_size=4)
        model = wrap_model(transformers.AutoModelForCausalLM.from_config(config), name="recurrent")
        with pytest.raises(ModelError) as caught:
            sample(model, prompts)
        assert str(caught.value).startswith("recurrent ")  # its state has another name, or the name and not the shape
        assert str(caught.value).endswith(f" This architecture (MambaForCausalLM) {self.ELSEWHERE}")

    @pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}])
    def test_a_model_that_forgets_its_cache(self, prompts, settings):
        """It would write fluent nonsense: each token is drawn after the last one alone."""
        hf = tiny_model(vocabulary=WORDS, seed=1)
        hf.model.register_forward_pre_hook(_forget, with_kwargs=True)
        with pytest.raises(ModelError) as caught:
            sample(wrap_model(hf, name="forgetful"), prompts, **settings)
        assert str(caught.value).startswith(
            "forgetful gives other log-probabilities token by token than in one pass (by "
        )
        assert str(caught.value).endswith(self.ELSEWHERE)

    def test_a_model_that_sees_its_padding(self, prompts):
        hf = tiny_model(vocabulary=WORDS, seed=1)
        hf.model.register_forward_pre_hook(_see_padding, with_kwargs=True)
        model = wrap_model(hf, name="m")
        sample(model, prompts[1:2])  # alone there is none
        with pytest.raises(ModelError, match="token by token"):
            sample(model, prompts)

    def test_a_body_in_sixteen_bits_passes(self, prompts):
        model = wrap_model(tiny_model(vocabulary=WORDS, seed=1).bfloat16(), name="half")
        assert len(sample(model, prompts)) == 15

    def test_a_model_without_a_body_of_its_own_gives_the_same(self, model, prompts, rollouts):
        hf = tiny_model(vocabulary=WORDS, seed=1)
        hf.base_model_prefix = "nothing"
        whole = wrap_model(hf, name="step 20", label="step 20", step=20)
        assert tokens(sample(whole, prompts)) == tokens(rollouts)


def _forget(module, args, kwargs):
    if kwargs["input_ids"].shape[1] == 1:
        kwargs = kwargs | {name: None for name in ("past_key_values", "cache") if name in kwargs}
        kwargs = kwargs | {"attention_mask": None}
    return args, kwargs


def _see_padding(module, args, kwargs):
    if kwargs.get("attention_mask") is not None:
        kwargs = kwargs | {"attention_mask": torch.ones_like(kwargs["attention_mask"])}
    return args, kwargs


class TestDamagedModels:
    @pytest.mark.parametrize("settings", [{}, {"top_p": 0.5}, {"temperature": 0.0}, {"temperature": 0.5}])
    def test_nan_is_named(self, prompts, settings):
        hf = tiny_model(vocabulary=WORDS)
        hf.model.norm.weight.data[3] = math.nan
        with pytest.raises(ModelError) as caught:
            sample(wrap_model(hf, name="step 40"), prompts, **settings)
        assert str(caught.value) == "step 40 gives NaN or infinite logits while sampling. Its weights are damaged."

    def test_infinite_logits(self, prompts):
        hf = tiny_model("phi", vocabulary=WORDS)
        hf.lm_head.bias.data[3] = math.inf
        with pytest.raises(ModelError, match=r"^m gives NaN or infinite logits while sampling\."):
            sample(wrap_model(hf, name="m"), prompts)
