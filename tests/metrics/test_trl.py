"""TRL's top-k losses: its formulas written again, the bounds a tail bucket obeys, and its clamp."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from opd_diag import metrics

from .conftest import random_pair as pair_of
from .kept_pairs import kept_of, rows


def log_mass(logprobs):
    return math.log(sum(math.exp(x) for x in logprobs))


def with_bucket(logprobs):
    """One more entry: log(1 - exp(min(log of the mass, -1e-7)))."""
    return [*logprobs, math.log(-math.expm1(min(log_mass(logprobs), -1e-7)))]


def divergence(first, second):
    pairs = zip(with_bucket(first), with_bucket(second), strict=True)
    return sum(math.exp(a) * (a - b) for a, b in pairs)


def sdft(student, teacher):
    """Both renormalised, alpha ½: the mean of both KLs to the mixture."""
    p, q = ([math.exp(x - log_mass(of)) for x in of] for of in (student, teacher))
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return sum(0.5 * x * math.log(x / m) for of in (p, q) for x, m in zip(of, middle, strict=True))


@pytest.fixture(params=[(40, 6), (200, 32), (9, 1)], ids=str)
def kept(request, random_pair):
    vocabulary, k = request.param
    return kept_of(*random_pair(vocabulary, 50, seed=vocabulary), k)


def test_conforms_to_the_owners_formula(kept):
    reverse = [divergence(student, teacher) for student, teacher in rows(*kept.on_student)]
    assert metrics.trl_topk_reverse_kl(*kept.on_student).tolist() == pytest.approx(reverse, abs=1e-6)
    forward = [divergence(teacher, student) for student, teacher in rows(*kept.on_teacher)]
    assert metrics.trl_topk_forward_kl(*kept.on_teacher).tolist() == pytest.approx(forward, abs=1e-6)
    symmetric = [sdft(student, teacher) for student, teacher in rows(*kept.on_student)]
    assert metrics.trl_topk_jensen_shannon(*kept.on_student).tolist() == pytest.approx(symmetric, abs=1e-6)
    assert min(max(reverse), max(forward)) > 0.1
    assert max(symmetric) > 0.01 or kept.student.shape[-1] == 1


def test_jensen_shannon_is_scipys(kept):
    student, teacher = (x.exp().numpy() for x in kept.on_student)
    expected = [jensenshannon(p, q) ** 2 for p, q in zip(student, teacher, strict=True)]
    assert metrics.trl_topk_jensen_shannon(*kept.on_student).tolist() == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    # The tail bucket of two tokens at k = 1 is the other token, so the loss is the whole KL.
    p, q = torch.tensor([0.6, 0.4], dtype=torch.float64).log(), torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    assert metrics.trl_topk_reverse_kl(p[:1], q[:1]).item() == pytest.approx(0.3112387, abs=1e-7)
    assert metrics.trl_topk_forward_kl(p[:1], q[:1]).item() == pytest.approx(metrics.forward_kl(p, q).item())
    assert metrics.trl_topk_jensen_shannon(p[:1], q[:1]).item() == 0.0


@given(seed=st.integers(0, 2000), scale=st.floats(0.1, 10), k=st.integers(1, 29))
def test_head_and_tail_bucket_lie_between_0_and_the_whole_kl(seed, scale, k):
    student, teacher = pair_of(30, 5, seed=seed, scale=scale)
    kept = kept_of(student, teacher, k)
    bounds = (
        (metrics.trl_topk_reverse_kl(*kept.on_student), metrics.reverse_kl(student, teacher)),
        (metrics.trl_topk_forward_kl(*kept.on_teacher), metrics.forward_kl(student, teacher)),
    )
    for found, whole in bounds:
        assert (found >= 0).all()
        assert (found <= whole + 1e-5 * (1 + whole)).all()  # the clamp may add 1e-7 times a log-ratio


def test_the_clamp():
    nearly, less = torch.tensor([-5e-8], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    assert metrics.trl_clamped(nearly, less).item() == metrics.trl_clamped(less, nearly).item() == 1.0
    assert metrics.trl_clamped(less, less).item() == 0.0
    assert metrics.trl_clamped(torch.tensor([-2e-7], dtype=torch.float64), less).item() == 0.0
    whole = torch.zeros(1, dtype=torch.float64)
    tail = 1e-7 * (math.log(1e-7) - math.log(1 - math.exp(-0.5)))
    assert metrics.trl_topk_reverse_kl(whole, less).item() == pytest.approx(0.5 + tail, abs=1e-9)


def test_equal_models_give_exactly_0(random_pair):
    student = random_pair(300, 40, dtype=torch.float32)[0]
    kept = kept_of(student, student, 16)
    assert metrics.trl_topk_reverse_kl(*kept.on_student).tolist() == [0.0] * 40
    assert metrics.trl_topk_forward_kl(*kept.on_teacher).tolist() == [0.0] * 40
    assert metrics.trl_topk_jensen_shannon(*kept.on_student).tolist() == pytest.approx([0.0] * 40, abs=1e-7)


def test_what_the_other_model_excludes():
    certain, excluded = torch.tensor([0.5, 0.25]).log(), torch.tensor([-0.7, -math.inf])
    assert metrics.trl_topk_reverse_kl(certain, excluded).item() == math.inf
    assert metrics.trl_topk_forward_kl(excluded, certain).item() == math.inf
    assert metrics.trl_topk_jensen_shannon(certain, excluded).item() < math.log(2)
