"""What an interval is made of: against matrices, at the ends of what shares can be, and how it is marked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from student_intervals import error_of

from opd_diag.stats import MIN_CLUSTERS, Estimate
from opd_diag.stats.estimate import adjustments, degrees_of_freedom, estimate_from


@given(st.lists(st.floats(0.01, 10.0), min_size=5, max_size=30), st.integers(0, 100))
def test_equal_to_matrices(sizes, seed):
    shares = np.array(sizes) / sum(sizes)
    influence = np.random.default_rng(seed).normal(size=len(shares))
    error, degrees = error_of(influence, shares)
    found = estimate_from(1.0, influence, shares, 9, 0, 0.95)
    assert (found.standard_error, found.degrees_of_freedom) == pytest.approx((error, degrees), rel=1e-6)
    assert 0.99 < found.degrees_of_freedom <= len(shares) - 1 + 1e-6


@pytest.mark.parametrize("clusters", [5, 12, 200])
def test_equal_shares_are_students(clusters):
    shares = np.full(clusters, 1 / clusters)
    assert degrees_of_freedom(shares) == pytest.approx(clusters - 1)
    assert adjustments(shares) == pytest.approx(clusters / (clusters - 1))


def test_the_error_is_unbiased_where_clusters_differ_by_an_effect_of_their_own():
    """Under the model it is made for; CR1's is too small there."""
    rng = np.random.default_rng(0)
    shares = np.array([0.4, 0.2, 0.2, 0.1, 0.05, 0.05])
    effects = rng.normal(size=(40_000, 6)) * shares
    residuals = effects - effects.sum(axis=1, keepdims=True) * shares
    truth = float((shares**2).sum())
    assert (residuals**2 @ adjustments(shares)).mean() == pytest.approx(truth, rel=0.02)
    assert 6 / 5 * (residuals**2).sum(axis=1).mean() < 0.9 * truth


def test_below_the_least_number_of_clusters_there_is_a_value_alone():
    few = estimate_from(2.0, np.ones(4), np.full(4, 0.25), 8, 1, 0.95)
    assert (few.value, few.n, few.n_clusters, few.n_undefined, few.is_approximate) == (2.0, 8, 4, 1, False)
    assert np.isnan([few.ci_low, few.standard_error, few.degrees_of_freedom, few.n_effective, few.p_value]).all()
    shares = np.array([0.25, 0.25, 0.25, 0.25, 0.0])
    assert MIN_CLUSTERS == 5
    assert math.isnan(estimate_from(2.0, np.ones(5), shares, 8, 0, 0.95).ci_low), "the fifth counts nothing"


def test_refuses_a_coverage_that_is_none():
    with pytest.raises(ValueError, match="between 0 and 1, found 95"):
        Estimate(0.0, 0.0, 0.0, 0.0, 0, 0, 0).interval(95)
