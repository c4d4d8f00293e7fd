"""What is known of responses: of which sets there are rows, what they rest on, and what changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from student_intervals import within

from opd_diag.tables import METRIC_NAMES, assemble, concentration_table, measure
from opd_diag.tables.diversity import DIVERSITY, diversity_differences, diversity_rows, scale_of
from opd_diag.tables.repetition import REPETITION
from opd_diag.tables.responses import COVERAGE, OUTCOMES, RESPONSE_METRICS
from opd_diag.tables.rewards import REWARD_METRICS
from opd_diag.tables.stops import STOP_METRICS

from .made_up import a_run, rollout, scored
from .test_summary import naive_mean, numbers, one

SAME_RESPONSES = (*OUTCOMES, *DIVERSITY, *REPETITION)
"""What follows from the responses alone."""

ABOUT = {
    "on-policy": [m for m in RESPONSE_METRICS if m != COVERAGE],
    "teacher": [m for m in RESPONSE_METRICS if m != COVERAGE and m not in REWARD_METRICS],
}


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run(steps=(10, 20, 30), prompts=8, on_teacher=True, back=True)), k=8)


def states_of(tables, label, state_set):
    return tables.states[(tables.states["label"] == label) & (tables.states["states"] == state_set)]


def test_rows_of_own_and_of_the_teachers_responses_alone(tables):
    summary = tables.summary
    for label in ("step 10", "step 20", "step 30"):
        for state_set in ("on-policy", "start", "teacher", "back"):
            names = list(summary[(summary["label"] == label) & (summary["states"] == state_set)]["metric"])
            expected = [*METRIC_NAMES, *ABOUT.get(state_set, ())]
            assert names == expected, (label, state_set)
    for names, aggregation in (
        ((*DIVERSITY, *REWARD_METRICS), "pooled"),
        ((*OUTCOMES, *REPETITION), "rollout mean"),
        (STOP_METRICS, "state mean"),
    ):
        assert set(summary[summary["metric"].isin(names)]["aggregation"]) == {aggregation}
    assert summary[summary["metric"].isin(RESPONSE_METRICS)]["k"].isna().all()


def test_the_teachers_rows_are_the_same_for_every_checkpoint(tables):
    of = tables.summary[(tables.summary["states"] == "teacher") & tables.summary["metric"].isin(SAME_RESPONSES)]
    columns = ["metric", "value", "ci_low", "ci_high", "n_states", "n_rollouts", "n_prompts", "n_undefined"]
    first = of[of["label"] == "step 10"][columns].reset_index(drop=True)
    assert set(first["metric"]) == set(SAME_RESPONSES)
    told = first["metric"] != "compression_ratio"  # these rollouts have no text
    assert (first["value"].notna() == told).all()
    stopping = tables.summary[(tables.summary["states"] == "teacher") & tables.summary["metric"].isin(STOP_METRICS)]
    assert stopping.groupby("metric")["value"].nunique()["student_stop_probability_at_stops"] == 3
    for label in ("step 20", "step 30"):
        pd.testing.assert_frame_equal(of[of["label"] == label][columns].reset_index(drop=True), first)
    rollouts = tables.rollouts[(tables.rollouts["label"] == "step 30") & (tables.rollouts["states"] == "teacher")]
    row = one(of, label="step 30", metric="accuracy")
    assert numbers(row) == pytest.approx(
        within(naive_mean(rollouts["is_correct"].astype(float), rollouts["prompt_index"]))
    )
    assert row["value"] == pytest.approx(7 / 8)


def test_variety_is_compared_at_one_size_for_all_sets(tables):
    sets = [states_of(tables, f"step {s}", of) for s in (10, 20, 30) for of in ("on-policy", "teacher")]
    scale = scale_of(sets)
    assert min(scale.sizes.values()) > 0
    for label, state_set in (("step 20", "on-policy"), ("step 30", "teacher")):
        for expected in diversity_rows(states_of(tables, label, state_set), scale):
            row, estimate = (
                one(tables.summary, label=label, states=state_set, metric=expected["metric"]),
                expected["estimate"],
            )
            most = np.inf if expected["metric"] == "unigram_entropy" else 1.0
            assert tuple(numbers(row)) == within((estimate.value, estimate.ci_low, estimate.ci_high), high=most)
            assert (row["n_states"], row["n_undefined"]) == (estimate.n, estimate.n_undefined)
            assert row["n_states"] + row["n_undefined"] == len(states_of(tables, label, state_set))
            assert (row["n_rollouts"], row["n_prompts"]) == (expected["n_rollouts"], 8)


def test_differences_are_of_own_responses_but_for_stopping(tables):
    of = tables.differences[tables.differences["metric"].isin(RESPONSE_METRICS)]
    assert list(of[of["to_label"] == "step 30"][["states", "metric"]].itertuples(index=False, name=None)) == [
        *(("on-policy", metric) for metric in ABOUT["on-policy"]),
        *(("teacher", metric) for metric in STOP_METRICS),
    ]
    of = of[of["states"] == "on-policy"]
    scale = scale_of([states_of(tables, f"step {s}", of) for s in (10, 20, 30) for of in ("on-policy", "teacher")])
    pair = [states_of(tables, label, "on-policy") for label in ("step 10", "step 30")]
    for metric, estimate in diversity_differences(*pair, scale).items():
        row = one(of, to_label="step 30", metric=metric)
        assert numbers(row) == [estimate.value, estimate.ci_low, estimate.ci_high]
        values = [
            one(tables.summary, label=n, states="on-policy", metric=metric)["value"] for n in ("step 10", "step 30")
        ]
        assert row["value"] == pytest.approx(values[1] - values[0])
        assert row["n_prompts"] == 8
    assert set(tables.differences["states"]) == {"on-policy", "start", "teacher", "back"}


def test_one_dead_checkpoint_does_not_hide_the_others():
    """A student that stops at once has no n-grams: undefined and counted, while the others are compared as before."""
    parts = a_run(prompts=8, on_start=False)
    dead = scored([rollout(p, 0, 1, label="step 30") for p in range(8)], step=30, label="step 30")
    alive, with_dead = (assemble((s.pair for s in of), k=8) for of in (parts, [*parts, dead]))
    row = one(with_dead.summary, label="step 30", metric="distinct_bigram_ratio")
    assert np.isnan(row["value"])
    assert (row["n_states"], row["n_undefined"], row["n_rollouts"], row["n_prompts"]) == (0, 8, 0, 0)
    assert np.isnan(one(with_dead.differences, to_label="step 30", metric="distinct_bigram_ratio")["value"])
    for metric in DIVERSITY:
        before, after = (one(t.summary, label="step 20", metric=metric) for t in (alive, with_dead))
        assert before["value"] == after["value"]
        assert before["value"] > 0


def test_depth_and_concentration_know_all_four_sets(tables):
    sets = {"on-policy", "start", "teacher", "back"}
    for table in (tables.depth, tables.concentration):
        assert set(table["states"]) == sets
        assert {label: set(of["states"]) for label, of in table.groupby("label")} == {
            f"step {s}": sets for s in (10, 20, 30)
        }


def test_back_is_listed_under_the_checkpoint_whose_states_it_is_of():
    *_, back = a_run(back=True)
    for table in (measure(*back.pair, k=8), concentration_table(*back.pair)):
        assert set(table["label"]) == {"step 20"}
        assert set(table["step"]) == {20}
        assert set(table["states"]) == {"back"}
    assert measure(*back.pair)["sampled_reverse_kl"].isna().all(), "the first checkpoint did not sample these"
    del back.scores.provenance["checkpoint"]
    assert set(measure(*back.pair)["label"]) == {"step 10"}
