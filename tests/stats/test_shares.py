"""Shares of few trials: against another library, closed forms, and coverage counted over the binomial distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats


def test_wilson_equals_scipys():
    for hits, trials in ((0, 60), (58, 60), (60, 60), (3, 7)):
        theirs = scipy_stats.binomtest(hits, trials).proportion_ci(0.9, method="wilson")
        assert stats.wilson(hits, trials, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert all(math.isnan(end) for end in stats.wilson(0, 0))
    with pytest.raises(ValueError, match="found 3 of 2"):
        stats.wilson(3, 2)


def test_wilson_ends_exactly_at_0_and_1():
    assert stats.wilson(0, 31)[0] == 0.0
    assert stats.wilson(31, 31)[1] == 1.0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_or_all_leaves_something_open(share):
    """By the closed form: z²/(n + z²) of n prompts, two responses each, which count as one trial."""
    values, prompts = np.full(24, share), np.repeat(np.arange(12), 2)
    found = stats.open_share(stats.clustered_mean(values, prompts), values)
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    reach = z2 / (12 + z2)
    assert (found.ci_low, found.ci_high) == pytest.approx((0, reach) if share == 0 else (1 - reach, 1))
    assert found.value == share
    assert found.standard_error * scipy_stats.t.ppf(0.975, 11) == pytest.approx(reach)


def test_a_share_that_varies_is_left_as_it_is():
    values = np.array([0.0, 1, 0, 0, 0, 1, 0, 0])
    estimate = stats.clustered_mean(values, range(8))
    assert stats.open_share(estimate, values) is estimate
    thin = stats.clustered_mean([0.0, 0, 0], range(3))
    assert stats.open_share(thin, [0.0, 0, 0]) is thin
    half = stats.clustered_mean([0.5] * 8, range(8))
    assert stats.open_share(half, [0.5] * 8) is half


def test_undefined_values_are_no_trials():
    values = np.array([0.0] * 8 + [np.nan] * 4)
    found = stats.open_share(stats.clustered_mean(values, range(12)), values)
    assert found.ci_high == pytest.approx(stats.wilson(0, 8)[1])


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_differences_by_square_and_add(first, second):
    n = 20
    one, two = np.full(n, first), np.full(n, second)
    found = stats.open_share_difference(stats.clustered_mean_difference(one, range(n), two, range(n)), one, two)
    (l1, u1), (l2, u2) = (
        tuple(scipy_stats.binomtest(int(s * n), n).proportion_ci(method="wilson")) for s in (first, second)
    )
    d = second - first
    low = d - math.sqrt((second - l2) ** 2 + (u1 - first) ** 2)
    high = d + math.sqrt((u2 - second) ** 2 + (first - l1) ** 2)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((d, low, high), abs=1e-12)
    assert max(high - d, d - low) == pytest.approx(found.standard_error * scipy_stats.t.ppf(0.975, n - 1))


def test_where_one_side_varies_the_paired_difference_tells_it():
    one, two = np.zeros(8), np.array([0.0, 1, 0, 0, 0, 1, 0, 0])
    estimate = stats.clustered_mean_difference(one, range(8), two, range(8))
    assert stats.open_share_difference(estimate, one, two) is estimate


@pytest.mark.parametrize("share", [0.005, 0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("prompts", [10, 32, 64])
def test_what_is_open_holds_the_truth(share, prompts):
    """Of all samples in which nothing varies, exactly: too wide is allowed, too narrow is not."""
    none = (1 - share) ** prompts
    low, high = stats.wilson(0, prompts)
    missed = none if not low <= share <= high else 0.0
    assert missed <= 0.05
