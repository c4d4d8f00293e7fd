"""Clustered means: against arithmetic by hand, a naive version, scipy, and their promised coverage."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from opd_diag import stats
from opd_diag.stats import Estimate

NAN = math.nan


def naive_mean(values, clusters, level=0.95):
    """Mean, low, high, standard error, in plain Python but for the t quantile."""
    groups = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        if not math.isnan(value):
            groups[cluster].append(value)
    n = sum(len(g) for g in groups.values())
    mean = sum(sum(g) for g in groups.values()) / n
    count = len(groups)
    variance = count / (count - 1) * sum((sum(g) - mean * len(g)) ** 2 for g in groups.values()) / n**2
    half = math.sqrt(variance) * scipy_stats.t.ppf((1 + level) / 2, count - 1)
    return mean, mean - half, mean + half, math.sqrt(variance)


def naive_difference(first, first_clusters, second, second_clusters, level=0.95):
    """Difference, low, high, standard error, in plain Python but for the t quantile."""
    sides = []
    for values, clusters in ((first, first_clusters), (second, second_clusters)):
        groups = defaultdict(list)
        for value, cluster in zip(values, clusters, strict=True):
            if not math.isnan(value):
                groups[cluster].append(value)
        sides.append(groups)
    shared = sorted(set(sides[0]) & set(sides[1]))
    means, influences = [], []
    for groups in sides:
        n = sum(len(groups[c]) for c in shared)
        mean = sum(sum(groups[c]) for c in shared) / n
        means.append(mean)
        influences.append([(sum(groups[c]) - mean * len(groups[c])) / n for c in shared])
    count = len(shared)
    variance = count / (count - 1) * sum((b - a) ** 2 for a, b in zip(*influences, strict=True))
    half = math.sqrt(variance) * scipy_stats.t.ppf((1 + level) / 2, count - 1)
    value = means[1] - means[0]
    return value, value - half, value + half, math.sqrt(variance)


def numbers(estimate: Estimate):
    return estimate.value, estimate.ci_low, estimate.ci_high, estimate.standard_error


def test_mean_by_hand():
    # Cluster a: 1, 2, 3 (S = 6, N = 3). Cluster b: 8 (S = 8, N = 1). Mean 14/4 = 3.5.
    # Residual sums: 6 - 3 * 3.5 = -4.5 and 8 - 3.5 = 4.5. Var = 2/1 * (20.25 + 20.25) / 16 = 5.0625; SE = 2.25.
    # t(.975; 1 degree of freedom) = 12.7062047, half width 28.5889606.
    estimate = stats.clustered_mean([1.0, 2.0, NAN, 3.0, 8.0], ["a", "a", "b", "a", "b"])
    assert numbers(estimate) == pytest.approx((3.5, 3.5 - 28.5889606, 3.5 + 28.5889606, 2.25), abs=1e-6)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (4, 2, 1)


def test_difference_by_hand():
    # First: a: 1, 3; b: 5; c only here. Over a and b: mean 3, influences (4 - 6)/3 = -2/3 and (5 - 3)/3 = 2/3.
    # Second: a: 2; b: 6, 10. Mean 6, influences (2 - 6)/3 = -4/3 and (16 - 12)/3 = 4/3.
    # d = -2/3, 2/3; Var = 2 * (4/9 + 4/9) = 16/9; SE = 4/3; value 3; half width 12.7062047 * 4/3 = 16.9416063.
    estimate = stats.clustered_mean_difference(
        [1.0, 3.0, 5.0, 100.0], ["a", "a", "b", "c"], [2.0, 6.0, 10.0, NAN, NAN], ["a", "b", "b", "b", "d"]
    )
    assert numbers(estimate) == pytest.approx((3.0, 3 - 16.9416063, 3 + 16.9416063, 4 / 3), abs=1e-6)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (3, 2, 2)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_naive_versions(seed, level):
    rng = np.random.default_rng(seed)
    first, second = rng.exponential(size=300), rng.exponential(size=200)
    clusters1, clusters2 = rng.integers(0, 25, 300), rng.integers(3, 30, 200)
    first[rng.random(300) < 0.2] = NAN
    second[clusters2 == 7] = NAN
    assert numbers(stats.clustered_mean(first, clusters1, level=level)) == pytest.approx(
        naive_mean(first, clusters1, level), rel=1e-10
    )
    assert numbers(stats.clustered_mean_difference(first, clusters1, second, clusters2, level=level)) == pytest.approx(
        naive_difference(first, clusters1, second, clusters2, level), rel=1e-9
    )


def test_clusters_of_one_value_give_the_t_interval_of_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=40)
    theirs = scipy_stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    ours = stats.clustered_mean(values, np.arange(40), level=0.9)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.standard_error == pytest.approx(scipy_stats.sem(values), rel=1e-12)


def test_one_value_a_cluster_gives_the_paired_interval_of_scipy():
    rng = np.random.default_rng(2)
    first = rng.normal(size=30)
    second = first + rng.normal(0.3, 0.2, size=30)
    theirs = scipy_stats.ttest_rel(second, first).confidence_interval(0.95)
    shuffled = rng.permutation(30)
    ours = stats.clustered_mean_difference(first, np.arange(30), second[shuffled], shuffled)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), rel=1e-10)


def test_many_columns_equal_one_at_a_time():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(60, 4)), rng.normal(size=(50, 4))
    first[::7, 1], second[:, 2] = NAN, NAN
    clusters1, clusters2 = rng.integers(0, 9, 60), rng.integers(2, 12, 50)
    together = stats.clustered_means(first, clusters1)
    apart = [stats.clustered_mean(column, clusters1) for column in first.T]
    assert together == apart
    assert len({e.value for e in together}) == 4
    differences = stats.clustered_mean_differences(first, clusters1, second, clusters2)
    for column, estimate in enumerate(differences):
        alone = stats.clustered_mean_difference(first[:, column], clusters1, second[:, column], clusters2)
        assert astuple(estimate) == pytest.approx(astuple(alone), nan_ok=True)
    assert math.isnan(differences[2].value)
    assert not math.isnan(differences[3].value)


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_without_values_all_is_nan_and_counted(values):
    estimate = stats.clustered_mean(values, range(len(values)))
    assert all(math.isnan(v) for v in numbers(estimate))
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (0, 0, len(values))


def test_one_cluster_has_a_value_and_no_interval():
    estimate = stats.clustered_mean([1.0, 2.0, NAN], [5, 5, 6])
    assert estimate.value == 1.5
    assert all(math.isnan(v) for v in numbers(estimate)[1:])
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (2, 1, 1)
    difference = stats.clustered_mean_difference([1.0, 2.0], [5, 5], [4.0, 9.0], [5, 6])
    assert difference.value == 2.5
    assert math.isnan(difference.ci_low)
    assert difference.n_clusters == 1


@pytest.mark.parametrize(
    ("values", "mean"), [([1.0, math.inf], math.inf), ([-math.inf, 0.0], -math.inf), ([math.inf, -math.inf], NAN)]
)
def test_infinite_values_leave_no_interval(values, mean):
    estimate = stats.clustered_mean(values, [0, 1])
    assert estimate.value == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(v) for v in numbers(estimate)[1:])
    assert estimate.n == 2
    assert estimate.n_undefined == 0
    difference = stats.clustered_mean_difference(values, [0, 1], [1.0, 2.0], [0, 1])
    assert difference.value == pytest.approx(-mean, nan_ok=True)
    assert math.isnan(difference.ci_high)
    both = stats.clustered_mean_difference(values, [0, 1], values, [0, 1])
    assert math.isnan(both.value)


def test_no_shared_cluster_gives_no_difference():
    estimate = stats.clustered_mean_difference([1.0, 2.0], [0, 1], [3.0, NAN], [2, 0])
    assert math.isnan(estimate.value)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (0, 0, 1)


def test_equal_values_give_an_interval_without_width():
    estimate = stats.clustered_mean([0.25] * 6, [0, 0, 1, 1, 2, 2])
    assert numbers(estimate) == (0.25, 0.25, 0.25, 0.0)


def test_a_large_mean_costs_no_digits():
    values, prompts = np.random.default_rng(4).normal(size=200), np.arange(200) % 20
    plain, shifted = stats.clustered_mean(values, prompts), stats.clustered_mean(values + 1e8, prompts)
    assert shifted.standard_error == pytest.approx(plain.standard_error, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, NAN])
def test_refuses_a_level_outside_0_to_1(level):
    with pytest.raises(ValueError, match="between 0 and 1, found"):
        stats.clustered_mean([1.0], [0], level=level)


def test_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match=r"expected shapes .* found \(3, 1\) and \(2,\)"):
        stats.clustered_mean([1.0, 2.0, 3.0], [0, 1])
    with pytest.raises(ValueError, match="one dimension"):
        stats.clustered_mean([[1.0], [2.0]], [0, 1])
    with pytest.raises(ValueError, match="same columns, found 1 and 2"):
        stats.clustered_mean_differences([[1.0]], [0], [[1.0, 2.0]], [0])


samples = st.lists(st.tuples(st.floats(-1e3, 1e3) | st.just(NAN), st.integers(0, 6)), min_size=3, max_size=40)


@given(samples, st.randoms(use_true_random=False))
def test_order_and_names_of_clusters_do_not_matter(sample, random):
    values, clusters = zip(*sample, strict=True)
    expected = stats.clustered_mean(values, clusters)
    random.shuffle(shuffled := list(sample))
    values, clusters = zip(*shuffled, strict=True)
    names = random.sample("abcdefg", 7)
    found = stats.clustered_mean(values, [names[c] for c in clusters])
    assert astuple(found) == pytest.approx(astuple(expected), rel=1e-9, abs=1e-9, nan_ok=True)


@given(samples, st.floats(0.5, 4) | st.floats(-4, -0.5), st.floats(-100, 100))
def test_scaling_and_shifting_carry_over(sample, scale, shift):
    values, clusters = map(np.array, zip(*sample, strict=True))
    before, after = stats.clustered_mean(values, clusters), stats.clustered_mean(scale * values + shift, clusters)
    assert after.value == pytest.approx(scale * before.value + shift, abs=1e-8, nan_ok=True)
    assert after.standard_error == pytest.approx(abs(scale) * before.standard_error, abs=1e-8, nan_ok=True)


@given(samples, samples)
def test_swapping_the_samples_turns_the_sign(first, second):
    one, two = zip(*first, strict=True), zip(*second, strict=True)
    (values1, clusters1), (values2, clusters2) = one, two
    forth = stats.clustered_mean_difference(values1, clusters1, values2, clusters2)
    back = stats.clustered_mean_difference(values2, clusters2, values1, clusters1)
    assert (forth.value, forth.ci_low, forth.standard_error) == pytest.approx(
        (-back.value, -back.ci_high, back.standard_error), abs=1e-9, nan_ok=True
    )
    assert (forth.n_clusters, forth.n_undefined) == (back.n_clusters, back.n_undefined)
