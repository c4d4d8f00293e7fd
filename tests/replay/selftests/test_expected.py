"""The surprise of tokens, against what their model expects: true tokens pass, others do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from models import wrapped

from opd_diag.inference import score
from opd_diag.replay.selftests.expected import Surprise, judged_surprise, surprise_of, together
from opd_diag.replay.selftests.kept import Kept


def test_own_tokens_are_as_expected(kept):
    found = surprise_of(kept, np.ones(len(kept.rows), dtype=bool))
    assert found.n == len(kept.rows) > 200
    assert found.expected
    assert abs(found.z) < 4


def test_the_z_score_has_variance_one(kept):
    """Tokens drawn again and again from what the states say, as if there were no other ids than the kept ones."""
    rng = np.random.default_rng(3)
    p = np.exp(kept.logprobs)
    p /= p.sum(1, keepdims=True)
    kept = replace(kept, logprobs=np.log(p), entropy=-(p * np.log(p)).sum(1))
    scores = []
    for _ in range(300):
        chosen = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
        drawn = replace(kept, sampled=kept.logprobs[np.arange(len(p)), chosen])
        scores.append(surprise_of(drawn, np.ones(len(p), dtype=bool)).z)
    assert np.std(scores) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(scores)) < 0.2
    assert max(map(abs, scores)) < 5


def test_anothers_tokens_are_not(teacher, rollouts):
    random = wrapped("llama", vocabulary=teacher.vocabulary, seed=7)
    scores = score(random, teacher, rollouts[:8])
    found = surprise_of(Kept.of(scores, rollouts[:8], "student"), ~scores.terminal)
    assert not found.expected
    assert found.excess > 0.1


def test_few_states_of_one_kind(kept):
    assert surprise_of(kept, kept.positions == 0).n == 24
    nothing = surprise_of(kept, kept.positions > 999)
    assert nothing.n == 0
    assert math.isnan(nothing.excess)
    test = judged_surprise("shift", "m", nothing, what="tokens", advice="a")
    assert test.status == "unknown"


def test_both_the_chance_and_the_size_must_be_exceeded():
    assert Surprise(100, 1.0, 0.3, 4.5).expected, "chance"
    assert Surprise(100, 1.0, -0.3, -3.5).expected, "chance"
    assert Surprise(10**6, 1.0, 0.05, 40.0).expected, "too little"
    assert not Surprise(1000, 1.0, -0.3, -9.0).expected
    assert judged_surprise("logprobs", "m", Surprise(9, 1.0, -0.3, -9.0), what="tokens", advice="do").advice == "do"


def test_what_is_small_in_each_is_plain_together():
    one = Surprise(1000, 1.0, -0.11, -3.0, (110 / 3.0) ** 2)
    assert one.expected
    both = together([one, one, one, Surprise(0, math.nan, math.nan, math.nan)])
    assert (both.n, both.entropy, both.excess) == (3000, pytest.approx(1.0), pytest.approx(-0.11))
    assert both.z == pytest.approx(-3.0 * math.sqrt(3))
    assert not both.expected
    assert together([]).n == 0


def nearly_sure(sampled, n=128, others=2e-4):
    """Kept states of a model that is nearly sure; `sampled`: the place of each drawn token among the kept ones."""
    p = np.r_[1.0, others * 0.5 ** np.arange(1, 8)]
    p[0] = 1 - p[1:].sum()
    p /= p.sum()
    columns = {"rows": np.arange(n), "positions": np.zeros(n, dtype=int), "prompts": np.arange(n), "vocabulary": 500}
    entropy = np.full(n, -(p * np.log(p)).sum())
    ids = np.tile(np.arange(8), (n, 1))
    return Kept(ids=ids, logprobs=np.tile(np.log(p), (n, 1)), sampled=np.log(p)[sampled], entropy=entropy, **columns)


def test_one_rare_token_is_chance_where_a_model_is_nearly_sure():
    """It makes more than 5 standard errors, and comes 3 times in 100."""
    drawn = np.zeros(128, dtype=int)
    drawn[7] = 1
    once = surprise_of(nearly_sure(drawn), np.ones(128, dtype=bool))
    assert once.z > 5
    assert abs(once.excess) > once.limit
    assert 0.02 < once.chance < 1
    assert once.expected
    drawn[:4] = 1
    often = surprise_of(nearly_sure(drawn), np.ones(128, dtype=bool))
    assert often.chance < 1e-4
    assert not often.expected
    both = together([once, once])
    assert both.chance == pytest.approx(min(once.chance, 1.0) ** 2, rel=0.5)
    assert both.expected


def test_the_bound_on_chance_holds(kept):
    """Tokens drawn from the kept ids: no more often than it says are they as surprising."""
    rng = np.random.default_rng(5)
    p = np.exp(kept.logprobs)
    p /= p.sum(1, keepdims=True)
    kept = replace(kept, logprobs=np.log(p), entropy=-(p * np.log(p)).sum(1))
    chances = []
    for _ in range(200):
        chosen = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
        drawn = replace(kept, sampled=kept.logprobs[np.arange(len(p)), chosen])
        chances.append(surprise_of(drawn, np.ones(len(p), dtype=bool)).chance)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(chances) <= level) <= level


def test_many_tokens_are_held_to_the_bound_too():
    """A small excess of each, as at a slightly higher temperature, and much of the vocabulary not kept."""
    n, size = 20_000, 50_000
    logits = -1.2 * np.log(np.arange(1, size + 1))
    warm = logits / 1.1
    p, q = (np.exp(x - np.logaddexp.reduce(x)) for x in (logits, warm))
    kept = Kept(
        ids=np.tile(np.arange(32), (n, 1)),
        logprobs=np.tile(np.log(p[:32]), (n, 1)),
        sampled=np.zeros(n),
        entropy=np.full(n, -(p * np.log(p)).sum()),
        rows=np.arange(n),
        positions=np.zeros(n, dtype=int),
        prompts=np.arange(n),
        vocabulary=size,
    )
    rng, everything = np.random.default_rng(0), np.ones(n, dtype=bool)
    found = [
        surprise_of(replace(kept, sampled=np.log(p)[rng.choice(size, n, p=drawn)]), everything) for drawn in (p, q)
    ]
    assert [s.expected for s in found] == [True, False]
    assert found[1].chance < 1e-9
