"""The split of a change on own states: against a chain where both terms can be enumerated, and its laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables import BY_NAME, METRIC_NAMES, assemble, difference_table, split_table
from opd_diag.tables.split import PARTS, SPLIT_COLUMNS

from .made_up import a_run, rollout, scored
from .tabular_chain import (
    EXACT_METRICS,
    FIRST,
    LATER,
    TEACHER,
    K,
    T,
    V,
    chain_table,
    counts_of,
    every_path,
    exact_mean,
    exact_split,
    sampled_paths,
    scored_chain,
    values_of,
)

UNDEFINED_ELSEWHERE = ["sampled_reverse_kl", "tail_sampled_reverse_kl", "near_zero_advantage_rate"]
"""They exist only on states that the scoring checkpoint sampled itself."""
HOTTER = FIRST**0.5 / (FIRST**0.5).sum(1, keepdims=True)
"""The first student's policy at temperature 2."""


def chain_run(first, later, own_of_first, own_of_later, *, back=False):
    """All state sets of two checkpoints, from the policies and the paths that each wrote."""
    parts = [
        scored_chain(first, own_of_first, step=0, states="on-policy"),
        scored_chain(first, own_of_first, step=0, states="start"),
        scored_chain(later, own_of_later, step=5, states="on-policy"),
        scored_chain(later, own_of_first, step=5, states="start"),
    ]
    if back:
        parts.append(scored_chain(first, own_of_later, step=0, states="back", listed_under=5))
    return assemble((s.pair for s in parts), k=K).split


def by_part(split):
    """Rows by (part, metric)."""
    table = split[split["orders"] == split["orders"].max()].set_index(["part", "metric"])
    assert table.index.is_unique
    return table


@pytest.fixture(scope="module")
def exact_paths():
    """Every trajectory of both students from each prompt, as often as is likely."""
    return [[[(start, *path) for path in every_path(p, start)] for start in range(V)] for p in (FIRST, LATER)]


@pytest.mark.parametrize("back", [False, True], ids=["one order", "both orders"])
def test_equals_the_enumerated_terms(exact_paths, back):
    table = by_part(chain_run(FIRST, LATER, *exact_paths, back=back))
    expected = exact_split(FIRST, LATER, both_orders=back)
    assert set(table.index.get_level_values("part")) == set(expected)
    for part, by_metric in expected.items():
        for metric, value in by_metric.items():
            assert table.loc[(part, metric), "value"] == pytest.approx(value, abs=1e-9), (part, metric)
    assert set(table["orders"]) == {2 if back else 1}
    alone = chain_run(FIRST, LATER, *exact_paths)
    split = chain_run(FIRST, LATER, *exact_paths, back=back)
    pd.testing.assert_frame_equal(split[split["orders"] == 1].reset_index(drop=True), alone)  # there in any case
    sizes = {part: np.abs(list(by_metric.values())).max() for part, by_metric in expected.items()}
    assert min(sizes.values()) > 0.01, "every part must be worth comparing"


def test_the_enumeration_itself_is_right():
    """By the chain's distribution over states instead of over paths, and one term by hand."""
    for student, visits in ((FIRST, LATER), (LATER, FIRST)):
        at, counts, total, size = np.full(V, 1 / V), counts_of(student), 0.0, 0.0
        for _ in range(T):
            total, size, at = total + at @ (counts * values_of(student)) / T, size + at @ counts / T, at @ visits
        assert exact_mean(student, visits) == pytest.approx(total / size, abs=1e-12)
    # A policy that repeats the prompt's last token visits one state: the mean over prompts is all that is left.
    expected = np.average(values_of(LATER), axis=0, weights=counts_of(LATER))
    assert exact_mean(LATER, np.eye(V)) == pytest.approx(expected)
    assert TEACHER.sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("back", [False, True], ids=["one order", "both orders"])
def test_sampled_rollouts_agree_within_their_intervals(back):
    rng = np.random.default_rng(5)
    starts = rng.permutation(np.arange(64) % V)
    own_of_first, own_of_later = (sampled_paths(p, starts, 8, rng) for p in (FIRST, LATER))
    table = by_part(chain_run(FIRST, LATER, own_of_first, own_of_later, back=back))
    inside = {}
    for part, by_metric in exact_split(FIRST, LATER, both_orders=back).items():
        for metric, value in by_metric.items():
            row = table.loc[(part, metric)]
            width = row["ci_high"] - row["ci_low"]
            inside[part, metric] = row["ci_low"] - 1e-12 <= value <= row["ci_high"] + 1e-12
            assert row["value"] == pytest.approx(value, abs=width + 1e-12), (part, metric)
            assert width < 0.3, (part, metric)
    for metric in ("reverse_kl", "forward_kl", "entropy_gap", "overlap_ratio"):
        assert inside["policy_change", metric], metric
        assert inside["state_change", metric], metric
    assert np.mean(list(inside.values())) > 0.9


def repeated(later, states_of_later, *, draws, seed):
    """Splits of many runs, each with prompts and rollouts of its own."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        starts = rng.integers(0, V, 32)
        own_of_first, own_of_later = (
            sampled_paths(FIRST, starts, 2, rng),
            sampled_paths(states_of_later, starts, 2, rng),
        )
        states = [
            chain_table(FIRST, own_of_first, step=0, states="start"),
            chain_table(later, own_of_later, step=5, states="on-policy"),
            chain_table(later, own_of_first, step=5, states="start"),
        ]
        yield split_table(pd.concat(states, ignore_index=True))


def test_intervals_of_both_changes_cover_as_often_as_they_say():
    expected, covered, draws = exact_split(FIRST, LATER), [], 300
    for split in repeated(LATER, LATER, draws=draws, seed=6):
        truth = [
            expected[part].get(metric, np.nan) for part, metric in zip(split["part"], split["metric"], strict=True)
        ]
        covered.append((split["ci_low"] <= truth) & (truth <= split["ci_high"]))
    rates = pd.concat(covered, axis=1).mean(axis=1).groupby([split["part"], split["metric"]], sort=False).first()
    for part in ("policy_change", "state_change"):
        for metric in ("reverse_kl", "forward_kl", "entropy_gap", "top1_agreement", "teacher_overlap_mass"):
            assert 0.91 <= rates[part, metric] <= 0.985, (part, metric, rates[part, metric])


def test_a_change_of_sampling_temperature_alone_leaves_policy_change_at_zero():
    """The same weights whose states were sampled hotter: all change is of states."""
    rng = np.random.default_rng(7)
    starts = np.arange(64) % V
    own_of_first, hotter = sampled_paths(FIRST, starts, 8, rng), sampled_paths(HOTTER, starts, 8, rng)
    table = by_part(chain_run(FIRST, FIRST, own_of_first, hotter))
    for metric in EXACT_METRICS:
        policy = table.loc[("policy_change", metric)]
        assert (policy["value"], policy["ci_low"], policy["ci_high"]) == (0.0, 0.0, 0.0), metric
        whole, state = table.loc[("on_policy_change", metric)], table.loc[("state_change", metric)]
        assert whole["value"] == state["value"], metric
    expected = exact_split(FIRST, FIRST, states_of_later=HOTTER)["state_change"]
    for metric in ("reverse_kl", "top1_agreement"):
        row = table.loc[("state_change", metric)]
        assert row["ci_low"] <= expected[metric] <= row["ci_high"], metric
        assert not row["ci_low"] <= 0 <= row["ci_high"], metric


def test_frozen_weights_leave_policy_change_at_zero_and_state_change_in_its_interval():
    rng = np.random.default_rng(8)
    starts = np.arange(64) % V
    table = by_part(chain_run(FIRST, FIRST, *(sampled_paths(FIRST, starts, 8, rng) for _ in range(2)), back=True))
    for metric in EXACT_METRICS:
        for part in ("policy_change", "order_difference"):
            row = table.loc[(part, metric)]
            assert (row["value"], row["ci_low"], row["ci_high"]) == (0.0, 0.0, 0.0), (part, metric)
        state = table.loc[("state_change", metric)]
        assert state["ci_low"] - 1e-9 <= 0 <= state["ci_high"] + 1e-9, metric
    assert abs(table.loc[("state_change", "reverse_kl"), "value"]) > 1e-4, "the samples must differ"


def test_state_change_of_frozen_weights_covers_zero_as_often_as_it_says():
    inside = []
    for split in repeated(FIRST, FIRST, draws=200, seed=9):
        rows = by_part(split)
        state = rows.loc["state_change"].loc[["reverse_kl", "forward_kl", "top1_agreement"]]
        inside.append((state["ci_low"] <= 0) & (state["ci_high"] >= 0))
        assert (rows.loc["policy_change"].loc[EXACT_METRICS][["value", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert (pd.concat(inside, axis=1).mean(axis=1).between(0.90, 0.99)).all()


@pytest.mark.parametrize("back", [False, True], ids=["one order", "both orders"])
def test_columns_rows_and_sums(back):
    split = assemble((s.pair for s in a_run(steps=(10, 20, 30), back=back)), k=8).split
    assert list(split.columns) == SPLIT_COLUMNS
    assert split["step"].dtype == split["from_step"].dtype == split["k"].dtype == "Int64"
    named = [(part, 1) for part in PARTS[:3]] + ([(part, 2) for part in PARTS] if back else [])
    expected = [(label, metric, *of) for label in ("step 20", "step 30") for metric in METRIC_NAMES for of in named]
    assert list(zip(split["label"], split["metric"], split["part"], split["orders"], strict=True)) == expected
    assert (split["from_step"] == 10).all()
    assert (split["from_label"] == "step 10").all()
    assert set(split["teacher"]) == {"big"}
    k_known = split[split["k"].notna()]
    assert set(k_known["metric"]) == {name for name in METRIC_NAMES if BY_NAME[name].depends_on_k}
    assert set(k_known["k"]) == {8}
    split = split[split["orders"] == split["orders"].max()]
    wide = split.pivot_table("value", ["label", "metric"], "part", dropna=False)
    whole, parts_together = wide["on_policy_change"], wide["policy_change"] + wide["state_change"]
    pd.testing.assert_series_equal(whole, parts_together, check_names=False, atol=1e-12)
    assert whole.notna().sum() == 2 * (len(METRIC_NAMES) - len(UNDEFINED_ELSEWHERE))
    assert (wide["policy_change"].abs() > 1e-3).any()


def test_both_orders_are_averaged():
    tables = assemble((s.pair for s in a_run(steps=(10, 20), back=True)), k=8)
    means = tables.summary.set_index(["label", "states", "metric"])["value"]
    for metric in ("reverse_kl", "entropy_gap", "overlap_ratio"):
        m0s0, mcs0 = means["step 10", "start", metric], means["step 20", "start", metric]
        mcsc, m0sc = means["step 20", "on-policy", metric], means["step 20", "back", metric]
        row = by_part(tables.split)["value"].xs(metric, level="metric")
        assert row["policy_change"] == pytest.approx(((mcs0 - m0s0) + (mcsc - m0sc)) / 2)
        assert row["state_change"] == pytest.approx(((mcsc - mcs0) + (m0sc - m0s0)) / 2)
        assert row["order_difference"] == pytest.approx((mcsc - m0sc) - (mcs0 - m0s0))
        assert abs(row["order_difference"]) > 1e-3


def test_parts_without_back_are_the_paired_differences():
    """Where every prompt is in every sample, the policy change is the difference at the start's states."""
    tables = assemble((s.pair for s in a_run(steps=(10, 20))), k=8)
    rows = by_part(tables.split)
    known = difference_table(tables.states, tables.rollouts).set_index(["states", "metric"])
    for metric in ("reverse_kl", "student_entropy", "teacher_overlap_mass"):
        for part, states in (("policy_change", "start"), ("on_policy_change", "on-policy")):
            ours, theirs = rows.loc[(part, metric)], known.loc[(states, metric)]
            for column in ("ci_low", "ci_high") if part == "policy_change" else ():
                assert ours[column] == pytest.approx(theirs[column]), (part, metric)
            assert ours["n_prompts"] == theirs["n_prompts"]
            assert ours["approximate"] == theirs["approximate"]
        assert rows.loc[("policy_change", metric), "value"] == pytest.approx(known.loc[("start", metric), "value"])


def test_intervals_of_few_prompts_are_marked_approximate():
    few = assemble((s.pair for s in a_run(steps=(10, 20))), k=8).split
    assert few["approximate"].dtype == bool
    assert few.loc[few["ci_low"].notna(), "approximate"].all()
    assert not few.loc[few["ci_low"].isna(), "approximate"].any()
    starts, rng = np.arange(64) % V, np.random.default_rng(11)
    many = by_part(chain_run(FIRST, LATER, *(sampled_paths(p, starts, 8, rng) for p in (FIRST, LATER))))
    assert not many["approximate"].xs("reverse_kl", level="metric").any()


def test_all_parts_rest_on_the_prompts_that_every_sample_defines():
    tables = assemble((s.pair for s in a_run(steps=(10, 20), back=True)), k=8)
    states = tables.states
    for state_set, label, prompt in (("start", "step 20", 1), ("back", "step 20", 3)):
        hole = (states["states"] == state_set) & (states["label"] == label) & (states["prompt_index"] == prompt)
        assert hole.any()
        states.loc[hole, "reverse_kl"] = np.nan
    rows = by_part(split_table(states)).xs("reverse_kl", level="metric")
    assert (rows["n_prompts"] == 4).all()
    assert rows["value"]["on_policy_change"] == pytest.approx(
        rows["value"]["policy_change"] + rows["value"]["state_change"], abs=1e-12
    )
    kept = states["prompt_index"].isin([0, 2, 4, 5])
    alone = by_part(split_table(states[kept])).xs("reverse_kl", level="metric")
    pd.testing.assert_frame_equal(rows, alone)
    others = by_part(split_table(states)).xs("forward_kl", level="metric")
    assert (others["n_prompts"] == 6).all()


def test_metrics_of_own_samples_cannot_be_split():
    split = assemble((s.pair for s in a_run(steps=(10, 20))), k=8).split
    rows = split[split["metric"].isin(UNDEFINED_ELSEWHERE)]
    assert len(rows) == 3 * len(UNDEFINED_ELSEWHERE)
    assert rows[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert (rows["n_prompts"] == 0).all()


@pytest.mark.parametrize(
    "parts",
    [
        a_run(steps=(10,)),
        a_run(steps=(10, 20), on_start=False),
        [s for s in a_run(steps=(10, 20)) if s.scores.provenance["states"] == "start"],
    ],
    ids=["one checkpoint", "no start", "no own states"],
)
def test_empty_without_what_it_needs(parts):
    split = assemble((s.pair for s in parts), k=8).split
    assert split.empty
    assert list(split.columns) == SPLIT_COLUMNS
    assert split["step"].dtype == "Int64"


def test_a_checkpoint_without_own_states_is_left_out_alone():
    parts = a_run(steps=(10, 20, 30))
    parts = [
        s for s in parts if (s.scores.provenance["student"]["step"], s.scores.provenance["states"]) != (20, "on-policy")
    ]
    assert set(assemble((s.pair for s in parts), k=8).split["step"]) == {30}


def test_unknown_steps_are_named_by_label():
    split = assemble((s.pair for s in a_run(steps=(None, None))), k=8).split
    assert split["step"].isna().all()
    assert set(split["label"]) == {"checkpoint 1"}
    assert set(split["from_label"]) == {"checkpoint 0"}


def test_one_prompt_has_values_and_no_interval():
    parts = [
        scored([rollout(0, 0, 3)], step=step, label=f"step {step}", states=states, seed=seed)
        for seed, (step, states) in enumerate([(0, "on-policy"), (0, "start"), (9, "on-policy"), (9, "start")])
    ]
    rows = by_part(assemble((s.pair for s in parts), k=8).split).xs("reverse_kl", level="metric")
    assert rows["value"].notna().all()
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None)
    assert (rows["n_prompts"] == 1).all()
