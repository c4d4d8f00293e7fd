"""One number a step with its interval, and the difference of two: against naive computations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from student_intervals import defined_clusters, influences_of, interval_of, within

from opd_diag import stats
from opd_diag.tables import (
    BY_NAME,
    CATALOGUE,
    METRIC_NAMES,
    assemble,
    difference_table,
    measure,
    rollout_table,
    summarize,
)

from .made_up import a_run, naive_mean, rollout, scored, weights_of

SUMMARY_COLUMNS = [
    "step", "label", "teacher", "states", "metric", "k", "aggregation", "value", "ci_low", "ci_high", "approximate",
    "band_low", "band_high", "bound_low", "bound_high", "n_states", "n_rollouts", "n_prompts", "n_undefined",
    "n_effective", "floor", "within_floor",
]  # fmt: skip
DIFFERENCE_COLUMNS = [
    "from_step", "from_label", "to_step", "to_label", "teacher", "states", "metric", "k", "value", "ci_low", "ci_high",
    "approximate", "bound_low", "bound_high", "p_value", "p_adjusted", "depends_on_average", "n_states", "n_prompts",
]  # fmt: skip
MODELS = ("student", "teacher")
OUTCOMES = ["accuracy", "truncation_rate", "response_length"]
DIVERSITY = ["distinct_bigram_ratio", "distinct_trigram_ratio", "unigram_entropy"]
OTHERS = ["top_advantage_share", "reward_auroc", "compression_ratio", "cycle_ratio", "repetition_rate"]
OTHERS += [f"{m}_stop_probability_{p}" for p in ("at_stops", "after_answers", "at_truncation") for m in MODELS]
RATIOS_OF_SUMS = {m.name for m in CATALOGUE if m.weight}
GRADIENT_RATIOS = [f"{kind}_gradient_ratio" for kind in ("shared", "student_only", "teacher_only", "other")]
K_METRICS = {m.name for m in CATALOGUE if m.depends_on_k}
ENDS = ["value", "ci_low", "ci_high"]


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run()), k=8)


def one(table, **where):
    rows = table
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, where
    return rows.iloc[0]


def numbers(row):
    return [float(row[name]) for name in ENDS]


def test_columns_and_rows(tables):
    summary = tables.summary
    assert list(summary.columns) == SUMMARY_COLUMNS
    expected = []
    for label in ("step 10", "step 20"):
        expected += [(label, "on-policy", m) for m in (*METRIC_NAMES, *OUTCOMES, *DIVERSITY, *OTHERS)]
        expected += [(label, "start", m) for m in METRIC_NAMES]
    assert list(zip(summary["label"], summary["states"], summary["metric"], strict=True)) == expected
    assert set(summary["teacher"]) == {"big"}
    assert summary["step"].dtype == summary["k"].dtype == "Int64"
    assert summary[["bound_low", "bound_high"]].isna().all(axis=None)


def test_values_and_intervals_are_clustered_by_prompt(tables):
    states = tables.states
    assert set(tables.summary.loc[tables.summary["aggregation"] == "ratio of sums", "metric"]) == RATIOS_OF_SUMS
    for row in tables.summary[tables.summary["aggregation"].isin(["token mean", "ratio of sums"])].itertuples():
        of = states[(states["label"] == row.label) & (states["states"] == row.states)]
        found = naive_mean(of[row.metric], of["prompt_index"], weights_of(of, row.metric))
        expected = within(found, BY_NAME[row.metric].low, BY_NAME[row.metric].high)
        assert [row.value, row.ci_low, row.ci_high] == pytest.approx(expected, rel=1e-9, nan_ok=True), row
        defined = of[of[row.metric].notna()]
        assert row.n_states == len(defined)
        assert row.n_undefined == len(of) - len(defined)
        assert row.n_prompts == defined["prompt_index"].nunique()
        assert row.n_rollouts == len(set(zip(defined["prompt_index"], defined["rollout_index"], strict=True)))


def test_sampled_quantity_is_undefined_and_counted_where_others_sampled(tables):
    own = one(tables.summary, label="step 20", states="on-policy", metric="sampled_reverse_kl")
    assert own["n_undefined"] == 0
    assert np.isfinite(own["value"])
    moved = one(tables.summary, label="step 20", states="start", metric="sampled_reverse_kl")
    assert np.isnan(moved["value"])
    assert (moved["n_states"], moved["n_rollouts"], moved["n_prompts"]) == (0, 0, 0)
    assert moved["n_undefined"] == one(tables.summary, label="step 20", states="start", metric="reverse_kl")["n_states"]
    first = one(tables.summary, label="step 10", states="start", metric="sampled_reverse_kl")
    assert first["n_undefined"] == 0, "the first checkpoint sampled the start's rollouts itself"


def test_undefined_states_are_counted():
    made = scored([rollout(p, 0, 3) for p in range(6)])
    states = measure(*made.pair, k=4)
    states.loc[[0, 1, 2, 7], "overlap_token_advantage"] = np.nan
    row = one(summarize(states), metric="overlap_token_advantage")
    assert (row["n_states"], row["n_undefined"], row["n_prompts"], row["n_rollouts"]) == (14, 4, 5, 5)
    expected = naive_mean(states["overlap_token_advantage"], states["prompt_index"])
    assert numbers(row) == pytest.approx(within(expected, -np.inf, 0.0))


def test_k_stands_where_it_matters(tables):
    for row in tables.summary.itertuples():
        assert (row.k == 8) if row.metric in K_METRICS else pd.isna(row.k), row.metric


def test_outcomes_are_means_over_rollouts(tables):
    rollouts = tables.rollouts
    of = rollouts[(rollouts["label"] == "step 20") & (rollouts["states"] == "on-policy")]
    assert len(of) == 12
    for metric, values in {
        "accuracy": of["is_correct"].astype(float),
        "truncation_rate": (of["stop_reason"] == "length").astype(float),
        "response_length": of["n_states"].astype(float),
    }.items():
        row = one(tables.summary, label="step 20", metric=metric)
        most = np.inf if metric == "response_length" else 1.0
        assert numbers(row) == pytest.approx(within(naive_mean(values, of["prompt_index"]), high=most))
        assert row["aggregation"] == "rollout mean"
        assert (row["n_rollouts"], row["n_prompts"], row["n_undefined"]) == (12, 6, 0)
        assert row["n_states"] == of["n_states"].sum()
    assert 0 < one(tables.summary, label="step 20", metric="truncation_rate")["value"] < 1


def test_outcomes_exist_on_own_states_alone(tables):
    outcomes = tables.summary[tables.summary["metric"].isin(OUTCOMES)]
    assert set(outcomes["states"]) == {"on-policy"}
    assert set(summarize(tables.states)["metric"]) == set(METRIC_NAMES)


def test_unknown_outcomes_are_undefined_and_counted():
    rollouts = [
        rollout(0, 0, 2, stop_reason="unknown", is_correct=True),
        rollout(1, 0, 3, stop_reason="length"),
        rollout(2, 0, 1, is_correct=False),
    ]
    made = scored(rollouts)
    states = measure(*made.pair)
    summary = summarize(states, rollout_table(states, rollouts))
    accuracy, cut = one(summary, metric="accuracy"), one(summary, metric="truncation_rate")
    assert (accuracy["value"], accuracy["n_rollouts"], accuracy["n_undefined"], accuracy["n_states"]) == (0.5, 2, 1, 3)
    assert (cut["value"], cut["n_rollouts"], cut["n_undefined"], cut["n_states"]) == (0.5, 2, 1, 4)
    without = scored([rollout(0, 0, 2)])
    states = measure(*without.pair)
    row = one(summarize(states, rollout_table(states, without.rollouts)), metric="accuracy")
    assert np.isnan(row["value"])
    assert (row["n_rollouts"], row["n_undefined"]) == (0, 1)


def test_one_prompt_has_a_value_and_no_interval():
    made = scored([rollout(3, 0, 4), rollout(3, 1, 2)])
    summary = summarize(measure(*made.pair))
    row = one(summary, metric="reverse_kl")
    assert row["value"] > 0
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert (row["n_states"], row["n_rollouts"], row["n_prompts"]) == (6, 2, 1)


def test_unknown_steps_keep_the_order_of_the_checkpoints():
    parts = a_run(steps=(None, None, None))
    for part, label in zip(parts[::2], ("zeta", "alpha", "mid"), strict=True):
        part.scores.provenance["student"]["label"] = label
    for part, label in zip(parts[1::2], ("zeta", "alpha", "mid"), strict=True):
        part.scores.provenance["student"]["label"] = label
    tables = assemble((s.pair for s in parts), k=4)
    for table in (tables.states, tables.rollouts, tables.summary, tables.concentration):
        assert list(dict.fromkeys(table["label"])) == ["zeta", "alpha", "mid"]
        assert table["step"].isna().all()
        assert table["step"].dtype == "Int64"
    assert list(dict.fromkeys(tables.differences["to_label"])) == ["alpha", "mid"]
    assert set(tables.differences["from_label"]) == {"zeta"}
    depth = tables.depth[(tables.depth["states"] == "start") & (tables.depth["metric"] == "reverse_kl")]
    assert list(dict.fromkeys(depth["label"])) == ["zeta", "alpha", "mid"]


def naive_difference(first, first_clusters, second, second_clusters, first_weights=None, second_weights=None):
    """Later minus earlier over the clusters that both have, with the paired interval."""
    sides = [
        (list(first), list(first_clusters), first_weights),
        (list(second), list(second_clusters), second_weights),
    ]
    shared = sorted(set.intersection(*(set(defined_clusters(v, c)) for v, c, _ in sides)))
    if not shared:
        return np.nan, np.nan, np.nan
    (mean1, moved1, shares1), (mean2, moved2, shares2) = (influences_of(v, c, shared, w) for v, c, w in sides)
    return interval_of(mean2 - mean1, moved2 - moved1, (shares1 + shares2) / 2)


def test_differences_are_paired_by_prompt(tables):
    table = tables.differences
    assert list(table.columns) == DIFFERENCE_COLUMNS
    assert len(table) == 2 * len(METRIC_NAMES) + len(OUTCOMES) + len(DIVERSITY) + len(OTHERS)
    states = tables.states
    for row in table[table["metric"].isin(METRIC_NAMES)].itertuples():
        assert (row.from_step, row.from_label, row.to_step, row.to_label) == (10, "step 10", 20, "step 20")
        first, second = (
            states[(states["label"] == n) & (states["states"] == row.states)] for n in ("step 10", "step 20")
        )
        expected = naive_difference(
            first[row.metric], first["prompt_index"], second[row.metric], second["prompt_index"],
            weights_of(first, row.metric), weights_of(second, row.metric),
        )  # fmt: skip
        assert [row.value, row.ci_low, row.ci_high] == pytest.approx(expected, rel=1e-9, nan_ok=True), row.metric
        assert (row.k == 8) if row.metric in K_METRICS else pd.isna(row.k)
    own = one(table, metric="reverse_kl", states="on-policy")
    values = [
        one(tables.summary, label=n, states="on-policy", metric="reverse_kl")["value"] for n in ("step 10", "step 20")
    ]
    assert own["value"] == pytest.approx(values[1] - values[0])
    assert own["n_prompts"] == 6


def test_differences_of_outcomes(tables):
    rows = tables.differences[tables.differences["metric"].isin(OUTCOMES)]
    assert set(rows["states"]) == {"on-policy"}
    of = tables.rollouts[tables.rollouts["states"] == "on-policy"]
    first, second = (of[of["label"] == label] for label in ("step 10", "step 20"))
    expected = naive_difference(
        (first["stop_reason"] == "length").astype(float), first["prompt_index"],
        (second["stop_reason"] == "length").astype(float), second["prompt_index"],
    )  # fmt: skip
    assert numbers(one(rows, metric="truncation_rate")) == pytest.approx(expected)


def test_any_pair_can_be_compared_and_unknown_ones_are_named():
    tables = assemble((s.pair for s in a_run(steps=(10, 20, 30), on_start=False)), k=4)
    assert list(dict.fromkeys(tables.differences["to_label"])) == ["step 20", "step 30"]
    chosen = difference_table(tables.states, tables.rollouts, [("step 30", "step 20")])
    assert set(chosen["from_step"]) == {30}
    back = one(chosen, metric="reverse_kl")["value"]
    forth = one(difference_table(tables.states, tables.rollouts, [("step 20", "step 30")]), metric="reverse_kl")[
        "value"
    ]
    assert back == pytest.approx(-forth)
    assert back != 0
    with pytest.raises(ValueError, match="No checkpoint step 40; there are step 10, step 20, step 30"):
        difference_table(tables.states, tables.rollouts, [("step 10", "step 40")])


def test_one_checkpoint_has_no_difference():
    tables = assemble((s.pair for s in a_run(steps=(10,))), k=4)
    assert tables.differences.empty
    assert list(tables.differences.columns) == DIFFERENCE_COLUMNS
    assert len(tables.summary) > 0


def test_states_without_a_gradient_weigh_nothing_and_are_counted():
    """One state in each prompt has no share; its weight must not enter the sums, whatever it is."""
    made = scored([rollout(p, 0, 3) for p in range(6)])
    states = measure(*made.pair, k=4)
    plain = one(summarize(states.drop(index=[0, 3, 6, 9])), metric="shared_gradient_ratio")
    states.loc[[0, 3, 6, 9], GRADIENT_RATIOS] = np.nan
    states.loc[[0, 3, 6], "gradient_squared_norm"] = [np.nan, 0.0, 1e6]
    row = one(summarize(states), metric="shared_gradient_ratio")
    assert numbers(row) == pytest.approx(numbers(plain))
    assert (row["n_states"], row["n_undefined"], row["n_prompts"]) == (14, 4, 6)
    shares = [one(summarize(states), metric=name)["value"] for name in GRADIENT_RATIOS]
    assert sum(shares) == pytest.approx(1.0)


def test_how_sure_a_value_is_stands_beside_it(tables):
    states = tables.states
    of = states[(states["label"] == "step 20") & (states["states"] == "start")]
    expected = stats.clustered_mean(of["reverse_kl"].to_numpy(), of["prompt_index"].to_numpy())
    row = one(tables.summary, label="step 20", states="start", metric="reverse_kl")
    assert row["n_effective"] == pytest.approx(expected.n_effective)
    assert bool(row["approximate"]) is expected.is_approximate is True
    assert tables.summary["approximate"].dtype == bool


def test_p_values_are_adjusted_over_primary_metrics_and_state_sets():
    tables = assemble((s.pair for s in a_run(steps=(10, 20, 30), prompts=8)), k=8)
    primary = {m.name for m in CATALOGUE if m.primary}
    assert len(primary) > 3
    table = tables.differences
    assert set(table.loc[table["p_adjusted"].notna(), "metric"]) == primary
    for _, of in table[table["metric"].isin(primary)].groupby(["from_label", "to_label"]):
        assert set(of["states"]) == {"on-policy", "start"}
        assert of["p_adjusted"].to_numpy() == pytest.approx(stats.holm(of["p_value"]))
        assert (of["p_adjusted"] > of["p_value"]).any()
    outside = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    known = table["p_value"].notna()
    assert ((table["p_value"] < 0.05) == outside)[known].all()
    own = table[(table["metric"] == "reverse_kl") & (table["states"] == "on-policy")]
    assert list(own["n_states"]) == [56, 56]
    assert table.loc[table["metric"] == "response_length", "n_states"].isna().all()
