"""Bands and adjusted p-values: against naive versions, other libraries' numbers and their promised coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from opd_diag import stats


def points_of(values):
    prompts = range(len(values))
    draws = stats.Resampling(prompts, draws=1000).means(values, prompts)
    return stats.clustered_means(values, prompts), draws


def test_a_band_holds_the_whole_curve_where_intervals_do_not():
    rng, held, at_once = np.random.default_rng(0), 0, 0
    for _ in range(300):
        estimates, draws = points_of(rng.normal(size=(40, 10)) + rng.normal(scale=0.5, size=(40, 1)))
        low, high = stats.simultaneous_band(estimates, draws)
        held += bool(((low <= 0) & (high >= 0)).all())
        at_once += all(e.ci_low <= 0 <= e.ci_high for e in estimates)
    assert held / 300 >= 0.90
    assert at_once / 300 <= 0.80


def test_points_that_go_together_need_no_wider_band():
    rng = np.random.default_rng(1)
    together, draws = points_of(np.repeat(rng.normal(size=(60, 1)), 8, axis=1))
    low, high = stats.simultaneous_band(together, draws)
    widths = (high - low) / [e.ci_high - e.ci_low for e in together]
    assert widths == pytest.approx(1.0, abs=0.08)
    apart, draws = points_of(rng.normal(size=(60, 8)))
    low, high = stats.simultaneous_band(apart, draws)
    widths = (high - low) / [e.ci_high - e.ci_low for e in apart]
    sidak = scipy_stats.norm.ppf((1 + 0.95 ** (1 / 8)) / 2) / scipy_stats.norm.ppf(0.975)
    assert widths == pytest.approx(sidak, rel=0.12)


def test_a_point_without_an_interval_has_no_band_and_spoils_no_other():
    values = np.random.default_rng(2).normal(size=(30, 3))
    values[:, 1] = np.nan
    values[:, 2] = 0.5
    low, high = stats.simultaneous_band(*points_of(values))
    assert low[0] < high[0]
    assert np.isnan([low[1], high[1]]).all()
    assert (low[2], high[2]) == (0.5, 0.5)
    none = stats.simultaneous_band(*points_of(values[:3]))
    assert np.isnan(none).all()


def test_bands_refuse_what_does_not_fit():
    estimates, draws = points_of(np.random.default_rng(3).normal(size=(9, 2)))
    with pytest.raises(ValueError, match=r"expected \(B, 2\), found \(1000, 1\)"):
        stats.simultaneous_band(estimates, draws[:, :1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.simultaneous_band(estimates, draws, level=0)


def naive_holm(p):
    """Reject step by step at every level: the adjusted p-value is the least level at which the step is reached."""
    adjusted, so_far = {}, 0.0
    for i, index in enumerate(sorted(range(len(p)), key=lambda j: p[j])):
        so_far = max(so_far, min(1.0, (len(p) - i) * p[index]))
        adjusted[index] = so_far
    return [adjusted[i] for i in range(len(p))]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_equals_the_naive_version(p_values):
    assert stats.holm(p_values).tolist() == pytest.approx(naive_holm(p_values))


def test_holm_keeps_false_claims_of_a_family_rare():
    rng = np.random.default_rng(4)
    any_raw, any_adjusted = 0, 0
    for _ in range(400):
        p = rng.random(20)
        any_raw += p.min() <= 0.05
        any_adjusted += stats.holm(p).min() <= 0.05
    assert any_raw > 200
    assert any_adjusted <= 36
