"""Arithmetic on kept ids, held against the whole distributions."""

from __future__ import annotations

import numpy as np
import pytest
from models import random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.inference.packing import Pack, states_before
from opd_diag.replay.selftests.kept import NO_TOKEN, Kept, tokens_near

LENGTHS = [(5, 7), (3, 4), (6, 1)]


@pytest.fixture(scope="module")
def case():
    """(kept, rollouts, log-probabilities over the whole vocabulary) of a student."""
    student, teacher = wrapped(seed=1), wrapped(seed=2)
    rollouts = random_rollouts(LENGTHS)
    kept = Kept.of(score(student, teacher, rollouts), rollouts, "student")
    pack = Pack.of([(r.prompt_ids, r.response_ids) for r in rollouts])
    places = [(i, p) for i, r in enumerate(rollouts) for p in range(len(r.response_ids))]
    logits = student.head.logits(states_before(student, pack, places))
    return kept, rollouts, logits.double().log_softmax(-1).detach().numpy()


def test_terminal_states_are_left_out(case):
    kept, rollouts, whole = case
    assert len(kept.rows) == len(whole) == sum(n for _, n in LENGTHS)
    assert kept.prompts.tolist() == [0] * 7 + [1] * 4 + [2]
    assert any(r.truncated for r in rollouts), "the test could fail"


def test_any_token_has_a_logprob_that_is_not_below_the_last_kept(case):
    kept, _, whole = case
    floor = np.sort(whole)[:, -32]
    for token in (0, 17, 99):
        found = kept.clipped(np.full(len(whole), token))
        np.testing.assert_allclose(found, np.maximum(whole[:, token], floor), atol=1e-5)
    assert np.isnan(kept.clipped(np.full(len(whole), NO_TOKEN))).all()


def test_the_mean_over_tokens_of_all_states(case):
    kept, rollouts, whole = case
    tokens = tokens_near(kept, rollouts, 0)
    expected = np.mean([kept.clipped(np.full(len(whole), token)) for token in tokens], axis=0)
    np.testing.assert_allclose(kept.clipped_mean(tokens), expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 0.8, 1.0])
def test_another_temperature(case, temperature):
    kept, rollouts, whole = case
    scaled = whole / temperature
    scaled -= np.logaddexp.reduce(scaled, axis=1)[:, None]
    tokens = tokens_near(kept, rollouts, 0)
    expected = scaled[np.arange(len(tokens)), tokens]
    np.testing.assert_allclose(kept.at_temperature(temperature), expected, atol=0.05)


def test_the_variance_of_surprise_is_the_true_one(case):
    kept, _, whole = case
    p = np.exp(whole)
    true = (p * whole**2).sum(1) - (p * whole).sum(1) ** 2
    found = kept.surprise_variance()
    assert (found > 0.95 * true).all()
    assert np.median(found / true) == pytest.approx(1.0, abs=0.15)


def test_tokens_near_the_sampled_one(case):
    kept, rollouts, _ = case
    first = rollouts[0].response_ids
    assert tokens_near(kept, rollouts, 0)[:7].tolist() == list(first)
    assert tokens_near(kept, rollouts, 2)[:7].tolist() == [*first[2:], NO_TOKEN, NO_TOKEN]
    assert tokens_near(kept, rollouts, -1)[:8].tolist() == [NO_TOKEN, *first[:6], NO_TOKEN]
