"""Ratios of sums: by hand, against repeated values, the jackknife, and their promised coverage."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from student_intervals import defined_clusters, error_of, influences_of, interval_of

from opd_diag import stats

NAN = math.nan


def naive_ratio(values, weights, clusters, level=0.95):
    """Σ w x / Σ w, low, high, standard error, term by term and with matrices."""
    ratio, moved, shares = influences_of(values, clusters, defined_clusters(values, clusters), weights)
    return *interval_of(ratio, moved, shares, level), error_of(moved, shares)[0]


def sample(seed, n=200, clusters=20):
    rng = np.random.default_rng(seed)
    values = rng.random(n)
    values[rng.random(n) < 0.1] = NAN
    return values, rng.integers(0, 5, n).astype(float), rng.integers(0, clusters, n)


def test_by_hand():
    # Weights 3, 1 | 2 | 2 | 2 | 2: R = (3·1 + 1·5 + 2·(2 + 2 + 3 + 1))/12 = 2. Residual sums:
    # 3·(1 - 2) + (5 - 2) = 0, 0, 0, 2 and -2. Shares 1/3 and four times 1/6: c = 9/8 of the last two.
    # Var = 9/8 · 8 / 144 = 1/16.
    clusters = ["a", "a", "b", "c", "d", "e"]
    estimate = stats.clustered_mean([1.0, 5.0, 2.0, 2.0, 3.0, 1.0], clusters, weights=[3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    assert (estimate.value, estimate.standard_error) == pytest.approx((2.0, 0.25))
    more = stats.clustered_mean([1.0, 4.0, NAN], ["a", "b", "b"], weights=[2.0, 1.0, NAN])
    assert (more.value, more.n, more.n_clusters, more.n_undefined) == (2.0, 2, 2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_naive_version(seed):
    values, weights, clusters = sample(seed)
    found = stats.clustered_mean(values, clusters, weights=weights, level=0.9)
    assert astuple(found)[:4] == pytest.approx(naive_ratio(values, weights, clusters, 0.9), rel=1e-10)


def test_a_weight_counts_like_as_many_equal_values():
    sides = [sample(seed) for seed in (5, 6)]
    repeated = [(np.repeat(v, w.astype(int)), np.repeat(c, w.astype(int))) for v, w, c in sides]
    for (values, weights, clusters), (many, of_many) in zip(sides, repeated, strict=True):
        weighted = stats.clustered_mean(values, clusters, weights=weights)
        assert astuple(weighted)[:4] == pytest.approx(astuple(stats.clustered_mean(many, of_many))[:4], rel=1e-10)
        assert abs(weighted.value - stats.clustered_mean(values, clusters).value) > 1e-3
    samples = [(v[:, None], c, w[:, None]) for v, w, c in sides]
    (found,) = stats.clustered_contrasts(samples, (-1.0, 1.0))
    expected = stats.clustered_mean_difference(*repeated[0], *repeated[1])
    assert astuple(found)[:4] == pytest.approx(astuple(expected)[:4], rel=1e-9)
    assert found.n_clusters == 20


def test_equal_weights_change_nothing():
    values, _, clusters = sample(7)
    plain, weighted = (stats.clustered_mean(values, clusters, weights=w) for w in (None, np.full(len(values), 2.0**7)))
    assert astuple(weighted) == astuple(plain)


def test_near_the_jackknife():
    values, weights, clusters = sample(8, n=2000, clusters=60)
    whole = stats.clustered_mean(values, clusters, weights=weights)
    without = [
        stats.clustered_mean(values[clusters != c], clusters[clusters != c], weights=weights[clusters != c]).value
        for c in range(60)
    ]
    theirs = stats.clustered_jackknife(whole.value, without, n=2000)
    assert whole.standard_error == pytest.approx(theirs.standard_error, rel=0.05)


def test_columns_have_weights_of_their_own():
    values, weights, clusters = sample(9)
    table, counted = np.stack([values, values], axis=1), np.stack([weights, np.ones_like(weights)], axis=1)
    found = stats.clustered_means(table, clusters, weights=counted)
    assert found[0] == stats.clustered_mean(values, clusters, weights=weights)
    assert found[1] == stats.clustered_mean(values, clusters)
    samples = [(table, clusters, counted), (table[::-1], clusters)]
    first, second = stats.clustered_contrasts(samples, (1.0, -1.0))
    assert abs(first.value) > 1e-3
    assert second.value != first.value


def test_nothing_that_counts_is_undefined():
    estimate = stats.clustered_mean([1.0, 2.0], [0, 1], weights=[0.0, 0.0])
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.ci_low)
    assert (estimate.n, estimate.n_clusters) == (2, 2)


@pytest.mark.parametrize("weight", [-1.0, math.inf, NAN])
def test_refuses_weights_that_are_none(weight):
    with pytest.raises(ValueError, match="finite and at least 0, found"):
        stats.clustered_mean([1.0, 2.0], [0, 1], weights=[1.0, weight])
    with pytest.raises(ValueError, match=r"one weight: expected shape \(2, 1\), found \(1, 1\)"):
        stats.clustered_mean([1.0, 2.0], [0, 1], weights=[1.0])


def drawn(rng, prompts, shift=0.0):
    """States of `prompts` random prompts: hard ones have long gradients, and other shares than easy ones."""
    hard = rng.normal(size=prompts)
    states = rng.integers(5, 40, prompts)
    of_prompt = np.repeat(hard, states)
    weights = np.exp(0.4 * of_prompt + rng.normal(size=len(of_prompt)))
    shares = 1 / (1 + np.exp(-(shift + 0.8 * of_prompt + rng.normal(size=len(of_prompt)))))
    return shares, np.repeat(np.arange(prompts), states), weights


def test_intervals_cover_the_ratio_as_often_as_they_say():
    rng = np.random.default_rng(10)
    truth = []
    for shift in (0.0, 0.5):
        values, _, weights = drawn(rng, 200_000, shift)
        truth.append(float((values * weights).sum() / weights.sum()))
    covered, plain, moved = [], [], []
    for _ in range(600):
        first, second = drawn(rng, 80), drawn(rng, 80, 0.5)
        estimate = stats.clustered_mean(first[0], first[1], weights=first[2])
        covered.append(estimate.ci_low <= truth[0] <= estimate.ci_high)
        without = stats.clustered_mean(first[0], first[1])
        plain.append(without.ci_low <= truth[0] <= without.ci_high)
        samples = [(values[:, None], clusters, weights[:, None]) for values, clusters, weights in (first, second)]
        (difference,) = stats.clustered_contrasts(samples, (-1.0, 1.0))
        moved.append(difference.ci_low <= truth[1] - truth[0] <= difference.ci_high)
    assert 0.90 <= np.mean(covered) <= 0.98
    assert 0.90 <= np.mean(moved) <= 0.98
    assert np.mean(plain) < 0.3, "the mean without weights is another number"
