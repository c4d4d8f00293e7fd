"""Differences of unpaired means against scipy's Welch test; means of dependent estimates by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats


def test_it_is_welchs_interval_where_every_cluster_has_one_value():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, 12), rng.normal(1, 3, 30)
    found = stats.unpaired_difference(*(stats.clustered_mean(v, range(len(v))) for v in (one, two)))
    theirs = scipy_stats.ttest_ind(two, one, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert found.value == pytest.approx(two.mean() - one.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))
    assert found.degrees_of_freedom == pytest.approx(theirs.df)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.n, found.n_clusters) == (30, 42)


def test_too_few_clusters_on_one_side_leave_no_interval():
    few, many = stats.clustered_mean([1.0, 2.0], [0, 1]), stats.clustered_mean(np.arange(9.0), range(9))
    found = stats.unpaired_difference(few, many)
    assert found.value == 2.5
    assert math.isnan(found.ci_low)
    assert not found.is_approximate


def test_samples_that_do_not_vary():
    one, two = (stats.clustered_mean([v] * 6, range(6)) for v in (1.0, 3.0))
    found = stats.unpaired_difference(one, two)
    assert (found.value, found.ci_low, found.ci_high) == (2.0, 2.0, 2.0)


def test_a_mean_of_one_estimate_is_that_estimate():
    one = stats.clustered_mean(np.arange(40.0), range(40))
    found = stats.cautious_mean([one])
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((one.value, one.ci_low, one.ci_high))


def test_a_mean_of_two_that_err_together_is_no_surer_than_one():
    one = stats.clustered_mean(np.arange(40.0), range(40))
    found = stats.cautious_mean([one, one])
    assert found.standard_error == pytest.approx(one.standard_error)
    assert (found.n, found.n_clusters) == (80, 40)


def test_an_estimate_without_an_interval_takes_it_from_the_mean():
    found = stats.cautious_mean([stats.clustered_mean([1.0], [0]), stats.clustered_mean(np.arange(9.0), range(9))])
    assert found.value == 2.5
    assert math.isnan(found.ci_high)


def test_a_mean_of_none_is_refused():
    with pytest.raises(ValueError, match=r"^A mean of estimates needs at least one\.$"):
        stats.cautious_mean([])
