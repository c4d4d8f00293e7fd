"""Means of small groups: against simulations whose variances are known, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats


def drawn(rng, groups, per, between, within):
    true = rng.normal(3.0, math.sqrt(between), groups)
    values = true[:, None] + rng.normal(0.0, math.sqrt(within), (groups, per))
    return true, values.ravel(), np.repeat(np.arange(groups), per)


def test_unequal_groups_by_hand():
    """Groups {0, 2}, {4, 6, 8}, {5}: σ² = (2 + 8 + 0)/3; M = Σ n (x̄ - x̄..)²/2; n₀ = (6 - 14/6)/2."""
    found = stats.group_means([0.0, 2.0, 4.0, 6.0, 8.0, 5.0], ["a", "a", "b", "b", "b", "c"])
    within = 10 / 3
    grand = 25 / 6
    among = (2 * (1 - grand) ** 2 + 3 * (6 - grand) ** 2 + (5 - grand) ** 2) / 2
    between = (among - within) / ((6 - 14 / 6) / 2)
    assert found.means.tolist() == [1.0, 6.0, 5.0]
    assert found.counts.tolist() == [2, 3, 1]
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx(between)
    errors = within / np.array([2, 3, 1])
    kept = between / (between + errors)
    middle = (kept * found.means).sum() / kept.sum()
    assert found.shrunken == pytest.approx(middle + kept * (found.means - middle))
    assert found.half_widths == pytest.approx(scipy_stats.t.ppf(0.975, 3) * np.sqrt(errors))
    assert found.reliability == pytest.approx(between / (between + errors.mean()))


def test_variances_and_coverage_are_those_of_the_draws():
    rng = np.random.default_rng(1)
    true, values, groups = drawn(rng, 4000, 4, between=2.0, within=3.0)
    found = stats.group_means(values, groups)
    assert found.within == pytest.approx(3.0, rel=0.05)
    assert found.between == pytest.approx(2.0, rel=0.08)
    assert found.reliability == pytest.approx(2.0 / (2.0 + 0.75), abs=0.02)
    assert np.mean(np.abs(found.means - true) <= found.half_widths) == pytest.approx(0.95, abs=0.012)


def test_shrunken_means_are_nearer_to_the_truth():
    rng = np.random.default_rng(2)
    true, values, groups = drawn(rng, 500, 3, between=1.0, within=6.0)
    found = stats.group_means(values, groups)
    errors = [np.mean((of - true) ** 2) for of in (found.means, found.shrunken)]
    assert errors[0] == pytest.approx(2.0, rel=0.2)  # σ²/n
    assert errors[1] == pytest.approx(2.0 / 3.0, rel=0.2)  # τ² σ²/n / (τ² + σ²/n)


def test_means_that_differ_by_chance_alone_become_one():
    found = stats.group_means([0.0, 2.0, 1.0, 1.0], [0, 0, 1, 1])
    assert found.between == 0.0
    assert found.reliability == 0.0
    assert found.shrunken.tolist() == [1.0, 1.0]


def test_one_value_a_group_tells_nothing_of_chance():
    found = stats.group_means([3.0, 5.0, math.nan], [0, 1, 1])
    assert found.means.tolist() == [3.0, 5.0]
    assert found.shrunken.tolist() == [3.0, 5.0]
    assert np.isnan(found.half_widths).all()
    assert all(map(math.isnan, (found.within, found.between, found.reliability)))


def test_a_group_without_a_value_is_undefined_and_moves_no_other():
    with_it = stats.group_means([1.0, 3.0, 5.0, 9.0, math.nan], [0, 0, 2, 2, 1])
    without = stats.group_means([1.0, 3.0, 5.0, 9.0], [0, 0, 2, 2])
    assert math.isnan(with_it.means[1])
    assert math.isnan(with_it.shrunken[1])
    assert with_it.counts[1] == 0
    assert with_it.shrunken[[0, 2]] == pytest.approx(without.shrunken)
    assert with_it.reliability == pytest.approx(without.reliability)


def test_nothing_that_varies_has_no_reliability():
    found = stats.group_means([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1])
    assert (found.within, found.between) == (0.0, 0.0)
    assert math.isnan(found.reliability)
    assert found.shrunken.tolist() == [1.0, 1.0]


def test_one_group_is_its_own_mean():
    found = stats.group_means([1.0, 3.0], [0, 0])
    assert found.shrunken.tolist() == [2.0]
    assert found.within == 2.0
    assert math.isnan(found.between)


def test_nothing_at_all():
    found = stats.group_means([], [])
    assert found.means.size == 0
    assert math.isnan(found.within)
