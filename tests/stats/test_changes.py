"""Change points: found where they are, none where there is none, at the level that is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opd_diag import stats


def curve(rng, level, prompts=40, noise=0.3):
    values = np.asarray(level) + rng.normal(size=(prompts, 1)) + rng.normal(scale=noise, size=(prompts, len(level)))
    draws = stats.Resampling(range(prompts), draws=400).means(values, range(prompts))
    return values.mean(axis=0), draws


def test_a_step_is_found_where_it_is():
    values, draws = curve(np.random.default_rng(0), [1.0, 1.0, 1.0, 1.0, 0.5, 0.5])
    found = stats.change_point(values, draws, 40)
    assert (found.location, found.location_low, found.location_high) == (4, 4, 4)
    assert found.jump == pytest.approx(-0.5, abs=0.1)
    assert found.before - found.after == pytest.approx(-found.jump)
    assert found.p_value < 0.01
    assert math.isnan(found.p_orders)
    assert stats.change_point(values, draws, 40, delta=0.8).location is None


def test_a_weak_step_has_a_wide_interval_that_holds_it():
    held, widths = 0, []
    for seed in range(40):
        values, draws = curve(np.random.default_rng(seed), [0.0] * 5 + [0.15] * 5, prompts=30)
        found = stats.change_point(values, draws, 30)
        if found.location is not None:
            held += found.location_low <= 5 <= found.location_high
            widths.append(found.location_high - found.location_low)
    assert len(widths) > 20
    assert held / len(widths) > 0.85
    assert max(widths) > 0


@pytest.mark.parametrize("prompts", [10, 40])
def test_none_is_the_answer_where_nothing_changes(prompts):
    rng = np.random.default_rng(prompts)
    found = [stats.change_point(*curve(rng, [0.0] * 8, prompts), prompts).location for _ in range(300)]
    wrong = sum(location is not None for location in found)
    assert 1 <= wrong <= 30, "about 5 in 100, and the test must be able to fail"


def test_effects_of_checkpoints_are_no_change_point():
    rng, taken, asked = np.random.default_rng(1), 0, 0
    for _ in range(200):
        values, draws = curve(rng, rng.normal(scale=0.3, size=8))
        taken += stats.change_point(values, draws, 40).location is not None
        asked += stats.change_point(values, draws, 40, shared_effects=True).location is not None
    assert taken > 150, "over prompts alone any checkpoint of its own is a change"
    assert asked <= 24
    values, draws = curve(rng, [1.0] * 4 + [0.0] * 4)
    assert stats.change_point(values, draws, 40, shared_effects=True).location == 4
    values, draws = curve(rng, [1.0] * 2 + [0.0] * 3)
    few = stats.change_point(values, draws, 40, shared_effects=True)
    assert few.location is None
    assert few.p_orders > 0.05, "five checkpoints in random order split as well too often"


def test_points_that_are_undefined_are_left_out():
    values, draws = curve(np.random.default_rng(2), [1.0, 1.0, 9.0, 1.0, 0.0, 0.0])
    values[2] = np.nan
    found = stats.change_point(values, draws, 40)
    assert found.location == 4
    short = stats.change_point([1.0, np.nan, 0.0], np.ones((5, 3)), 40)
    assert short.location is None
    assert math.isnan(short.p_value)
    assert math.isnan(stats.change_point(values, draws, 4).p_value), "too few prompts"


def test_a_curve_without_spread_has_no_change():
    assert stats.change_point([1.0, 1.0, 1.0], np.ones((50, 3)), 40).location is None


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected \(B, 3\), found \(5, 2\)"):
        stats.change_point([1.0, 2.0, 3.0], np.ones((5, 2)), 40)
    with pytest.raises(ValueError, match="at least 0, found -1"):
        stats.change_point([1.0, 2.0, 3.0], np.ones((5, 3)), 40, delta=-1)
