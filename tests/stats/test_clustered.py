"""Clustered means: against arithmetic by hand, a naive version, scipy, and their promised coverage."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from student_intervals import defined_clusters, error_of, influences_of, interval_of

from opd_diag import stats
from opd_diag.stats import Estimate

NAN = math.nan


def naive_mean(values, clusters, level=0.95):
    """Mean, low, high, standard error, term by term and with matrices."""
    mean, moved, shares = influences_of(values, clusters, defined_clusters(values, clusters))
    return *interval_of(mean, moved, shares, level), error_of(moved, shares)[0]


def naive_difference(first, first_clusters, second, second_clusters, level=0.95):
    """Difference, low, high, standard error, term by term and with matrices."""
    sides = ((first, first_clusters), (second, second_clusters))
    shared = sorted(set.intersection(*(set(defined_clusters(*side)) for side in sides)))
    (mean1, moved1, shares1), (mean2, moved2, shares2) = (influences_of(*side, shared) for side in sides)
    moved, shares = moved2 - moved1, (shares1 + shares2) / 2
    return *interval_of(mean2 - mean1, moved, shares, level), error_of(moved, shares)[0]


def numbers(estimate: Estimate):
    return estimate.value, estimate.ci_low, estimate.ci_high, estimate.standard_error


def test_mean_by_hand():
    # a: 1, 3; b: 2; c: 4; d: 5; e: 9. Mean 24/6 = 4; residual sums -4, -2, 0, 1, 5.
    # Shares 1/3 and four times 1/6; P = 2/9; c = 1/(1 - 2/3 + 2/9) = 9/5 and 1/(1 - 1/3 + 2/9) = 9/8.
    # Var = (9/5 · 16 + 9/8 · (4 + 0 + 1 + 25)) / 36 = 62.55/36 = 1.7375.
    # K has 1/9 and four 1/36 on its diagonal. Off it √(c_g c_h) p_g p_h (P - p_g - p_h): of a with others
    # √(81/40)/18 · (-5/18), of two others 9/8 · 1/36 · (-1/9) = -1/288. tr(K²) = 1/81 + 4/1296 + 8 · 81/40/324 · 25/324
    # + 12/82944 = .0194348; ν = (2/9)² / .0194348 = 2.54094. t(.975; 2.54094) = 3.53378.
    values = [1.0, 2.0, NAN, 3.0, 4.0, 5.0, 9.0]
    estimate = stats.clustered_mean(values, ["a", "b", "b", "a", "c", "d", "e"])
    half = 3.53378 * math.sqrt(1.7375)
    assert numbers(estimate) == pytest.approx((4.0, 4 - half, 4 + half, math.sqrt(1.7375)), abs=1e-4)
    assert estimate.degrees_of_freedom == pytest.approx(2.54094, abs=1e-4)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (6, 5, 1)


def test_difference_by_hand():
    # First: 1, 3, 5, 5, 6 of a to e, and f only here: mean 4. Second: 2, 6, 9, 7, 6: mean 6.
    # (s_g - 6)/5 - (f_g - 4)/5:
    # -1/5, 1/5, 2/5, 0, -2/5; Var = 5/4 · 10/25 = 1/2; value 2; four degrees of freedom: t = 2.7764451.
    estimate = stats.clustered_mean_difference(
        [1.0, 3.0, 5.0, 5.0, 6.0, 100.0], [*"abcdef"], [6.0, 9.0, 7.0, 6.0, 2.0, NAN, NAN], [*"bcdeaag"]
    )
    half = 2.7764451 * math.sqrt(0.5)
    assert numbers(estimate) == pytest.approx((2.0, 2 - half, 2 + half, math.sqrt(0.5)), abs=1e-6)
    assert (estimate.n, estimate.n_clusters, estimate.n_undefined) == (5, 5, 2)
    assert estimate.p_value == pytest.approx(2 * scipy_stats.t.sf(2 / math.sqrt(0.5), 4))


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
    assert [astuple(e) for e in together] == [astuple(e) for e in apart]
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


@pytest.mark.parametrize("clusters", [1, 2, 4])
def test_fewer_than_five_clusters_have_a_value_and_no_interval(clusters):
    rng = np.random.default_rng(clusters)
    values, of = rng.normal(size=20), np.arange(20) % clusters
    estimate = stats.clustered_mean(values, of)
    assert estimate.value == pytest.approx(values.mean())
    assert all(math.isnan(v) for v in numbers(estimate)[1:])
    assert math.isnan(estimate.p_value)
    assert math.isnan(estimate.interval(0.9)[0])
    assert (estimate.n_clusters, estimate.is_approximate) == (clusters, False)
    difference = stats.clustered_mean_difference(values, of, values + 1, of)
    assert difference.value == pytest.approx(1.0)
    assert math.isnan(difference.ci_low)
    assert difference.n_clusters == clusters
    enough = stats.clustered_mean(values, np.arange(20) % stats.MIN_CLUSTERS)
    assert enough.ci_low < enough.value < enough.ci_high


def test_clusters_that_count_nothing_make_no_interval():
    weights = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert math.isnan(stats.clustered_mean(np.arange(6.0), range(6), weights=weights).ci_low)


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
    estimate = stats.clustered_mean([0.25] * 10, [0, 1, 2, 3, 4] * 2)
    assert numbers(estimate) == (0.25, 0.25, 0.25, 0.0)
    assert (estimate.p_value, math.isnan(estimate.n_effective)) == (0.0, True)
    assert stats.clustered_mean([0.0] * 5, range(5)).p_value == 1.0


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


def test_the_design_effect_is_that_of_equal_clusters():
    """m values a cluster that are all equal are worth one; independent ones are worth themselves."""
    rng = np.random.default_rng(5)
    alike = stats.clustered_mean(np.repeat(rng.normal(size=400), 10), np.repeat(np.arange(400), 10))
    assert alike.n_effective == pytest.approx(400, rel=0.01)
    apart = stats.clustered_mean(rng.normal(size=40_000), np.repeat(np.arange(4000), 10))
    assert apart.n_effective == pytest.approx(40_000, rel=0.1)
    one_each = stats.clustered_mean(rng.normal(size=50), range(50))
    assert one_each.n_effective == pytest.approx(50)


def test_intervals_are_called_approximate_where_few_clusters_decide():
    rng = np.random.default_rng(6)
    tame = rng.normal(size=60)
    assert not stats.clustered_mean(tame, range(60)).is_approximate
    assert stats.clustered_mean(tame[:15], range(15)).is_approximate, "few clusters"
    assert stats.clustered_mean([*tame[:59], 30.0], range(60)).is_approximate, "one cluster decides"
    weights = [1.0] * 59 + [60.0]
    one_counts = stats.clustered_mean(tame, range(60), weights=weights)
    assert one_counts.degrees_of_freedom < 5, "one cluster holds half of what is counted"
    assert one_counts.is_approximate


def test_other_coverages_of_the_same_estimate():
    values = np.random.default_rng(7).normal(size=30)
    estimate, at_90 = (stats.clustered_mean(values, range(30), level=level) for level in (0.95, 0.9))
    assert estimate.interval(0.9) == pytest.approx((at_90.ci_low, at_90.ci_high))
    assert estimate.p_value == pytest.approx(scipy_stats.ttest_1samp(values, 0.0).pvalue)


samples = st.lists(st.tuples(st.floats(-1e3, 1e3) | st.just(NAN), st.integers(0, 6)), min_size=3, max_size=40)


@given(samples, st.randoms(use_true_random=False))
def test_order_and_names_of_clusters_do_not_matter(sample, random):
    values, clusters = zip(*sample, strict=True)
    expected = stats.clustered_mean(values, clusters)
    random.shuffle(shuffled := list(sample))
    values, clusters = zip(*shuffled, strict=True)
    names = random.sample("abcdefg", 7)
    found = stats.clustered_mean(values, [names[c] for c in clusters])
    assert astuple(found)[:8] == pytest.approx(astuple(expected)[:8], rel=1e-9, abs=1e-9, nan_ok=True)


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
