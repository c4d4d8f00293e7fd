"""Entropies and their differences: by hand, naive Python, scipy, and fp32 against fp64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from opd_diag import metrics


def naive_entropy(logprobs):
    return -sum(math.exp(x) * x for x in logprobs if x > -math.inf)


def test_by_hand():
    # (.5, .25, .25): .5 log 2 + .5 log 4 = 1.5 log 2. Uniform over 4: log 4. Certain: 0.
    logprobs = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25] * 4, [0.0, 1.0, 0.0, 0.0]]).log()
    assert metrics.entropy(logprobs).tolist() == pytest.approx([1.5 * math.log(2), math.log(4), 0.0], abs=1e-6)


def test_a_certain_distribution_has_entropy_0_and_not_minus_0():
    assert math.copysign(1, metrics.entropy(torch.tensor([1.0, 0.0]).log()).item()) == 1


def test_gap_and_difference_by_hand():
    # Per state -1 and +1 (student minus teacher): gaps 1 and 1, mean 1; the mean difference is 0.
    student, teacher = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    assert metrics.entropy_gap(student, teacher).tolist() == [1.0, 1.0]
    assert metrics.entropy_difference(student, teacher).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("vocabulary", [2, 9, 127, 128, 1000])
def test_equal_to_the_naive_version_and_to_scipy(vocabulary, random_pair):
    student, teacher = random_pair(vocabulary, 20, seed=vocabulary, holes=0.2)
    found = [metrics.entropy(t) for t in (student, teacher)]
    for values, logprobs in zip(found, (student, teacher), strict=True):
        assert values.tolist() == pytest.approx([naive_entropy(row) for row in logprobs.tolist()], rel=1e-9)
        assert values.numpy() == pytest.approx(scipy_entropy(logprobs.exp().numpy(), axis=-1), rel=1e-9)
        assert values.max().item() <= math.log(vocabulary) + 1e-12
    student_scipy, teacher_scipy = (scipy_entropy(t.exp().numpy(), axis=-1) for t in (student, teacher))
    gap, difference = metrics.entropy_gap(*found), metrics.entropy_difference(*found)
    assert gap.numpy() == pytest.approx(np.abs(teacher_scipy - student_scipy), abs=1e-9)
    assert difference.numpy() == pytest.approx(student_scipy - teacher_scipy, abs=1e-9)
    naive = [
        a - b for a, b in zip(map(naive_entropy, student.tolist()), map(naive_entropy, teacher.tolist()), strict=True)
    ]
    assert difference.tolist() == pytest.approx(naive, abs=1e-9)
    assert gap.tolist() == pytest.approx([abs(x) for x in naive], abs=1e-9)
    assert gap.min().item() >= 0
    assert difference.min().item() < 0 < difference.max().item()


@pytest.mark.parametrize("scale", [0.0, 0.01, 2.0, 30.0])
def test_fp32_at_a_large_vocabulary(scale):
    logits = scale * torch.randn(16, 152_000, generator=torch.Generator().manual_seed(1)) + 100
    shifted = logits - logits.amax(-1, keepdim=True)
    found = metrics.entropy(shifted - shifted.logsumexp(-1, keepdim=True))
    exact = metrics.entropy(logits.double().log_softmax(-1))
    assert (found.double() - exact).abs().max().item() <= 1e-5
    assert found.min().item() >= 0


def test_any_leading_shape_and_arguments_untouched(random_pair):
    student, _ = random_pair(33, 2, 3, holes=0.2)
    before = student.clone()
    shaped = metrics.entropy(student)
    assert shaped.shape == (2, 3)
    assert torch.equal(student, before)
    torch.testing.assert_close(shaped.flatten(), metrics.entropy(student.flatten(0, 1)))
    assert metrics.entropy(student[0, 0]).shape == ()
