"""KL on k tokens, as the paper has it and as its authors' code trains it: by hand, by their formulas, and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from opd_diag import metrics

from .conftest import random_pair as pair_of
from .kept_pairs import kept_of, rows

SHAPES = [(40, 6), (12, 12), (200, 32), (9, 1)]


@pytest.fixture(params=SHAPES, ids=str)
def kept(request, random_pair):
    vocabulary, k = request.param
    return kept_of(*random_pair(vocabulary, 50, seed=vocabulary), k)


def paper(student, teacher):
    """Section 2: both renormalised on the student's top-k."""
    p, q = [math.exp(x) for x in student], [math.exp(x) for x in teacher]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def thunlp(student, teacher):
    """Reward -(log p - log q) times the softmax of the student's log-probabilities, its negative summed over k."""
    total = math.log(sum(math.exp(x) for x in student))
    rewards = [-(a - b) * math.exp(a - total) for a, b in zip(student, teacher, strict=True)]
    return -sum(rewards)


def raw(student, teacher):
    return sum(math.exp(a) * (a - b) for a, b in zip(student, teacher, strict=True))


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (metrics.topk_reverse_kl, paper),
        (metrics.raw_topk_reverse_kl, raw),
        (metrics.thunlp_topk_reverse_kl, thunlp),
        (metrics.negative_topk_kl, lambda *pair: float(raw(*pair) < 0)),
    ],
    ids=["paper", "raw", "thunlp", "negative"],
)
def test_conforms_to_the_owners_formula(function, formula, kept):
    expected = [formula(*row) for row in rows(*kept.on_student)]
    assert function(*kept.on_student).tolist() == pytest.approx(expected, abs=1e-6)
    assert function(*(x.float() for x in kept.on_student)).tolist() == pytest.approx(expected, abs=1e-5)
    assert len({*expected}) > 1 or kept.student.shape[-1] == 1 or function is metrics.negative_topk_kl


def test_negative_for_some_states_only(random_pair):
    found = metrics.negative_topk_kl(*kept_of(*random_pair(40, 100), 2).on_student)
    assert 0 < found.mean() < 1


def test_equal_to_scipy(kept):
    p, q = (np.exp(x.numpy()) for x in kept.on_student)
    assert metrics.raw_topk_reverse_kl(*kept.on_student).numpy() == pytest.approx(rel_entr(p, q).sum(-1), abs=1e-12)
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    assert metrics.topk_reverse_kl(*kept.on_student).numpy() == pytest.approx(rel_entr(p, q).sum(-1), abs=1e-12)


def test_the_example_of_a_negative_truncated_kl():
    # p = (.6, .4), q = (.9, .1), k = 1: .6 log(.6/.9) = -.243; the whole KL is -.243 + .4 log 4 = +.311.
    p, q = torch.tensor([0.6, 0.4], dtype=torch.float64).log(), torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    assert metrics.raw_topk_reverse_kl(p[:1], q[:1]).item() == pytest.approx(-0.2432791, abs=1e-7)
    assert metrics.reverse_kl(p, q).item() == pytest.approx(0.3112387, abs=1e-7)
    assert metrics.thunlp_topk_reverse_kl(p[:1], q[:1]).item() == pytest.approx(math.log(0.6 / 0.9))
    assert metrics.topk_reverse_kl(p[:1], q[:1]).item() == 0.0
    assert metrics.negative_topk_kl(p[:1], q[:1]).item() == 1.0
    assert metrics.negative_topk_kl(q[:1], p[:1]).item() == 0.0


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 20), k=st.integers(1, 30))
def test_identities(seed, scale, k):
    student, teacher = pair_of(30, 5, seed=seed, scale=scale)
    pair = kept_of(student, teacher, k).on_student
    masses = [metrics.topk_mass(x) for x in pair]
    weighed = metrics.thunlp_topk_reverse_kl(*pair)
    torch.testing.assert_close(metrics.raw_topk_reverse_kl(*pair), masses[0] * weighed)
    torch.testing.assert_close(weighed, metrics.topk_reverse_kl(*pair) + masses[0].log() - masses[1].log())
    assert (metrics.negative_topk_kl(*pair) == (weighed < 0)).all()
    if k == 30:
        for function in (metrics.topk_reverse_kl, metrics.raw_topk_reverse_kl, metrics.thunlp_topk_reverse_kl):
            torch.testing.assert_close(function(*pair), metrics.reverse_kl(student, teacher))


@given(seed=st.integers(0, 1000), k=st.integers(2, 12))
def test_advantage_is_minus_the_kl_on_shared_tokens_by_their_number(seed, k):
    kept = kept_of(*pair_of(20, 5, seed=seed), k)
    shared = metrics.shared_tokens(kept.student_ids, kept.teacher_ids)
    inside = [x.masked_fill(~shared, -math.inf) for x in kept.on_student]
    kl = metrics.topk_reverse_kl(*inside)
    found = metrics.overlap_token_advantage(*kept.of_shared)
    torch.testing.assert_close(found, -kl / shared.sum(-1), equal_nan=True)


def test_equal_models_give_exactly_0(random_pair):
    kept = kept_of(*[random_pair(300, 40, dtype=torch.float32)[0]] * 2, 16)
    for function in (
        metrics.topk_reverse_kl,
        metrics.raw_topk_reverse_kl,
        metrics.thunlp_topk_reverse_kl,
        metrics.negative_topk_kl,
    ):
        assert function(*kept.on_student).tolist() == [0.0] * 40


def test_tokens_without_probability():
    student = torch.tensor([0.5, 0.5, 0.0]).log()
    finite, excluded = torch.tensor([0.25, 0.75, 0.0]).log(), torch.tensor([1.0, 0.0, 0.0]).log()
    for function in (metrics.topk_reverse_kl, metrics.raw_topk_reverse_kl, metrics.thunlp_topk_reverse_kl):
        assert function(student, finite).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)
        assert function(student, excluded).item() == math.inf
    assert metrics.negative_topk_kl(student, excluded).item() == 0.0
