"""Trends and Kendall's tau: against pairs counted by hand, naive versions, all orders, and the promised level."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opd_diag import stats


def naive_tau(order, values):
    """Concordant minus discordant pairs over the geometric mean of the untied pairs of each side."""
    concordant, untied_order, untied_values = 0, 0, 0
    for i in range(len(order)):
        for j in range(i):
            x, y = np.sign(order[i] - order[j]), np.sign(values[i] - values[j])
            concordant += x * y
            untied_order += x * x
            untied_values += y * y
    return concordant / math.sqrt(untied_order * untied_values)


def test_by_hand():
    # Pairs of (1, 3, 2): 1-3 up, 1-2 up, 3-2 down: (2 - 1) / 3.
    assert stats.kendall_tau([0, 20, 40], [1.0, 3.0, 2.0]) == pytest.approx(1 / 3)
    assert stats.kendall_tau([0, 20, 40], [5.0, 6.0, 6.5]) == pytest.approx(1.0)
    assert stats.kendall_tau([40, 20, 0], [5.0, 6.0, 6.5]) == pytest.approx(-1.0)


def test_equal_to_the_naive_version_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        order, values = rng.integers(0, 6, 12), rng.integers(0, 5, 12).astype(float)
        assert stats.kendall_tau(order, values) == pytest.approx(naive_tau(order, values), abs=1e-12)


def test_leaves_out_what_is_not_finite():
    values = [1.0, math.nan, 3.0, math.inf, 2.0]
    assert stats.kendall_tau(range(5), values) == pytest.approx(1 / 3)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [1.0, 2.0, math.nan], [2.0, 2.0, 2.0, 2.0]])
def test_undefined_is_nan(values):
    assert math.isnan(stats.kendall_tau(range(len(values)), values))


def test_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match=r"found \(2,\) and \(3,\)"):
        stats.kendall_tau([0, 1], [1.0, 2.0, 3.0])


def changed(value, error=0.01):
    half = 2 * error
    return stats.Estimate(value, value - half, value + half, error, 99, 40, 0, degrees_of_freedom=39.0)


@pytest.mark.parametrize(
    ("values", "direction", "outcome", "tested"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5], -1, "falls", True),
        ([0.9, 0.8, 0.7, 0.6, 0.5], 0, "falls", True),
        ([0.9, 0.8, 0.6, 0.7, 0.5], -1, "falls", True),  # p = 5/120
        ([0.9, 0.8, 0.6, 0.7, 0.5], 0, "changes", True),
        ([0.9, 0.3, 0.2, 0.6, 0.5], -1, "changes", True),
        ([0.9, 0.8, 0.7, 0.5], -1, "falls", True),  # p = 1/24
        ([0.9, 0.8, 0.7, 0.5], 0, "falls", False),  # p = 1/12 at best: all in order is all that can be asked
        ([0.9, 0.7, 0.8, 0.5], 0, "changes", False),
        ([0.9, 0.7, 0.5], -1, "falls", False),
        ([0.9, 0.95, 0.5], -1, "changes", False),
        ([0.9, 0.5], -1, "falls", False),
        ([0.9, math.nan, 0.5], -1, "falls", False),
    ],
)
def test_a_change_and_an_order(values, direction, outcome, tested):
    found = stats.trend(values, changed(-0.4), delta=0.02, direction=direction)
    assert (found.outcome, found.order_is_tested) == (outcome, tested)
    assert found.sign == {"falls": -1}.get(outcome, 0)
    upside_down = stats.trend([-v for v in values], changed(0.4), delta=0.02, direction=-direction)
    assert upside_down.outcome == outcome.replace("falls", "rises")


def test_a_change_within_delta_is_no_trend():
    falling = [0.9, 0.89, 0.88, 0.87, 0.86]
    assert stats.trend(falling, changed(-0.04), delta=0.01, direction=-1).outcome == "falls"
    assert stats.trend(falling, changed(-0.04), delta=0.03, direction=-1).outcome == "no trend"
    assert stats.trend(falling, changed(-0.01), direction=-1).outcome == "no trend"


def test_an_order_against_the_change_is_none():
    """The prompts that both ends share rise, the means of all prompts fall."""
    assert stats.trend([0.9, 0.8, 0.7, 0.6, 0.5], changed(0.4), direction=-1).outcome == "changes"


def test_without_an_interval_or_a_second_checkpoint_nothing_is_known():
    none = stats.clustered_mean([1.0, 2.0], [0, 1])
    assert stats.trend([0.9, 0.5, 0.3], none).outcome == "unknown"
    alone = stats.trend([0.9], changed(0.4))
    assert (alone.outcome, alone.n_checkpoints) == ("unknown", 1)
    assert math.isnan(alone.p_value)


def test_the_p_value_counts_all_orders():
    rng = np.random.default_rng(1)
    for n in (3, 4, 5, 6):
        values = rng.normal(size=n)
        taus = [naive_tau(range(n), order) for order in itertools.permutations(values)]
        expected = np.mean([t >= abs(naive_tau(range(n), values)) - 1e-12 for t in taus])
        assert stats.order_p_value(values) == pytest.approx(expected)
        assert stats.order_p_value(values, sides=2) == pytest.approx(min(1.0, 2 * expected))
    assert stats.order_p_value(np.arange(30.0)) < 1e-12
    assert math.isnan(stats.order_p_value([1.0, 2.0]))


def test_the_interval_of_tau_comes_from_resampled_prompts():
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    firm, loose = (values + np.random.default_rng(2).normal(scale=s, size=(400, 5)) for s in (0.001, 0.2))
    found = stats.trend(values, changed(-0.4), draws=firm)
    assert (found.tau_low, found.tau_high) == (-1.0, -1.0)
    found = stats.trend(values, changed(-0.4), draws=loose)
    assert -1.0 <= found.tau_low < found.tau_high <= 0.5
    with pytest.raises(ValueError, match=r"expected \(B, 5\), found \(400, 4\)"):
        stats.trend(values, changed(-0.4), draws=loose[:, :4])


def test_effects_of_checkpoints_make_no_trends_but_deceive_tests_over_prompts():
    """No trend; every checkpoint has an effect of its own that all prompts share, twice as large as delta."""
    rng, found, paired, pages = np.random.default_rng(3), 0, 0, 0
    prompts = np.arange(40)
    for _ in range(300):
        values = rng.normal(scale=0.2, size=5) + rng.normal(size=(40, 1)) + rng.normal(scale=0.3, size=(40, 5))
        change = stats.clustered_mean_difference(values[:, 0], prompts, values[:, -1], prompts)
        found += stats.trend(values.mean(axis=0), change, delta=0.1, direction=-1).outcome == "falls"
        paired += change.ci_high < -0.1
        pages += scipy_stats.page_trend_test(-values, method="asymptotic").pvalue <= 0.05
    assert found <= 27, "about 3 in 100"
    assert paired > 40
    assert pages > 60


@pytest.mark.parametrize(("options", "message"), [({"delta": -1}, "at least 0"), ({"direction": 2}, "-1, 0 or 1")])
def test_refuses_what_is_none(options, message):
    with pytest.raises(ValueError, match=message):
        stats.trend([1.0, 2.0], changed(0.4), **options)
