"""Coherence of gradients: planted directions are found, unrelated ones cancel, and no matrix of V × d is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opd_diag import metrics, stats


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def summed(products, prompts):
    """Sums by prompt, pair by pair."""
    names = sorted(set(prompts))
    by_pair = torch.zeros(len(names), len(names), dtype=torch.float64)
    norms = torch.zeros(len(names), dtype=torch.float64)
    for t, a in enumerate(prompts):
        norms[names.index(a)] += products[t, t]
        for u, b in enumerate(prompts):
            by_pair[names.index(a), names.index(b)] += products[t, u]
    return by_pair, norms, torch.tensor([prompts.count(a) for a in names])


def naive(matrices, prompts):
    """The definition: every G written out, every pair looked at."""
    pairs = [
        float((matrices[t] * matrices[u]).sum())
        for t in range(len(prompts))
        for u in range(len(prompts))
        if prompts[t] != prompts[u]
    ]
    norms = [float((g * g).sum()) for g in matrices]
    return (sum(pairs) / len(pairs)) / (sum(norms) / len(norms))


PROMPTS = [0, 0, 0, 2, 2, 3, 5, 5, 5, 5, 6, 6]


def test_the_gradient_is_that_of_autograd():
    logits = (3 * normal(6, 40, seed=0)).requires_grad_()
    teacher = (3 * normal(6, 40, seed=1)).log_softmax(-1)
    student = logits.log_softmax(-1)
    (student.exp() * (student - teacher)).sum().backward()
    found = metrics.reverse_kl_gradient(student.detach(), teacher)
    torch.testing.assert_close(found, logits.grad)
    torch.testing.assert_close(found.square().sum(-1), metrics.gradient_squared_norm(student.detach(), teacher))


def test_ids_that_the_student_excludes_have_no_gradient():
    student = torch.tensor([0.5, 0.5, 0.0]).log()
    for last in (0.0, 0.5):
        teacher = torch.tensor([0.3, 0.7 - last, last]).log()
        found = metrics.reverse_kl_gradient(student, teacher)
        assert found[2] == 0
        assert found.isfinite().all()


def test_products_are_those_of_the_matrices():
    g, h = normal(7, 11, seed=2), normal(7, 5, seed=3)
    matrices = [torch.outer(a, b) for a, b in zip(g, h, strict=True)]
    expected = torch.tensor([[float((a * b).sum()) for b in matrices] for a in matrices], dtype=torch.float64)
    torch.testing.assert_close(metrics.gradient_products(g, h), expected)


def test_it_is_the_definition_and_without_each_prompt_too():
    g, h = normal(12, 30, seed=4) + 0.3, normal(12, 6, seed=5) + 0.2
    matrices = [torch.outer(a, b) for a, b in zip(g, h, strict=True)]
    value, left_out = metrics.gradient_coherence(*summed(metrics.gradient_products(g, h), PROMPTS))
    assert value.item() == pytest.approx(naive(matrices, PROMPTS), rel=1e-12)
    for i, gone in enumerate(sorted(set(PROMPTS))):
        kept = [t for t, prompt in enumerate(PROMPTS) if prompt != gone]
        expected = naive([matrices[t] for t in kept], [PROMPTS[t] for t in kept])
        assert left_out[i].item() == pytest.approx(expected, rel=1e-10)


def test_pairs_of_one_prompt_do_not_count():
    """States of one prompt that all push alike are no coherence."""
    own = normal(5, 100, seed=6)
    g = own.repeat_interleave(4, 0)
    value, _ = metrics.gradient_coherence(
        *summed(metrics.gradient_products(g, torch.ones(20, 1)), [i // 4 for i in range(20)])
    )
    assert abs(value.item()) < 0.15


def test_one_direction_is_coherent_and_noise_beside_it_takes_its_share():
    direction, sizes = normal(1, 400, seed=7), normal(60, 1, seed=8).abs() + 0.5
    hidden = torch.ones(60, 1)
    prompts = [i // 3 for i in range(60)]
    one, _ = metrics.gradient_coherence(*summed(metrics.gradient_products(direction * sizes, hidden), prompts))
    assert one.item() == pytest.approx((sizes.mean() ** 2 / sizes.square().mean()).item(), rel=0.03)
    equal = direction.expand(60, -1)
    value, left_out = metrics.gradient_coherence(*summed(metrics.gradient_products(equal, hidden), prompts))
    assert value.item() == pytest.approx(1)
    assert left_out.numpy() == pytest.approx(np.ones(20))
    half = direction + direction.norm() / 20 * normal(60, 400, seed=9)
    value, _ = metrics.gradient_coherence(*summed(metrics.gradient_products(half, hidden), prompts))
    assert value.item() == pytest.approx(0.5, abs=0.05)


def test_of_isotropic_gradients_the_interval_covers_nothing_in_common():
    covered = 0
    for seed in range(40):
        g, h = normal(90, 50, seed=100 + seed), normal(90, 8, seed=500 + seed)
        prompts = [i // 3 for i in range(90)]
        value, left_out = metrics.gradient_coherence(*summed(metrics.gradient_products(g, h), prompts))
        estimate = stats.clustered_jackknife(float(value), left_out.numpy(), n=90)
        assert abs(estimate.value) < 0.02
        covered += estimate.ci_low <= 0 <= estimate.ci_high
    assert covered >= 34


def test_prompts_that_pull_apart_are_below_nothing():
    g = normal(1, 30, seed=10) * torch.tensor([[1.0], [-1.0]])
    value, left_out = metrics.gradient_coherence(*summed(metrics.gradient_products(g, torch.ones(2, 1)), [0, 1]))
    assert value.item() == pytest.approx(-1)
    assert left_out.isnan().all(), "one prompt has no pair"


def test_without_a_gradient_there_is_no_direction():
    zero = torch.zeros(3, 3), torch.zeros(3), torch.tensor([2, 2, 2])
    assert metrics.gradient_coherence(*zero)[0].isnan()


def test_rounding_is_no_gradient():
    products = summed(metrics.gradient_products(normal(6, 9, seed=11), torch.ones(6, 1)), [0, 0, 1, 1, 2, 2])
    norms = products[1]
    assert metrics.gradient_coherence(*products, least=norms * 0.9)[0].isfinite()
    assert metrics.gradient_coherence(*products, least=norms * 1.1)[0].isnan()
