"""A metric over its control by depth: planted breaks are found, and none where there is none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.excess import CURVE_BINS, EXCESS_COLUMNS, excess_of


def states(place=None, jump=1.0, *, prompts=24, length=12, seed=0, label="step 9", noise=0.2):
    """Own and the teacher's responses of one checkpoint; tokens differ by depth, own ones break at `place`."""
    rng = np.random.default_rng(seed)
    by_depth = rng.exponential(1.0, length)
    rows = []
    for prompt in range(prompts):
        for of in ("on-policy", "teacher"):
            values = by_depth + noise * rng.normal(size=length)
            if place is not None and of == "on-policy":
                values[place:] += jump * rng.exponential(1.0)
            about = {"step": 9, "label": label, "states": of, "prompt_index": prompt, "rollout_index": 0}
            rows += [about | {"position": i, "reverse_kl": value} for i, value in enumerate(values)]
    return pd.DataFrame(rows)


def excess(table, length=12):
    return excess_of(table, "reverse_kl", "step 9", length, than=("step 9", "teacher"))


def test_values_are_own_less_control():
    table = states(4)
    found = excess(table)
    means = table.groupby(["states", "position"])["reverse_kl"].mean()
    assert np.allclose(found.values, means["on-policy"] - means["teacher"])
    assert found.edges == tuple((i, i + 1) for i in range(12))
    assert (found.n_prompts, found.n_rollouts) == (24, (24, 24))


@pytest.mark.parametrize("place", [2, 5, 9])
def test_a_break_is_found_where_it_is(place):
    found = excess(states(place, 2.0)).breaks(0.1)
    assert found.low <= place <= found.high
    assert abs(found.position - place) <= 1
    assert found.jump == pytest.approx(2.0, abs=0.8)


def test_what_both_do_is_no_break():
    """Content makes both rise from token 6 on, by ten times what is looked for."""
    table = states()
    table["reverse_kl"] += (table["position"] >= 6) * 1.0
    found = excess(table)
    assert found.breaks(0.1) is None
    assert found.own_rise(6).ci_low > 0.1
    assert found.largest_rise()[1].ci_high < 0.2


def test_a_fall_is_no_break():
    assert excess(states(6, -2.0)).breaks(0.1) is None


def test_a_break_of_less_than_delta_is_none():
    table = states(6, 0.3, noise=0.02)
    assert excess(table).breaks(0.1) is not None
    assert excess(table).breaks(0.6) is None


def test_the_interval_holds_the_place_and_none_is_seen_where_none_is():
    """40 draws each: the interval is at 95 %, a break seen by chance at 5 %."""
    held = sum(
        found is not None and found.low <= 7 <= found.high
        for found in (excess(states(7, 0.8, seed=seed, prompts=16, noise=0.5)).breaks(0.1) for seed in range(40))
    )
    chance = sum(excess(states(seed=seed, prompts=16, noise=0.5)).breaks(0.0) is not None for seed in range(40))
    assert held >= 34
    assert chance <= 6


def test_few_prompts_have_neither():
    found = excess(states(6, 2.0, prompts=3))
    assert found.breaks(0.1) is None
    assert found.largest_rise() is None
    assert math.isnan(found.own_rise(6).ci_low)


def test_two_tokens_have_no_break():
    assert excess(states(1, 2.0, length=2), 2).breaks(0.1) is None


def test_prompts_of_one_side_are_left_out():
    table = states(prompts=8)
    table = table[(table["states"] == "on-policy") | (table["prompt_index"] < 6)]
    assert excess(table).n_prompts == 6
    assert excess(table[table["states"] == "on-policy"]) is None
    assert excess(table, 13) is None


def test_of_wide_bins_the_interval_reaches_as_far_as_they_do():
    """80 tokens in bins of 3: token 40 lies in the bin 39 to 41."""
    found = excess(states(40, 2.0, length=80), 80)
    assert len(found.edges) <= CURVE_BINS
    place = found.breaks(0.1)
    assert place.position in (39, 42)
    assert place.low <= 40 <= place.high


def test_another_checkpoint_may_be_the_control():
    table = pd.concat([states(label="step 0", seed=1), states(6, 2.0)])
    found = excess_of(table, "reverse_kl", "step 9", 12, than=("step 0", "on-policy"), control="step 0")
    assert found.control == "step 0"
    assert set(found.table()["control"]) == {"step 0"}


def test_the_table_has_a_row_a_bin():
    table = excess(states(6, 2.0)).table()
    assert list(table.columns) == EXCESS_COLUMNS
    assert np.allclose(table["value"], table["own"] - table["than"])
    assert ((table["ci_low"] <= table["value"]) & (table["value"] <= table["ci_high"])).all()
    assert table["depth_low"].tolist() == list(range(12))


def test_a_step_of_no_account_among_tokens_that_hardly_vary_hides_no_break():
    """Weights that break at a token differ a little at the first ones too, by the same amount for every prompt."""
    table = states(7, 3.0, noise=1e-6)
    table["reverse_kl"] += np.where((table["states"] == "on-policy") & (table["position"] < 2), 0.03, 0.0)
    found = excess(table).breaks(0.1)
    assert (found.position, found.low, found.high) == (7, 7, 7)
