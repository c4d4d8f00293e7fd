"""Averages over tokens, rollouts and prompts: by loops, and where they lead to different conclusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from student_intervals import within

from opd_diag.tables import BY_NAME, METRIC_NAMES, assemble, average_table, difference_table, measure, rollout_table
from opd_diag.tables.averages import AVERAGE_COLUMNS, AVERAGES

from .made_up import a_run, naive_mean, rollout, scored, weights_of

METRICS = ["reverse_kl", "overlap_ratio", "shared_gradient_ratio", "overlap_token_advantage"]


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run()), k=8)


def means_of(states, metric, by):
    """One mean, or ratio of sums, a group, with the group's prompt."""
    found = []
    for _, of in states.groupby(by):
        known, weights = of[metric].notna(), weights_of(of, metric)
        if known.any():
            total = (of[metric] * weights)[known].sum() / weights[known].sum()
            found.append((total, of["prompt_index"].iloc[0]))
    return zip(*found, strict=True)


def test_rows_and_columns(tables):
    table = tables.averages
    assert list(table.columns) == AVERAGE_COLUMNS
    assert table["step"].dtype == table["k"].dtype == "Int64"
    assert len(table) == 4 * len(METRIC_NAMES) * 3
    assert list(table["average"].unique()) == list(AVERAGES)
    pd.testing.assert_frame_equal(average_table(tables.states), table)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_to_loops(tables, metric):
    for (label, state_set), of in tables.states.groupby(["label", "states"]):
        rows = tables.averages[
            (tables.averages["label"] == label)
            & (tables.averages["states"] == state_set)
            & (tables.averages["metric"] == metric)
        ].set_index("average")
        expected = {
            "token": naive_mean(of[metric], of["prompt_index"], weights_of(of, metric)),
            "rollout": naive_mean(*means_of(of, metric, ["prompt_index", "rollout_index"])),
            "prompt": naive_mean(*means_of(of, metric, "prompt_index")),
        }
        bounds = BY_NAME[metric].low, BY_NAME[metric].high
        for average, numbers in expected.items():
            found = rows.loc[average, ["value", "ci_low", "ci_high"]].to_list()
            assert found == pytest.approx(within(numbers, *bounds), rel=1e-9), (label, state_set, average)
        assert len(set(rows["value"].round(9))) == 3, "lengths differ, so the averages do"
        assert (rows["n_states"] == of[metric].notna().sum()).all()
        assert (rows["n_prompts"] == 6).all()
        assert (rows["n_rollouts"] == 12).all()


def test_tokens_are_the_summary(tables):
    tokens = tables.averages[tables.averages["average"] == "token"].set_index(["label", "states", "metric"])
    summary = tables.summary.set_index(["label", "states", "metric"]).loc[tokens.index]
    for column in ("value", "ci_low", "ci_high", "n_states", "n_rollouts"):
        assert summary[column].to_numpy(float) == pytest.approx(tokens[column].to_numpy(float), nan_ok=True)


def test_undefined_rollouts_are_left_out():
    made = scored([rollout(p, i, 3) for p in range(6) for i in range(2)])
    states = measure(*made.pair, k=4)
    states.loc[states["prompt_index"] == 2, "reverse_kl"] = np.nan
    states.loc[:2, "reverse_kl"] = np.nan
    rows = average_table(states).set_index(["metric", "average"]).loc["reverse_kl"]
    assert list(rows["n_prompts"]) == [5, 5, 5]
    assert list(rows["n_rollouts"]) == [9, 9, 9]
    by_prompt = states.groupby("prompt_index")["reverse_kl"].mean()
    assert rows.loc["prompt", "value"] == pytest.approx(by_prompt.dropna().mean())


def depends_on(long_rise, short_rise):
    """Difference of a metric that changes otherwise in one long response of a prompt than in seven short ones."""
    lengths = {0: 40, **dict.fromkeys(range(1, 8), 2)}
    parts, states = [], []
    for step in (10, 20):
        made = scored([rollout(p, i, n) for p in range(8) for i, n in lengths.items()], step=step, label=f"step {step}")
        table = measure(*made.pair, k=4)
        rise = np.where(table["rollout_index"] == 0, long_rise, short_rise)
        table["reverse_kl"] = 1.0 + (rise if step == 20 else 0.0) + 0.01 * np.sin(7.0 * table["prompt_index"] * step)
        states.append(table)
        parts.append(rollout_table(table, made.rollouts))
    differences = difference_table(pd.concat(states, ignore_index=True), pd.concat(parts, ignore_index=True))
    return differences.set_index("metric").loc["reverse_kl"]


def test_a_conclusion_that_depends_on_the_average_is_marked():
    row = depends_on(long_rise=0.3, short_rise=-0.1)
    assert row["ci_low"] > 0
    assert bool(row["depends_on_average"])
    assert not depends_on(long_rise=0.3, short_rise=0.1)["depends_on_average"]


def test_what_is_not_known_does_not_depend(tables):
    table = tables.differences.set_index(["states", "metric"])
    assert pd.isna(table.loc[("start", "sampled_reverse_kl"), "depends_on_average"])
    assert pd.isna(table.loc[("on-policy", "response_length"), "depends_on_average"])
    assert table["depends_on_average"].dtype == "boolean"
