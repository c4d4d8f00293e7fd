"""Weighted sums of means, paired by cluster: by hand, against a naive version, and their promised coverage."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats

NAN = math.nan


def naive_contrast(samples, weights, level=0.95):
    """Value, low, high, standard error, clusters of one column, in plain Python but for the t quantile."""
    sides = [
        [(v, c) for v, c in zip(values, clusters, strict=True) if not math.isnan(v)] for values, clusters in samples
    ]
    shared = sorted(set.intersection(*({c for _, c in side} for side in sides)))
    sides = [[(v, c) for v, c in side if c in shared] for side in sides]
    means = [sum(v for v, _ in side) / len(side) for side in sides]
    value = sum(w * m for w, m in zip(weights, means, strict=True))
    parts = [
        sum(
            w * sum(v - mean for v, c in side if c == name) / len(side)
            for w, mean, side in zip(weights, means, sides, strict=True)
        )
        for name in shared
    ]
    count = len(shared)
    error = math.sqrt(count / (count - 1) * sum(d * d for d in parts))
    half = error * scipy_stats.t.ppf((1 + level) / 2, count - 1)
    return value, value - half, value + half, error, count


def three_samples(seed=0, columns=1):
    """Samples that share some clusters each, with holes."""
    rng = np.random.default_rng(seed)
    samples = []
    for low, high, n in ((0, 12, 90), (3, 15, 70), (2, 14, 110)):
        values = rng.exponential(size=(n, columns)) + rng.normal(size=(16, columns))[(rng.integers(0, 16, n))]
        values[rng.random((n, columns)) < 0.15] = NAN
        samples.append((values, rng.integers(low, high, n)))
    return samples


def test_by_hand():
    # Over clusters a and b (c lacks a value in the third): means 2, 4, 6. Weights ½, ½, -1: 1 + 2 - 6 = -3.
    # Influences of a: (1 - 2)/2, (3 - 4)/2, (6·2 - 6·2)/3 = 0: -¼ - ¼ - 0 = -½; of b: ¼ + ¼ - 0 = ½.
    # Var = 2/1 · (¼ + ¼) = 1; t(.975; 1) = 12.7062047.
    samples = [
        ([[1.0], [3.0], [50.0]], ["a", "b", "c"]),
        ([[3.0], [5.0], [70.0]], ["a", "b", "c"]),
        ([[4.0], [8.0], [6.0], [NAN]], ["a", "a", "b", "c"]),
    ]
    (estimate,) = stats.clustered_contrasts(samples, (0.5, 0.5, -1.0))
    assert astuple(estimate)[:4] == pytest.approx((-3.0, -3 - 12.7062047, -3 + 12.7062047, 1.0))
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (3, 2, 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (-1.0, 0.0, 1.0), (0.5, -2.0, 0.25)])
def test_equal_to_the_naive_version_column_by_column(seed, weights):
    samples = three_samples(seed, columns=3)
    samples[1][0][samples[1][1] == 7, 2] = NAN  # a cluster that the last column alone must leave out
    found = stats.clustered_contrasts(samples, weights, level=0.9)
    assert len(found) == 3
    for i, estimate in enumerate(found):
        expected = naive_contrast([(values[:, i], clusters) for values, clusters in samples], weights, 0.9)
        assert astuple(estimate)[:4] == pytest.approx(expected[:4], rel=1e-9)
        assert estimate.n_clusters == expected[4]
    assert found[2].n_clusters < found[0].n_clusters


def test_one_sample_of_weight_one_is_its_mean():
    values, clusters = three_samples()[0]
    assert stats.clustered_contrasts([(values, clusters)], [1.0]) == stats.clustered_means(values, clusters)


def test_contrasts_of_the_same_samples_add_up():
    samples = three_samples(3, columns=2)
    whole, one, two = (
        stats.clustered_contrasts(samples, weights)
        for weights in ((-1.0, 0.0, 1.0), (-1.0, 1.0, 0.0), (0.0, -1.0, 1.0))
    )
    for i in range(2):
        assert whole[i].value == pytest.approx(one[i].value + two[i].value, abs=1e-13)
        assert whole[i].n_clusters == one[i].n_clusters == two[i].n_clusters
    paired = stats.clustered_mean_differences(*samples[0], *samples[2])
    assert paired[0].n_clusters > whole[0].n_clusters, "a sample of weight 0 still says which clusters count"
    assert paired[0].value != pytest.approx(whole[0].value)


def test_a_sample_against_itself_is_exactly_zero():
    values, clusters = three_samples(4)[0]
    order = np.arange(len(values))
    (estimate,) = stats.clustered_contrasts([(values, clusters), (values[order], clusters[order])], (-1.0, 1.0))
    assert astuple(estimate)[:4] == (0.0, 0.0, 0.0, 0.0)


def test_weight_zero_takes_no_infinity_in():
    finite, infinite = ([[1.0], [2.0]], [0, 1]), ([[math.inf], [2.0]], [0, 1])
    (estimate,) = stats.clustered_contrasts([finite, infinite, finite], (-1.0, 0.0, 1.0))
    assert (estimate.value, estimate.standard_error) == (0.0, 0.0)
    (estimate,) = stats.clustered_contrasts([finite, infinite, finite], (-1.0, 0.5, 0.5))
    assert estimate.value == math.inf
    assert math.isnan(estimate.ci_low)


@pytest.mark.parametrize("weights", [(1.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
def test_nothing_shared_is_undefined(weights):
    one, other = ([[1.0], [2.0]], [0, 1]), ([[3.0], [NAN]], [2, 0])
    (estimate,) = stats.clustered_contrasts([one, one, other], weights)
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.ci_low)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (0, 0, 1)


def test_one_shared_cluster_has_a_value_and_no_interval():
    (estimate,) = stats.clustered_contrasts([([[1.0], [2.0]], [0, 1]), ([[5.0]], [1])], (-1.0, 2.0))
    assert (estimate.value, estimate.n_clusters) == (8.0, 1)
    assert math.isnan(estimate.standard_error)


def test_refuses_what_does_not_fit():
    sample = ([[1.0]], [0])
    with pytest.raises(ValueError, match="one weight, found 2 samples and 1 weights"):
        stats.clustered_contrasts([sample, sample], [1.0])
    with pytest.raises(ValueError, match="found 0 samples"):
        stats.clustered_contrasts([], [])
    with pytest.raises(ValueError, match="same columns, found 1 and 2"):
        stats.clustered_contrasts([sample, ([[1.0, 2.0]], [0])], [1.0, -1.0])
    with pytest.raises(ValueError, match=r"found \(1, 1\) and \(2,\)"):
        stats.clustered_contrasts([([[1.0]], [0, 1])], [1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.clustered_contrasts([sample], [1.0], level=95)
