"""Resampling weights: the same for whoever asks, right on average, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats

NAN = math.nan


def sample(seed=0, n=200, clusters=20):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 3)) + rng.normal(size=clusters)[np.arange(n) % clusters][:, None]
    values[rng.random((n, 3)) < 0.1] = NAN
    return values, np.arange(n) % clusters, rng.random((n, 3))


def test_a_prompt_weighs_the_same_for_whoever_asks():
    some, more = stats.Resampling(["p3", "p1", "p3"], draws=50), stats.Resampling(["p1", "p2", "p3"], draws=50)
    assert list(some.labels) == ["p1", "p3"]
    assert np.array_equal(some.weights, more.weights[:, [0, 2]])
    assert not np.array_equal(some.weights, stats.Resampling(["p3", "p1"], draws=50, seed=1).weights)
    assert len(np.unique(more.weights)) == 150


def test_weights_are_one_on_average_and_independent():
    weights = stats.Resampling(range(30), draws=20_000).weights.astype(float)
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.04)
    assert weights.var(axis=0) == pytest.approx(1.0, abs=0.1)
    assert np.abs(np.corrcoef(weights.T) - np.eye(30)).max() < 0.04


def test_equal_to_a_plain_loop():
    values, clusters, weights = sample()
    resampling = stats.Resampling(clusters, draws=7)
    found = resampling.means(values, clusters, weights)
    for b in range(7):
        for column in range(3):
            rows = [i for i in range(len(values)) if not math.isnan(values[i, column])]
            counted = [float(resampling.weights[b, clusters[i]]) * weights[i, column] for i in rows]
            top = sum(w * values[i, column] for w, i in zip(counted, rows, strict=True))
            assert found[b, column] == pytest.approx(top / sum(counted), abs=1e-5)


def test_a_large_mean_costs_no_digits():
    values, clusters, _ = sample()
    resampling = stats.Resampling(clusters, draws=20)
    plain, shifted = (resampling.means(values + shift, clusters) for shift in (0.0, 1e6))
    assert shifted - 1e6 == pytest.approx(plain, abs=1e-4)


def test_means_vary_as_the_clustered_error_says():
    values, clusters, _ = sample(n=2000, clusters=100)
    drawn = stats.Resampling(clusters, draws=4000).means(values, clusters).std(axis=0)
    errors = [e.standard_error for e in stats.clustered_means(values, clusters)]
    assert drawn == pytest.approx(errors, rel=0.05)


def test_undefined_columns_stay_so_and_infinite_ones_too():
    values = np.array([[1.0, NAN, math.inf], [2.0, NAN, 1.0]])
    found = stats.Resampling([0, 1], draws=4).means(values, [0, 1])
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isinf(found[:, 2]).all()


def test_blocks_change_nothing(monkeypatch):
    values, clusters, _ = sample()
    whole = stats.Resampling(clusters, draws=25).means(values, clusters)
    monkeypatch.setattr("opd_diag.stats.resampling.BLOCK", 4)
    assert stats.Resampling(clusters, draws=25).means(values, clusters) == pytest.approx(whole, abs=1e-6)


def test_taus_and_slopes_equal_scipys():
    draws = np.random.default_rng(1).normal(size=(20, 6))
    order = [0, 10, 15, 40, 80, 160]
    expected = [scipy_stats.kendalltau(range(6), row).statistic for row in draws]
    assert stats.taus(draws) == pytest.approx(expected)
    expected = [scipy_stats.theilslopes(row, order).slope for row in draws]
    assert stats.sen_slopes(order, draws) == pytest.approx(expected)
    assert stats.taus([[1.0, NAN, 3.0, 2.0]]) == pytest.approx([1 / 3])
    assert np.isnan(stats.taus([[NAN, 1.0]])).all()


def test_refuses_what_does_not_fit():
    resampling = stats.Resampling(["a", "c"], draws=2)
    with pytest.raises(ValueError, match="No weights for cluster b; draw them with it"):
        resampling.means([[1.0], [2.0]], ["a", "b"])
    with pytest.raises(ValueError, match="No weights for cluster d"):
        resampling.means([[1.0]], ["d"])
    with pytest.raises(ValueError, match="found draws=0"):
        stats.Resampling([1], draws=0)
