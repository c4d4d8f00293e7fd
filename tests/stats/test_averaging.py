"""Ways to average: their contrasts are those taken alone, and they differ where their difference is established."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from opd_diag import stats

WEIGHTS = (-1.0, 1.0)


def averaged(values, prompts, rollouts):
    """Samples of the token, rollout and prompt average, by loops."""
    of_rollouts = [(r, prompts[rollouts == r][0], values[rollouts == r].mean(0)) for r in np.unique(rollouts)]
    of_prompts = [(p, values[prompts == p].mean(0)) for p in np.unique(prompts)]
    return (
        (values, prompts),
        (np.array([m for _, _, m in of_rollouts]), np.array([p for _, p, _ in of_rollouts])),
        (np.array([m for _, m in of_prompts]), np.array([p for p, _ in of_prompts])),
    )


def drawn(rng, shift, long_shift, columns=1, prompts=12):
    """Before and after, each in three ways; responses of 2 to 20 tokens, of which the long ones move otherwise."""
    sides = []
    effects = rng.normal(size=(prompts, columns))
    for after in (0.0, 1.0):
        lengths = rng.integers(2, 21, prompts * 2)
        rollouts = np.repeat(np.arange(prompts * 2), lengths)
        moved = after * np.where(lengths > 10, shift + long_shift, shift)[rollouts]
        noise = rng.normal(size=(len(rollouts), columns)) + 0.5 * rng.normal(size=(prompts * 2, columns))[rollouts]
        values = effects[rollouts // 2] + moved[:, None] + noise
        sides.append(averaged(values, rollouts // 2, rollouts))
    return [list(way) for way in zip(*sides, strict=True)]


def test_each_way_is_its_own_contrast_and_their_differences_are_those_of_the_samples():
    ways = drawn(np.random.default_rng(0), 0.3, 0.2, columns=3)
    alone = [stats.clustered_contrasts(way, WEIGHTS) for way in ways]
    apart = [
        stats.clustered_contrasts([*ways[a], *ways[b]], (1.0, -1.0, -1.0, 1.0)) for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    for i, found in enumerate(stats.contrasts_in_ways(ways, WEIGHTS)):
        for got, expected in ((found.estimates, alone), (found.differences, apart)):
            assert len(got) == 3
            for one, other in zip(got, expected, strict=True):
                assert astuple(one) == pytest.approx(astuple(other[i]), nan_ok=True)


def test_averages_that_agree_are_hardly_ever_called_different():
    """At a power where one in three is established: not significant here and significant there is no difference."""
    rng = np.random.default_rng(1)
    found = stats.contrasts_in_ways(drawn(rng, 0.0, 0.0, columns=1500), WEIGHTS)
    shifted = [stats.contrasts_in_ways(drawn(rng, 0.35, 0.0, columns=100), WEIGHTS) for _ in range(15)]
    found_shifted = [one for of in shifted for one in of]
    for of in (found, found_shifted):
        assert np.mean([one.conclusions_differ for one in of]) < 0.05
    signs = [[(e.ci_low > 0) - (e.ci_high < 0) for e in one.estimates] for one in found_shifted]
    assert 0.2 < np.mean([s[0] != 0 for s in signs]) < 0.8
    assert np.mean([len(set(s)) > 1 for s in signs]) > 0.1, "which differ in significance alone"


def test_averages_that_differ_are_found():
    rng = np.random.default_rng(2)
    found = stats.contrasts_in_ways(drawn(rng, -0.8, 1.6, columns=200, prompts=120), WEIGHTS)
    assert np.mean([one.conclusions_differ for one in found]) > 0.9


def ways_of(*ends):
    """Ways with these intervals, whose differences are far from 0 or not."""
    estimates = tuple(stats.Estimate((a + b) / 2, a, b, 0.1, 9, 9, 0, degrees_of_freedom=8.0) for a, b in ends)
    return estimates


def test_opposite_directions_need_no_more():
    nothing = stats.Estimate(0.0, -9.0, 9.0, 4.0, 9, 9, 0, degrees_of_freedom=8.0)
    clear = stats.Estimate(1.0, 0.7, 1.3, 0.1, 9, 9, 0, degrees_of_freedom=8.0)
    opposite, one, both = ((0.1, 0.5), (-0.5, -0.1)), ((0.1, 0.5), (-0.1, 0.5)), ((0.1, 0.5), (0.2, 0.9))
    asked = [(opposite, nothing, True), (one, nothing, False), (one, clear, True), (both, clear, False)]
    for ends, difference, expected in asked:
        assert stats.Ways(ways_of(*ends), (difference,)).conclusions_differ is expected


def test_equal_averages_differ_by_rounding_alone_and_that_is_nothing():
    tiny = stats.Estimate(1e-17, 0.9e-17, 1.1e-17, 1e-18, 9, 9, 0, degrees_of_freedom=8.0)
    assert not stats.Ways(ways_of((1e-9, 0.5), (-1e-9, 0.5)), (tiny,)).conclusions_differ


def test_without_an_interval_nobody_knows():
    values, few = np.ones((4, 1)), np.arange(4)
    way = [(values, few), (values * 2, few)]
    assert stats.contrasts_in_ways([way, way], WEIGHTS)[0].conclusions_differ is None
    many = np.arange(8)
    infinite = [(np.ones((8, 1)), many), (np.full((8, 1), math.inf), many)]
    assert stats.contrasts_in_ways([infinite, infinite], WEIGHTS)[0].conclusions_differ is None


def test_what_does_not_fit_is_said():
    way = [(np.ones((4, 1)), np.arange(4))] * 2
    with pytest.raises(ValueError, match="Two ways at least, each with 2 samples"):
        stats.contrasts_in_ways([way], WEIGHTS)
    with pytest.raises(ValueError, match="found 2, 1"):
        stats.contrasts_in_ways([way, way[:1]], WEIGHTS)
