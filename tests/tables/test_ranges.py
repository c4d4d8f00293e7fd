"""Intervals stay within what their metric can be; what none or all did leaves something open."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.plots.quantities import QUANTITIES
from opd_diag.tables import CATALOGUE, assemble, difference_table
from opd_diag.tables.ranges import RANGES, SHARES, within_range

from .made_up import a_run
from .test_summary import numbers, one


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run(prompts=16)), k=8)


def test_what_is_no_metric_of_one_state_has_its_range():
    of_one_state = {metric.name for metric in CATALOGUE}
    others = {name: (q.low, q.high) for name, q in QUANTITIES.items() if name not in of_one_state}
    at_least_0 = {"response_length", "unigram_entropy", "compression_ratio", "fitted_temperature"}
    at_least_0 |= {"reverse_kl_after_temperature"}
    assert {name for name, ends in others.items() if ends == (0.0, math.inf)} == at_least_0
    assert {name for name, ends in others.items() if ends == (-math.inf, 1.0)} == {"gradient_coherence"}
    assert {ends for name, ends in others.items() if name not in at_least_0 | {"gradient_coherence"}} == {(0.0, 1.0)}


def test_nothing_leaves_its_range(tables):
    for table in (tables.summary, tables.strata, tables.averages):
        assert len(table)
        for name in [n for n in ("ci_low", "ci_high", "band_low", "band_high") if n in table]:
            for metric, end in zip(table["metric"], table[name], strict=True):
                low, high = RANGES.get(metric, (-math.inf, math.inf))
                assert math.isnan(end) or low <= end <= high, (name, metric)


def test_ends_are_cut_and_values_are_not():
    table = pd.DataFrame(
        {"metric": ["overlap_ratio", "reverse_kl", "entropy_difference", "top1_agreement"],
         "value": [0.9, 0.01, -1.0, 1 + 1e-12], "ci_low": [0.7, -0.02, -3.0, math.nan],
         "ci_high": [1.1, 0.04, 1.0, 1.2]}
    )  # fmt: skip
    cut = within_range(table)
    assert cut["value"].equals(table["value"])
    np.testing.assert_array_equal(cut["ci_low"], [0.7, 0.0, -3.0, math.nan])
    np.testing.assert_array_equal(cut["ci_high"], [1.0, 0.04, 1.0, 1 + 1e-12])
    assert within_range(table.iloc[:0]).empty


def test_a_share_of_none_has_the_interval_of_wilson(tables):
    """In this run no response repeats itself."""
    row = one(tables.summary, label="step 20", states="on-policy", metric="repetition_rate")
    assert tables.rollouts["is_repeating"].notna().any()
    most = stats.wilson(0, int(row["n_prompts"]))[1]
    assert numbers(row) == pytest.approx([0.0, 0.0, most])
    found = one(difference_table(tables.states, tables.rollouts), metric="repetition_rate", states="on-policy")
    shared = stats.wilson(0, int(found["n_prompts"]))[1]
    assert numbers(found) == pytest.approx([0.0, -shared, shared])
    assert "repetition_rate" in SHARES


def test_what_prompts_of_one_side_alone_did_does_not_count(tables):
    """Only the prompts of both checkpoints make the difference; on theirs nothing varies."""
    states, rollouts = tables.states, tables.rollouts.copy()
    own = rollouts[(rollouts["states"] == "on-policy") & rollouts["is_repeating"].notna()]
    first, last = (set(own.loc[own["label"] == label, "prompt_index"]) for label in ("step 10", "step 20"))
    assert first - last
    alone = rollouts["prompt_index"].isin(first - last) & rollouts["is_repeating"].notna()
    rollouts.loc[alone, "is_repeating"] = True
    found = one(difference_table(states, rollouts), metric="repetition_rate", states="on-policy")
    reach = stats.wilson(0, len(first & last))[1]
    assert numbers(found) == pytest.approx([0.0, -reach, reach])
