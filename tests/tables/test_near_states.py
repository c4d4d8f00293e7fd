"""Recorded states beside the sampled ones: rows of their own, which change no other row."""

from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.records.rollout import Provenance, in_training
from opd_diag.tables import assemble
from opd_diag.tables.states import sampled_by_scorer

from .made_up import a_run, rollout, scored

NEAR = "near-on-policy"


def recorded(step, updates, *, prompts=range(100, 106), length=9, seed=50, top_p=1.0):
    source = Provenance("recorded", in_training(updates), "", updates, 1.0, top_p, None)
    made = [rollout(p, 0, length, provenance=source, group="other", stop_reason="unknown") for p in prompts]
    return scored(made, step=step, label=f"step {step}", states=NEAR, seed=seed)


@pytest.fixture(scope="module")
def both():
    """Tables without and with recorded states, which are deeper, and of other prompts and groups, but for one set."""
    run = a_run()
    pairs = [of.pair for of in run]
    near = [recorded(10, 10).pair, recorded(20, 23, prompts=range(6), seed=51).pair]
    return assemble(pairs, k=8), assemble([*pairs, *near], k=8)


@pytest.mark.parametrize("name", ["summary", "concentration", "differences", "averages", "depth", "strata", "split"])
def test_no_other_row_changes(both, name):
    without, with_near = (getattr(of, name) for of in both)
    others = with_near if name == "split" else with_near[with_near["states"] != NEAR]
    pd.testing.assert_frame_equal(others.reset_index(drop=True), without.reset_index(drop=True), check_dtype=False)


def test_recorded_states_have_rows_of_metrics_alone(both):
    _, tables = both
    assert {*tables.summary.loc[tables.summary.states == NEAR, "label"]} == {"step 10", "step 20"}
    assert {*tables.summary.loc[tables.summary.states == NEAR, "aggregation"]} == {"token mean", "ratio of sums"}
    assert (tables.concentration["states"] == NEAR).sum() > 2
    assert not (tables.strata["states"] == NEAR).any()
    assert not (tables.stops["states"] == NEAR).any()
    assert tables.differences.loc[tables.differences.states == NEAR, "p_adjusted"].isna().all()


def test_deeper_recorded_states_are_one_bin_more(both):
    without, tables = both
    edges = {*without.depth["depth_high"]}
    assert {*tables.depth["depth_high"]} == {*edges, 9}
    deep = tables.depth[tables.depth["depth_low"] == max(edges)]
    assert {*deep["states"]} == {NEAR}
    assert {*deep.loc[deep.metric == "reverse_kl", "n_states"]} == {6 * (9 - max(edges))}


def test_sampled_quantities_exist_where_these_very_weights_wrote_them(both):
    _, tables = both
    of = tables.summary[(tables.summary.metric == "sampled_reverse_kl") & (tables.summary.states == NEAR)]
    assert [*of["n_states"]] == [54, 0], "the second set is three updates stale"
    made = recorded(20, 20, top_p=float("nan"))
    assert not sampled_by_scorer(made.scores, made.rollouts[0]), "nothing tells how it was sampled"
