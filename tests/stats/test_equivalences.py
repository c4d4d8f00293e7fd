"""Equivalence and plateau: by hand, against two one-sided tests of scipy, and their promised level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats
from opd_diag.stats import Estimate


def estimate(value, error, clusters=40):
    half = error * scipy_stats.t.ppf(0.975, clusters - 1)
    return Estimate(value, value - half, value + half, error, 99, clusters, 0, degrees_of_freedom=clusters - 1.0)


@pytest.mark.parametrize(
    ("value", "error", "outcome"),
    [
        (0.0, 0.01, "equivalent"),  # ±.0168 lies within .02
        (0.004, 0.01, "inconclusive"),  # .004 + .0168 does not
        (0.03, 0.01, "inconclusive"),  # .03 - .0202 is under .02
        (0.05, 0.01, "different"),
        (-0.05, 0.01, "different"),
    ],
)
def test_three_answers(value, error, outcome):
    found = stats.equivalence(estimate(value, error), 0.02)
    assert found.outcome == outcome
    assert (found.clusters_needed is None) == (outcome != "inconclusive")
    assert (found.low, found.high) == pytest.approx((value - 0.016849 / 0.01 * error, value + 1.6849 * error), abs=1e-4)


def test_equal_to_two_one_sided_tests():
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(60):
        values, delta = rng.normal(rng.normal(scale=0.3), 1, 30), 0.4
        tests = [scipy_stats.ttest_1samp(values, s * delta, alternative=a) for s, a in ((-1, "greater"), (1, "less"))]
        found = stats.equivalence(stats.clustered_mean(values, range(30)), delta)
        assert (found.outcome == "equivalent") == (max(t.pvalue for t in tests) < 0.05)
        outcomes.add(found.outcome)
    assert len(outcomes) > 1


def test_of_a_quantity_that_is_never_negative_one_side_is_asked():
    low = estimate(-0.03, 0.01)  # an estimate of such a quantity can lie below 0
    assert stats.equivalence(low, 0.02).outcome != "equivalent"
    assert stats.equivalence(low, 0.02, one_sided=True).outcome == "equivalent"
    above = estimate(0.0375, 0.01)  # over .02 by 1.75 errors: enough for one side, and not for two
    assert stats.equivalence(above, 0.02).outcome == "inconclusive"
    assert stats.equivalence(above, 0.02, one_sided=True).outcome == "different"


def test_one_sided_a_fall_is_far_from_a_rise():
    fallen = estimate(-0.01, 0.03)
    needed = stats.equivalence(fallen, 0.02, one_sided=True).clusters_needed
    assert needed < stats.equivalence(fallen, 0.02).clusters_needed
    enough = estimate(-0.01, 0.03 * math.sqrt(40 / needed), needed)
    assert stats.equivalence(enough, 0.02, one_sided=True).outcome == "equivalent"
    too_few = estimate(-0.01, 0.03 * math.sqrt(40 / (needed - 2)), needed - 2)
    assert stats.equivalence(too_few, 0.02, one_sided=True).outcome == "inconclusive"


@pytest.mark.parametrize("value", [0.005, 0.012, 0.035])
def test_so_many_prompts_would_decide_it(value):
    found = stats.equivalence(estimate(value, 0.02), 0.02)
    assert found.outcome == "inconclusive"
    for factor, decided in ((1.03, True), (0.95, False)):
        clusters = round(found.clusters_needed * factor)
        again = stats.equivalence(estimate(value, 0.02 * math.sqrt(40 / clusters), clusters), 0.02)
        assert (again.outcome != "inconclusive") == decided


def test_without_an_interval_nothing_is_concluded():
    none = stats.clustered_mean([0.0, 0.0], [0, 1])
    found = stats.equivalence(none, 0.1)
    assert (found.outcome, found.clusters_needed) == ("inconclusive", None)
    assert math.isnan(stats.detectable_difference(none))
    assert stats.equivalence(estimate(0.02, 0.01), 0.02).clusters_needed is None, "it lies on delta"


@pytest.mark.parametrize("delta", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_delta_that_is_none(delta):
    with pytest.raises(ValueError, match="finite and over 0, found"):
        stats.equivalence(estimate(0.0, 1.0), delta)


def test_a_detectable_difference_is_detected_so_often():
    rng, hits = np.random.default_rng(1), 0
    size = stats.detectable_difference(estimate(0.0, 1 / math.sqrt(40)))
    for _ in range(500):
        found = stats.clustered_mean(rng.normal(size, 1, 40), range(40))
        hits += found.ci_low > 0
    assert 0.74 <= hits / 500 <= 0.86


def test_the_drift_is_slope_times_length():
    rng = np.random.default_rng(2)
    order, values = [0, 20, 40, 80], rng.normal(size=4)
    slope = scipy_stats.linregress(order, values).slope
    assert stats.plateau_weights(order) @ values == pytest.approx(slope * 80)
    with pytest.raises(ValueError, match="two places at least, found"):
        stats.plateau_weights([3.0, 3.0])


def test_scatter_of_checkpoints_keeps_a_plateau_from_being_claimed():
    drift, level = estimate(0.0, 0.005), [0.5, 0.5, 0.5, 0.5]
    assert stats.plateau(range(4), level, drift, 0.02).outcome == "equivalent"
    assert stats.plateau(range(4), [0.5, 0.52, 0.5, 0.51], drift, 0.02).outcome == "inconclusive"
    assert stats.plateau(range(3), [0.5, 0.52, 0.5], drift, 0.02).outcome == "equivalent", "three cannot tell"


def test_equivalence_is_wrongly_claimed_at_most_as_often_as_it_says():
    """The truth is delta itself; values are heavy-tailed enough to be no normal."""
    rng, claimed, missed = np.random.default_rng(3), 0, 0
    for _ in range(1000):
        noise = rng.standard_t(5, size=60)
        claimed += stats.equivalence(stats.clustered_mean(noise + 0.5, range(60)), 0.5).outcome == "equivalent"
        missed += stats.equivalence(stats.clustered_mean(noise, range(60)), 0.5).outcome != "equivalent"
    assert claimed / 1000 <= 0.075
    assert missed / 1000 <= 0.2
