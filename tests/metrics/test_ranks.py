"""Rank-biased overlap: by hand, a naive version, and its infinite sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_diag import metrics


def naive(first, second, r):
    agreement = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, len(first) + 1)]
    return (1 - r) / r * sum(a * r**d for d, a in enumerate(agreement, 1)) + agreement[-1] * r ** len(first)


def test_by_hand():
    # Depths 1, 2, 3 share 0, 1, 2: (1 - r)(0 + ½ r + ⅔ r²) + ⅔ r³ at r = .5: .5 (.25 + .16667) + .08333 = .29167.
    found = metrics.rank_biased_overlap(torch.tensor([1, 2, 3]), torch.tensor([2, 4, 1]), persistence=0.5)
    assert found.item() == pytest.approx(0.2916667, abs=1e-7)


@pytest.mark.parametrize("persistence", [0.5, 0.9, 0.98])
def test_equal_to_the_naive_version(persistence):
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([torch.randperm(60, generator=generator)[:32] for _ in range(50)])
    second = torch.stack([torch.randperm(60, generator=generator)[:32] for _ in range(50)])
    found = metrics.rank_biased_overlap(first, second, persistence=persistence)
    expected = [naive(a, b, persistence) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.std() > 0.01


def test_extrapolates_as_the_infinite_sum_with_the_last_agreement_for_ever():
    first, second, r = [1, 2, 3, 4], [2, 1, 5, 6], 0.7
    agreement = [len(set(first[:d]) & set(second[:d])) / d for d in (1, 2, 3, 4)] + [0.5] * 2000
    whole = (1 - r) * sum(a * r**d for d, a in enumerate(agreement))
    found = metrics.rank_biased_overlap(torch.tensor(first), torch.tensor(second), persistence=r)
    assert found.item() == pytest.approx(whole, abs=1e-12)


@given(order=st.permutations(range(12)), depth=st.integers(1, 12), shift=st.integers(1, 1000))
def test_symmetric_bounded_and_blind_to_names(order, depth, shift):
    first, second = torch.arange(depth), torch.tensor(order[:depth])
    found = metrics.rank_biased_overlap(first, second)
    assert 0 <= found <= 1
    assert metrics.rank_biased_overlap(second, first).item() == pytest.approx(found.item(), abs=1e-12)
    assert metrics.rank_biased_overlap(first + shift, second + shift) == found
    assert metrics.rank_biased_overlap(first, first) == pytest.approx(1.0)
    assert metrics.rank_biased_overlap(first, second + 100) == 0


def test_the_top_counts_most():
    same = torch.arange(16)
    top, bottom = same.clone(), same.clone()
    top[[0, 1]], bottom[[14, 15]] = same[[1, 0]], same[[15, 14]]
    assert metrics.rank_biased_overlap(same, top) < metrics.rank_biased_overlap(same, bottom) - 0.05


def test_any_leading_shape_and_refusals():
    ids = torch.arange(24).reshape(2, 3, 4)
    assert metrics.rank_biased_overlap(ids.int(), ids.int()).shape == (2, 3)
    with pytest.raises(ValueError, match=r"one shape, found \(2, 3, 4\) and \(2, 3, 3\)"):
        metrics.rank_biased_overlap(ids, ids[..., :3])
    for persistence in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
            metrics.rank_biased_overlap(ids, ids, persistence=persistence)
