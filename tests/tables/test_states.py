"""One row a state, one row a rollout: columns, order, and every number against a computation in full."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from opd_diag.records.rollout import Provenance
from opd_diag.tables import METRIC_NAMES, measure, rollout_table
from opd_diag.tables.states import sampled_by_scorer

from .made_up import naive_gradient, naive_metrics, of_distributions, rollout, scored, weights_of

METRICS = [
    "overlap_ratio", "rank_biased_overlap", "top1_agreement", "student_overlap_mass", "teacher_overlap_mass",
    "student_topk_mass", "teacher_topk_mass", "student_overlap_mass_ratio", "teacher_overlap_mass_ratio",
    "teachable_mass", "entropy_gap", "entropy_difference", "student_entropy", "teacher_entropy", "reverse_kl",
    "forward_kl", "jensen_shannon", "common_mass", "bhattacharyya_coefficient", "topk_reverse_kl",
    "raw_topk_reverse_kl", "negative_topk_kl_rate", "thunlp_topk_reverse_kl", "verl_topk_forward_kl",
    "verl_negative_rate", "verl_clamped_rate", "trl_topk_reverse_kl", "trl_topk_forward_kl",
    "trl_topk_jensen_shannon", "trl_clamped_rate", "overlap_token_advantage", "thunlp_overlap_token_advantage",
    "verl_overlap_token_advantage", "probe_overlap_token_advantage", "shared_gradient_ratio",
    "student_only_gradient_ratio", "teacher_only_gradient_ratio", "other_gradient_ratio", "signal_to_noise",
    "sampled_reverse_kl", "tail_sampled_reverse_kl", "near_zero_advantage_rate",
]  # fmt: skip
STATE_COLUMNS = [
    "step", "label", "teacher", "states", "k", "prompt_index", "prompt_id", "group", "rollout_index", "position",
    "sampled_id", "gradient_squared_norm", "shared_tokens", "unknown_mass", *METRICS,
]  # fmt: skip
ROLLOUT_COLUMNS = [
    "step", "label", "teacher", "states", "k", "prompt_index", "prompt_id", "group", "rollout_index", "n_states",
    "stop_reason", "is_correct", "reward", "compression_ratio", "cycle_ratio", "cycle_start", "is_repeating", *METRICS,
]  # fmt: skip


@pytest.fixture
def made():
    return scored(
        [
            rollout(0, 0, 4, group="sums"),
            rollout(0, 1, 2, stop_reason="length", is_correct=True),
            rollout(5, 0, 3, generated=(True, False, True), is_correct=False, reward=0.25),
        ]
    )


def test_columns(made):
    assert list(METRIC_NAMES) == METRICS
    assert list(measure(*made.pair, k=4).columns) == STATE_COLUMNS
    assert list(rollout_table(measure(*made.pair, k=4), made.rollouts).columns) == ROLLOUT_COLUMNS


@pytest.mark.parametrize("k", [1, 4, 16, 32])
def test_every_metric_at_every_state(made, k):
    table = measure(*made.pair, k=k)
    kept = np.flatnonzero(~made.scores.terminal)
    assert len(table) == len(kept) == 8
    for row, state in zip(table.itertuples(), kept, strict=True):
        expected = naive_metrics(made.p[state], made.q[state], row.sampled_id, k)
        assert {name: getattr(row, name) for name in METRICS} == pytest.approx(expected, abs=2e-6, nan_ok=True)
    assert (table["k"] == k).all()


def test_rows_say_where_they_belong(made):
    table = measure(*made.pair, k=4)
    assert list(table["prompt_index"]) == [0] * 6 + [5] * 2
    assert list(table["prompt_id"]) == ["p0"] * 6 + ["p5"] * 2
    assert list(table["rollout_index"]) == [0] * 4 + [1] * 2 + [0] * 2
    assert list(table["position"]) == [0, 1, 2, 3, 0, 1, 0, 2]
    assert list(table["group"])[:4] == ["sums"] * 4
    assert table["group"].isna().tolist() == [False] * 4 + [True] * 4
    places = zip([0] * 4 + [1] * 2 + [2] * 2, table["position"], strict=True)
    tokens = [made.rollouts[row].response_ids[position] for row, position in places]
    assert list(table["sampled_id"]) == tokens
    assert set(table["step"]) == {10}
    assert table["step"].dtype == "Int64"
    assert [set(table[c]) for c in ("label", "teacher", "states")] == [{"step 10"}, {"big"}, {"on-policy"}]


def test_terminal_states_are_left_out_and_tokens_of_others_too(made):
    assert made.scores.terminal.sum() == 1
    assert len(measure(*made.pair)) == sum(len(r.state_positions) for r in made.rollouts) == len(made.scores) - 1


def test_step_may_be_unknown():
    made = scored([rollout()], step=None, label="final")
    table = measure(*made.pair)
    assert table["step"].isna().all()
    assert table["step"].dtype == "Int64"
    assert rollout_table(table, made.rollouts)["step"].isna().tolist() == [True]


@pytest.mark.parametrize("k", [0, -1, 33])
def test_k_outside_what_was_kept_is_refused(made, k):
    with pytest.raises(ValueError, match=f"1 to 32.*found {k}"):
        measure(*made.pair, k=k)


def test_k_is_bounded_by_a_small_vocabulary():
    made = scored([rollout(length=1)], vocabulary=8)
    assert (measure(*made.pair, k=8)["overlap_ratio"] == 1).all()
    with pytest.raises(ValueError, match="1 to 8"):
        measure(*made.pair, k=16)


def test_no_shared_token_is_undefined_and_not_perfect():
    states = torch.full((2, 40), -8.0)
    student, teacher = states.clone(), states.clone()
    student[0, :4], teacher[0, 4:8] = 0.0, 0.0
    student[1, :4], teacher[1, :4] = torch.arange(4.0), torch.arange(4.0)
    made = of_distributions(
        [rollout(length=2)], [(0, 0), (0, 1)], np.array([False, False]), student.log_softmax(-1),
        teacher.log_softmax(-1), [1, 1], step=1, label="step 10", states="on-policy",
    )  # fmt: skip
    table = measure(*made.pair, k=4)
    assert list(table["overlap_ratio"]) == [0, 1]
    assert table["student_overlap_mass"][0] == 0
    assert np.isnan(table["overlap_token_advantage"][0])
    assert table["overlap_token_advantage"][1] == pytest.approx(0, abs=1e-6)


def sampled(weights="step 10", key="", temperature=1.0, top_p=1.0):
    return Provenance("recorded", weights, key, None, temperature, top_p, None)


@pytest.mark.parametrize(
    ("source", "student", "exactness", "student_temperature", "own"),
    [
        pytest.param(sampled(), {}, "ids", 1.0, True, id="label"),
        pytest.param(sampled("step 20"), {}, "ids", 1.0, False, id="another label"),
        pytest.param(sampled("Qwen"), {"name": "Qwen", "label": ""}, "ids", 1.0, True, id="name without label"),
        pytest.param(sampled("step 10", "abc"), {"key": "abc"}, "ids", 1.0, True, id="label and key"),
        pytest.param(sampled("x", "abc"), {"key": "abc"}, "ids", 1.0, False, id="key of another label"),
        pytest.param(sampled("step 10", "abc"), {"key": "xyz"}, "ids", 1.0, False, id="label of another key"),
        pytest.param(sampled("step 10", "abc"), {"key": ""}, "ids", 1.0, True, id="no key of the student"),
        pytest.param(sampled("step 10", ""), {"key": "xyz"}, "ids", 1.0, True, id="no key of the rollout"),
        pytest.param(sampled(temperature=0.7), {}, "ids", 1.0, False, id="temperature"),
        pytest.param(sampled(temperature=float("nan")), {}, "ids", 1.0, False, id="unknown temperature"),
        pytest.param(sampled(top_p=0.9), {}, "ids", 1.0, False, id="top-p"),
        pytest.param(sampled("step 10", "abc", 0.0), {"key": "abc"}, "ids", 1.0, False, id="greedy"),
        pytest.param(sampled(), {}, "ids", 0.5, False, id="scored at another temperature"),
        pytest.param(sampled(), {}, "text-with-specials", 1.0, False, id="retokenised"),
    ],
)
def test_sampled_quantities_exist_only_where_the_scorer_sampled(source, student, exactness, student_temperature, own):
    mine = rollout(0, 0, 3, provenance=source, exactness=exactness)
    other = rollout(1, 0, 2, provenance=sampled("step 99", "other"))
    made = scored([mine, other], student=student, student_temperature=student_temperature)
    assert sampled_by_scorer(made.scores, mine) is own
    table = measure(*made.pair)
    of_the_sampled = ["sampled_reverse_kl", "tail_sampled_reverse_kl", "near_zero_advantage_rate"]
    for name in of_the_sampled:
        assert table[name].notna().tolist() == [own] * 3 + [False] * 2
    assert table[[m for m in METRICS if m not in of_the_sampled]].notna().all(axis=None)


def test_rollout_rows_are_means_over_their_defined_states(made):
    states = measure(*made.pair, k=8)
    states.loc[[1, 4, 5], "overlap_token_advantage"] = np.nan
    table = rollout_table(states, made.rollouts)
    assert list(table["n_states"]) == [4, 2, 2]
    for row, members in zip(table.itertuples(), ([0, 1, 2, 3], [4, 5], [6, 7]), strict=True):
        for name in METRICS:
            pairs = zip(states[name][members], weights_of(states, name)[members], strict=True)
            known = [(v, w) for v, w in pairs if not np.isnan(v)]
            expected = sum(v * w for v, w in known) / sum(w for _, w in known) if known else np.nan
            assert getattr(row, name) == pytest.approx(expected, nan_ok=True), name
    assert np.isnan(table["overlap_token_advantage"][1])


def test_rollout_rows_say_how_it_ended(made):
    table = rollout_table(measure(*made.pair), made.rollouts)
    assert list(table["stop_reason"]) == ["stop", "length", "stop"]
    assert [None if pd.isna(v) else bool(v) for v in table["is_correct"]] == [None, True, False]
    assert [None if pd.isna(v) else v for v in table["reward"]] == [None, None, 0.25]
    assert list(table["prompt_index"]) == [0, 0, 5]
    assert list(table["rollout_index"]) == [0, 1, 0]


def test_a_rollout_without_states_has_no_row():
    made = scored([rollout(0, 0, 0), rollout(1, 0, 2), rollout(2, 0, 1, generated=(False,))])
    table = rollout_table(measure(*made.pair), made.rollouts)
    assert list(table["prompt_index"]) == [1]


def test_two_rollouts_of_one_name_are_refused():
    made = scored([rollout(0, 0, 2), rollout(0, 1, 2)])
    twice = [made.rollouts[0], replace(made.rollouts[1], rollout_index=0)]
    with pytest.raises(pd.errors.MergeError):
        rollout_table(measure(made.scores, twice), twice)


def test_the_length_of_the_gradient_stands_beside_what_it_weighs(made):
    table = measure(*made.pair, k=4)
    kept = np.flatnonzero(~made.scores.terminal)
    expected = [naive_gradient(made.p[state], made.q[state]).sum() for state in kept]
    assert table["gradient_squared_norm"].to_numpy() == pytest.approx(expected, rel=1e-5)
    assert table["gradient_squared_norm"].dtype == np.float64
