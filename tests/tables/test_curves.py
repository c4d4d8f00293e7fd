"""Curves over checkpoints and over positions: their numbers are those of the tables."""

from __future__ import annotations

import numpy as np
import pytest

from opd_diag import stats
from opd_diag.tables import assemble
from opd_diag.tables.curves import Curve, curve_of, depth_curve_of

from .made_up import a_run


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run(steps=(0, 10, 20, 30), prompts=8)), k=8)


def rows_of(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    return table


@pytest.mark.parametrize("metric", ["reverse_kl", "shared_gradient_ratio"])
def test_a_curve_over_checkpoints_is_the_summarys(tables, metric):
    curve = curve_of(tables.states, metric, "start")
    rows = rows_of(tables.summary, metric=metric, states="start")
    assert curve.places == tuple(rows["label"]) == ("step 0", "step 10", "step 20", "step 30")
    assert curve.values == pytest.approx(rows["value"].to_numpy())
    most = 1.0 if metric == "shared_gradient_ratio" else np.inf
    ends = np.clip([[e.ci_low, e.ci_high] for e in curve.estimates], 0.0, most)
    assert ends == pytest.approx(rows[["ci_low", "ci_high"]].to_numpy())
    band = np.clip(np.stack(stats.simultaneous_band(curve.estimates, curve.draws), 1), 0.0, most)
    assert band == pytest.approx(rows[["band_low", "band_high"]].to_numpy(), rel=1e-5)


def test_verdicts_on_a_curve_are_those_of_its_numbers(tables):
    curve = curve_of(tables.states, "reverse_kl", "on-policy")
    drift = curve.drift(3)
    assert drift.value == pytest.approx(curve.values[3] - curve.values[1])
    assert curve.plateau(3, 10.0).outcome == "equivalent"
    assert curve.plateau(3, 1e-6).outcome != "equivalent"
    assert curve.change_point(shared_effects=True).location is None


def test_a_curve_over_positions_is_the_depth_tables_and_its_step_is_found(tables):
    states = tables.states.copy()
    own = (states["label"] == "step 10") & (states["states"] == "on-policy")
    noise = 0.01 * np.sin(np.arange(own.sum()))
    states.loc[own, "reverse_kl"] = np.where(states.loc[own, "position"] < 2, 0.2, 0.8) + noise
    curve = depth_curve_of(states, "reverse_kl", "on-policy", "step 10")
    rows = rows_of(tables.depth, metric="reverse_kl", states="on-policy", label="step 10")
    assert curve.places == tuple(rows["depth_low"])
    found = curve.change_point(shared_effects=False)
    assert (curve.places[found.location], found.location_low) == (2, found.location)
    assert found.jump == pytest.approx(0.6, abs=0.05)
    unchanged = depth_curve_of(tables.states, "reverse_kl", "on-policy", "step 10")
    assert unchanged.values == pytest.approx(rows["value"].to_numpy())
    wide = depth_curve_of(states, "reverse_kl", "on-policy", "step 10", edges=[0, 2, 4])
    assert wide.places == (0, 2)


def test_what_was_not_scored_is_an_empty_curve(tables):
    curve = curve_of(tables.states, "reverse_kl", "teacher")
    assert curve.places == ()
    assert curve.values.shape == (0,)
    assert curve.draws.shape[1] == 0
    assert curve.level_since(0.1) is None


def curve_through(values, error=0.001):
    """A curve with these means, each prompt a little beside them."""
    prompts = np.arange(40)
    noise = error * np.sin(7.0 * prompts[:, None] * np.arange(1, len(values) + 1)) * np.sqrt(2 * 40)
    noise -= noise.mean(0)
    samples = tuple(((v + noise[:, [i]]), prompts, np.ones((40, 1))) for i, v in enumerate(values))
    return Curve(tuple(range(len(values))), tuple(stats.clustered_means(v, p)[0] for v, p, _ in samples), samples)


@pytest.mark.parametrize(
    ("values", "error", "since"),
    [
        ((1.0, 0.6, 0.301, 0.300, 0.302), 0.001, 2),
        ((1.0, 0.301, 0.300, 0.302, 0.301), 0.001, 1),
        ((0.301, 0.300, 0.302, 0.301), 0.001, 0),
        ((1.0, 0.8, 0.6, 0.4), 0.001, None),  # it falls to the end
        ((1.0, 0.3, 0.4, 0.3), 0.001, None),  # its ends are level, and what lies between is not
        ((1.0, 0.6, 0.301, 0.300, 0.302), 0.02, None),  # too few prompts to tell
        ((0.3, 0.3), 0.001, None),
    ],
)
def test_since_when_it_stands_still(values, error, since):
    assert curve_through(values, error).level_since(0.02) == since
