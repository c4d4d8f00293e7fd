"""The delete-one-cluster jackknife: by hand, against clustered means, and its promised coverage."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from opd_diag import stats


def left_out(statistic, clusters):
    """The statistic without each cluster, found by taking the cluster's rows away."""
    return [statistic(clusters != name) for name in np.unique(clusters)]


def test_by_hand():
    # θ without each of five clusters: 1, 2, 6, 3, 3; mean 3; squares 4 + 1 + 9 = 14; Var = 4/5 · 14 = 11.2.
    # t(.95; 4) = 2.1318468 for a level of .9.
    estimate = stats.clustered_jackknife(2.5, [1.0, 2.0, 6.0, 3.0, 3.0], n=30, n_undefined=4, level=0.9)
    error = math.sqrt(11.2)
    half = 2.1318468 * error
    assert astuple(estimate)[:4] == pytest.approx((2.5, 2.5 - half, 2.5 + half, error), rel=1e-6)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (30, 5, 4)


def test_a_mean_of_equal_clusters_has_the_interval_of_the_clustered_mean():
    rng = np.random.default_rng(0)
    values, clusters = rng.gamma(2.0, size=120), np.repeat(np.arange(20), 6)
    ours = stats.clustered_jackknife(
        values.mean(), left_out(lambda kept: values[kept].mean(), clusters), n=120, level=0.9
    )
    assert astuple(ours)[:9] == pytest.approx(astuple(stats.clustered_mean(values, clusters, level=0.9))[:9], rel=1e-9)


def test_a_difference_of_means_of_equal_clusters_is_the_paired_one():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(15), 4)
    first, second = rng.normal(size=(2, 60)) + rng.normal(size=15)[clusters]
    ours = stats.clustered_jackknife_difference(
        first.mean(), left_out(lambda kept: first[kept].mean(), clusters),
        second.mean(), left_out(lambda kept: second[kept].mean(), clusters), n=60,
    )  # fmt: skip
    theirs = stats.clustered_mean_difference(first, clusters, second, clusters)
    assert astuple(ours)[:9] == pytest.approx(astuple(theirs)[:9], rel=1e-9)


@pytest.mark.parametrize(
    ("value", "without", "clusters"),
    [
        (1.0, [], 0),
        (1.0, [2.0], 1),
        (1.0, [2.0, 1.0, 3.0, 2.0], 4),
        (math.nan, [1.0, 2.0, 1.0, 2.0, 1.0], 5),
        (math.inf, [1.0, 2.0, 1.0, 2.0, 1.0], 5),
        (1.0, [1.0, math.nan, 2.0, 1.0, 2.0, 1.0], 6),
    ],
)
def test_no_interval_where_it_is_undefined(value, without, clusters):
    estimate = stats.clustered_jackknife(value, without, n=7)
    assert estimate.value == pytest.approx(value, nan_ok=True)
    assert all(math.isnan(x) for x in astuple(estimate)[1:4])
    assert (estimate.n, estimate.n_clusters) == (7, clusters)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shape \(G,\), found \(1, 2\)"):
        stats.clustered_jackknife(1.0, [[1.0, 2.0]], n=1)
    with pytest.raises(ValueError, match=r"same clusters, found shapes \(2,\) and \(3,\)"):
        stats.clustered_jackknife_difference(1.0, [1.0, 2.0], 1.0, [1.0, 2.0, 3.0], n=1)
    with pytest.raises(ValueError, match="between 0 and 1, found 95"):
        stats.clustered_jackknife(1.0, [1.0, 2.0], n=1, level=95)
