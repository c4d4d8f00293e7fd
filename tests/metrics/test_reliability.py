"""How far one sampled token can be trusted: against enumerated and sampled gradients of a softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from opd_diag import metrics
from opd_diag.metrics.reliability import RESOLUTION

from .conftest import random_pair as pair_of
from .kept_pairs import kept_of


def ratio_of(student, teacher, k, sampled):
    """Of two (..., V) tensors of log-probabilities; `sampled` (...) below 0 is none."""
    at = [x.gather(-1, sampled.clamp(min=0).unsqueeze(-1)).squeeze(-1) for x in (student, teacher)]
    at = [x.where(sampled >= 0, torch.nan) for x in at]
    return metrics.signal_to_noise(*kept_of(student, teacher, k), sampled, *at)


def candidates(student, teacher, k, sampled):
    """Give ids of C, the student renormalised there, and log p - log q."""
    ids = sorted({*student.topk(k).indices.tolist(), *teacher.topk(k).indices.tolist()} | ({int(sampled)} - {-1}))
    p = student[ids].exp().numpy()
    return ids, p / p.sum(), (student[ids] - teacher[ids]).numpy()


def moments(p, ratio, baseline):
    """Signal and noise, in the Fisher metric, of the gradient (ρ - b)(e_a - p) of one draw a, by enumeration."""
    gradients = (ratio - baseline)[:, None] * (np.eye(len(p)) - p)
    inverse = np.linalg.pinv(np.diag(p) - np.outer(p, p))
    mean = p @ gradients
    lengths = np.einsum("ij,jk,ik->i", gradients, inverse, gradients)
    signal = mean @ inverse @ mean
    return signal, p @ lengths - signal


@pytest.mark.parametrize(("k", "sampled"), [(3, -1), (3, 11), (6, 3), (12, 0)])
def test_conforms_to_the_enumerated_gradient_at_the_best_baseline(k, sampled, random_pair):
    student, teacher = random_pair(12, 20, scale=1.0)
    found = ratio_of(student, teacher, k, torch.full((20,), sampled)).tolist()
    for n, value in enumerate(found):
        _, p, ratio = candidates(student[n], teacher[n], k, sampled)
        best = minimize_scalar(lambda b, p=p, ratio=ratio: moments(p, ratio, b)[1], options={"xtol": 1e-12})
        signal, _ = moments(p, ratio, 0.0)
        assert value == pytest.approx(signal / best.fun, rel=1e-6)


def test_conforms_to_sampled_gradients():
    generator = np.random.default_rng(0)
    student = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    teacher = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    p, ratio = student.exp().numpy(), (student - teacher).numpy()
    baseline = ((1 - p) * ratio).sum() / (1 - p).sum()
    drawn = generator.choice(4, size=200_000, p=p)
    gradients = (ratio - baseline)[drawn, None] * (np.eye(4)[drawn] - p)
    mean = gradients.mean(0)
    signal = (mean**2 / p).sum()  # vectors that sum to 0 need the diagonal of the Fisher matrix alone
    noise = ((gradients - mean) ** 2 / p).sum(1).mean()
    found = ratio_of(student, teacher, 4, torch.tensor(0)).item()
    assert found == pytest.approx(signal / noise, rel=0.02)


def test_by_hand():
    # p = (.5, .3, .2), ρ = (.916, 0, -.916): Var = .512150, b = -.137444, Σ (1 - p)(ρ - b)² = 1.053685.
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]))
    assert ratio_of(p, q, 3, torch.tensor(-1)).item() == pytest.approx(0.512150 / (1.053685 - 0.512150), abs=1e-5)


def test_the_sampled_token_is_a_candidate_once(random_pair):
    student, teacher = random_pair(12, 20, scale=1.0)
    inside = student.topk(3).indices[:, 1]
    none = torch.full((20,), -1)
    torch.testing.assert_close(ratio_of(student, teacher, 3, inside), ratio_of(student, teacher, 3, none))
    outside = student.argmin(-1)
    assert (ratio_of(student, teacher, 3, outside) - ratio_of(student, teacher, 3, none)).abs().max() > 0.01


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 8), shift=st.floats(-3, 3))
def test_not_negative_and_blind_to_a_constant_in_the_ratio(seed, scale, shift):
    student, teacher = pair_of(12, 5, seed=seed, scale=scale)
    found = ratio_of(student, teacher, 4, torch.zeros(5, dtype=torch.long))
    assert (found.nan_to_num() >= 0).all()
    kept, at = kept_of(student, teacher, 4), (student[:, 0], teacher[:, 0] + shift)
    moved = kept._replace(teacher_at_student=kept.teacher_at_student + shift, teacher=kept.teacher + shift)
    again = metrics.signal_to_noise(*moved, torch.zeros(5, dtype=torch.long), *at)
    torch.testing.assert_close(again, found, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_undefined_without_noise():
    two, other = torch.tensor([0.7, 0.3]).log().double(), torch.tensor([0.2, 0.8]).log().double()
    assert ratio_of(two, other, 2, torch.tensor(0)).isnan()  # the best baseline leaves no noise of two candidates
    assert ratio_of(two, other, 1, torch.tensor(-1)).isnan()
    same = torch.tensor([0.5, 0.3, 0.2]).log().double()
    assert ratio_of(same, same, 3, torch.tensor(0)).isnan()
    nearly = same + RESOLUTION / 10 * torch.tensor([1.0, -1.0, 0.0])
    assert ratio_of(same, nearly, 3, torch.tensor(0)).isnan()
    clearly = same + RESOLUTION * 10 * torch.tensor([1.0, -1.0, 0.0])
    assert ratio_of(same, clearly, 3, torch.tensor(0)) > 0
    excluded = torch.tensor([0.5, 0.5, 0.0]).log().double()
    assert ratio_of(same, excluded, 3, torch.tensor(0)).isnan()
    assert ratio_of(excluded, same, 3, torch.tensor(0)).isnan()


def test_a_token_that_both_exclude_is_no_candidate():
    p, q = torch.tensor([0.5, 0.3, 0.2]).log().double(), torch.tensor([0.2, 0.3, 0.5]).log().double()
    nothing = torch.tensor([-math.inf]).double()
    longer = ratio_of(torch.cat([p, nothing]), torch.cat([q, nothing]), 4, torch.tensor(0))
    torch.testing.assert_close(longer, ratio_of(p, q, 3, torch.tensor(0)))


def test_near_zero_advantages():
    student = torch.tensor([-1.0, -1.0, -1.0, math.nan], dtype=torch.float64)
    teacher = torch.tensor([-1.00009, -0.9998, -1.0, math.nan], dtype=torch.float64)
    found = metrics.near_zero_advantage(student, teacher)
    assert found.tolist() == pytest.approx([1.0, 0.0, 1.0, math.nan], nan_ok=True)
    assert metrics.near_zero_advantage(student, teacher, threshold=1e-3)[:3].tolist() == [1.0] * 3
    naive = [float(abs(b - a) < 1e-4) for a, b in zip(student[:3].tolist(), teacher[:3].tolist(), strict=True)]
    assert found[:3].tolist() == naive == np.isclose(student[:3], teacher[:3], rtol=0, atol=1e-4).astype(float).tolist()
    with pytest.raises(ValueError, match="above 0"):
        metrics.near_zero_advantage(student, teacher, threshold=0.0)


def test_refuses_log_probabilities_of_other_shapes():
    ids, logprobs = torch.arange(4).expand(3, 4), torch.zeros(3, 4)
    given = (
        ids,
        ids,
        logprobs,
        logprobs,
        logprobs,
        logprobs,
        torch.zeros(3, dtype=torch.long),
        torch.zeros(3),
        torch.zeros(3),
    )
    for place in range(2, 9):
        with pytest.raises(ValueError, match=r"ids' shape \(3,.*\), found \(1,"):
            metrics.signal_to_noise(*given[:place], given[place][:1], *given[place + 1 :])
