"""Weighted sums of means, paired by cluster: by hand, against a naive version, and their promised coverage."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from student_intervals import defined_clusters, error_of, influences_of, interval_of

from opd_diag import stats

NAN = math.nan


def naive_contrast(samples, weights, level=0.95):
    """Value, low, high, standard error, clusters of one column, term by term and with matrices."""
    shared = sorted(set.intersection(*(set(defined_clusters(*side)) for side in samples)))
    means, moved, shares = zip(*(influences_of(*side, shared) for side in samples), strict=True)
    value, parts = (sum(w * of for w, of in zip(weights, by, strict=True)) for by in (means, moved))
    counted = sum(abs(w) * of for w, of in zip(weights, shares, strict=True)) / sum(abs(w) for w in weights)
    return *interval_of(value, parts, counted, level), error_of(parts, counted)[0], len(shared)


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
    # Over clusters a to e (f lacks a value in the third): means 3, 4, 5. Weights ½, ½, -1: 1.5 + 2 - 5 = -1.5.
    # Influences (½·(x - 3) + ½·(y - 4) - (z - 5))/5: a ½·-2 + ½·-1 - -1 = -.5; b ½·-1 + 0 - 1 = -1.5; c 0;
    # d ½·1 + ½ - 0 = 1; e ½·2 + 0 - 0 = 1; over 5. Var = 5/4 · (.25 + 2.25 + 1 + 1)/25 = .225; t(.975; 4) = 2.7764451.
    samples = [
        ([[1.0], [2.0], [3.0], [4.0], [5.0], [50.0]], [*"abcdef"]),
        ([[3.0], [4.0], [4.0], [5.0], [4.0], [70.0]], [*"abcdef"]),
        ([[4.0], [6.0], [5.0], [5.0], [5.0], [NAN]], [*"abcdef"]),
    ]
    (estimate,) = stats.clustered_contrasts(samples, (0.5, 0.5, -1.0))
    half = 2.7764451 * math.sqrt(0.225)
    assert astuple(estimate)[:4] == pytest.approx((-1.5, -1.5 - half, -1.5 + half, math.sqrt(0.225)))
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (5, 5, 1)


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
    (alone,), (mean,) = stats.clustered_contrasts([(values, clusters)], [1.0]), stats.clustered_means(values, clusters)
    assert astuple(alone)[:9] == astuple(mean)[:9]
    assert math.isnan(alone.n_effective), "what it counts for is said of means alone"


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
    finite, infinite = ([[1.0]] * 5, range(5)), ([[math.inf], *[[2.0]] * 4], range(5))
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
