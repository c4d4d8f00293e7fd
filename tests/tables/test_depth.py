"""Means within bins of positions: against naive computations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables import BY_NAME, assemble, depth_table, measure
from opd_diag.tables.depth import FEWEST_PROMPTS, peak_cell, positions

from .made_up import a_run, naive_band, naive_mean, rollout, scored, weights_of

DEPTH_COLUMNS = [
    "step", "label", "teacher", "states", "metric", "depth_low", "depth_high", "value", "ci_low", "ci_high",
    "band_low", "band_high", "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run()), k=8)


def test_depth_counts_every_state_once(tables):
    table, states = tables.depth, tables.states
    assert list(table.columns) == DEPTH_COLUMNS
    for (label, state_set), of in states.groupby(["label", "states"]):
        rows = table[(table["label"] == label) & (table["states"] == state_set) & (table["metric"] == "reverse_kl")]
        assert rows["n_states"].sum() == len(of)
        assert (rows["depth_low"].to_numpy()[1:] == rows["depth_high"].to_numpy()[:-1]).all()
        for row in rows.itertuples():
            inside = of[(of["position"] >= row.depth_low) & (of["position"] < row.depth_high)]
            assert row.n_states == len(inside)
            assert row.n_prompts == inside["prompt_index"].nunique()
            assert row.n_rollouts == inside.groupby(["prompt_index", "rollout_index"]).ngroups


@pytest.mark.parametrize("metric", ["reverse_kl", "shared_gradient_ratio", "other_gradient_ratio"])
def test_every_bin_has_its_mean_or_ratio_of_sums(tables, metric):
    rows = tables.depth[tables.depth["metric"] == metric]
    assert len(rows) > 10
    for row in rows.itertuples():
        of = tables.states[(tables.states["label"] == row.label) & (tables.states["states"] == row.states)]
        inside = of[(of["position"] >= row.depth_low) & (of["position"] < row.depth_high)]
        value, low, high = naive_mean(inside[metric], inside["prompt_index"], weights_of(inside, metric))
        if not math.isnan(low):  # no further than the metric goes
            low, high = max(low, BY_NAME[metric].low), min(high, BY_NAME[metric].high)
        assert [row.value, row.ci_low, row.ci_high] == pytest.approx([value, low, high], rel=1e-9, nan_ok=True)


PRIMARY = (
    "overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "overlap_token_advantage", "entropy_gap",
    "reverse_kl", "forward_kl",
)  # fmt: skip


def test_bands_hold_all_bins_of_a_primary_metric_at_once(tables):
    seen = 0
    for (label, state_set), of in tables.states.groupby(["label", "states"]):
        rows = tables.depth[(tables.depth["label"] == label) & (tables.depth["states"] == state_set)]
        for metric in PRIMARY:
            curve = rows[rows["metric"] == metric]
            bins = [of[(of["position"] >= r.depth_low) & (of["position"] < r.depth_high)] for r in curve.itertuples()]
            places = [(inside[metric], inside["prompt_index"]) for inside in bins]
            low, high = naive_band(places, tables.states["prompt_index"])
            low, high = np.maximum(low, BY_NAME[metric].low), np.minimum(high, BY_NAME[metric].high)
            assert curve["band_low"].to_numpy() == pytest.approx(low, rel=1e-5, abs=1e-9, nan_ok=True), metric
            assert curve["band_high"].to_numpy() == pytest.approx(high, rel=1e-5, abs=1e-9, nan_ok=True), metric
            seen += int(np.isfinite(low).sum())
    assert seen > 50
    others = tables.depth[~tables.depth["metric"].isin(PRIMARY)]
    assert others["ci_low"].notna().any()
    assert others[["band_low", "band_high"]].isna().all(axis=None)


@pytest.mark.parametrize("longest", [1, 7, 8, 9, 23, 64, 65])
def test_depth_bins_cover_all_positions_in_at_most_eight(longest):
    made = scored([rollout(0, 0, longest), rollout(1, 0, 1)])
    rows = depth_table(measure(*made.pair))
    rows = rows[rows["metric"] == "reverse_kl"]
    assert 1 <= len(rows) <= 8
    assert rows["n_states"].sum() == longest + 1
    assert rows["depth_low"].iloc[0] == 0
    assert rows["depth_high"].iloc[-1] >= longest
    assert (rows["depth_high"] - rows["depth_low"]).nunique() == 1


def test_depth_edges_can_be_given():
    made = scored([rollout(0, 0, 9), rollout(1, 0, 4)])
    rows = depth_table(measure(*made.pair), edges=[1, 3, 8])
    rows = rows[rows["metric"] == "entropy_gap"]
    assert list(zip(rows["depth_low"], rows["depth_high"], rows["n_states"], rows["n_rollouts"], strict=True)) == [
        (1, 3, 4, 2),
        (3, 8, 6, 2),
    ]


def test_depth_is_sorted_by_set_checkpoint_metric_and_place(tables):
    keys = list(tables.depth[["states", "label", "metric", "depth_low"]].itertuples(index=False, name=None))
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def cells(*values, prompts=FEWEST_PROMPTS, **columns):
    """Rows of one metric, a cell a value."""
    rows = [{"metric": "reverse_kl", "states": "start", "value": value, "n_prompts": prompts} for value in values]
    return pd.DataFrame(rows).assign(depth_low=range(len(values)), **columns)


class TestPeak:
    def test_it_is_the_first_of_the_highest_cells(self):
        assert peak_cell(cells(1.0, 3.0, 3.0, math.nan), "reverse_kl", "start")["depth_low"] == 1
        assert peak_cell(cells(1.0, math.inf, 3.0), "reverse_kl", "start")["depth_low"] == 1

    def test_cells_of_few_prompts_are_none(self):
        few = cells(9.0, prompts=FEWEST_PROMPTS - 1)
        assert peak_cell(pd.concat([few, cells(1.0)]), "reverse_kl", "start")["value"] == 1.0
        assert peak_cell(few, "reverse_kl", "start") is None

    def test_other_metrics_and_sets_are_not_looked_at(self):
        table = pd.concat([cells(1.0), cells(9.0, metric="forward_kl"), cells(9.0, states="teacher")])
        assert peak_cell(table, "reverse_kl", "start")["value"] == 1.0
        assert peak_cell(cells(math.nan), "reverse_kl", "start") is None


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0, 1, "position 0"), (0, 2, "positions 0–1"), (8, 16, "positions 8–15")]
)
def test_positions_are_those_inside(low, high, text):
    assert positions(pd.Series({"depth_low": low, "depth_high": high})) == text
