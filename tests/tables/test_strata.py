"""Splits: the same means as of the rows alone, level by level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.tables import BY_NAME, METRIC_NAMES, assemble, strata_table, summarize
from opd_diag.tables.strata import MOST_GROUPS, NO_GROUP, STRATA_COLUMNS, strata_rows

from .made_up import rollout, scored
from .test_summary import numbers, one

OF_RESPONSES = (
    "truncation_rate", "response_length", "compression_ratio", "cycle_ratio", "repetition_rate",
    *(f"{model}_stop_probability_{end}" for end in ("at_stops", "after_answers", "at_truncation")
      for model in ("student", "teacher")),
)  # fmt: skip

LOOP = (9, 8, 7, *(4, 5) * 11)


def a_graded_run(prompts=12, group_of=lambda p: f"g{p % 3}"):
    """Two checkpoints; the second loops on every other prompt."""
    parts = []
    for step in (0, 10):
        label = f"step {step}"
        own = [
            rollout(
                p, i, 6, label=label, group=group_of(p),
                **({"response_ids": LOOP, "stop_reason": "length"} if step and p % 2 else {}),
                is_correct=None if p == 1 else (p + i) % 3 == 0,
            )
            for p in range(prompts) for i in (0, 1)
        ]  # fmt: skip
        start = own if step == 0 else parts[0].rollouts
        parts.append(scored(own, step=step, label=label, seed=step))
        parts.append(scored(start, step=step, label=label, states="start", seed=step + 1))
        parts.append(scored(start, step=step, label=label, states="teacher", seed=step + 2))
    return parts


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_graded_run()), k=4)


def levels_of(strata, **where):
    for column, value in where.items():
        strata = strata[strata[column] == value]
    return list(dict.fromkeys(strata["level"]))


def test_which_splits_there_are(tables):
    strata = tables.strata
    assert list(strata.columns) == STRATA_COLUMNS
    found = {key: list(dict.fromkeys(of["level"])) for key, of in strata.groupby(["label", "states", "by"], sort=False)}
    truth, groups = ["False", "True"], ["g0", "g1", "g2"]
    assert found == {
        **{(f"step {s}", of, "is_correct"): truth for s in (0, 10) for of in ("on-policy", "start", "teacher")},
        **{(f"step {s}", of, "group"): groups for s in (0, 10) for of in ("on-policy", "start", "teacher")},
        ("step 10", "on-policy", "in_cycle"): truth,
    }
    of_metrics = strata[strata["metric"].isin(METRIC_NAMES)]
    assert len(of_metrics) == len(METRIC_NAMES) * sum(map(len, found.values()))
    for (_, of, by), rows in strata.drop(of_metrics.index).groupby(["label", "states", "by"]):
        assert of in ("on-policy", "teacher")
        names = [*(("accuracy",) if by == "group" else ()), *OF_RESPONSES]
        assert [list(level["metric"]) for _, level in rows.groupby("level")] == [names] * len(levels_of(rows))
    assert set(strata.drop(of_metrics.index)["by"]) == {"is_correct", "group"}


def members(tables, row):
    """States of one level, found row by row."""
    states = tables.states[(tables.states["label"] == row.label) & (tables.states["states"] == row.states)]
    about = {(r.label, r.states, r.prompt_index, r.rollout_index): r for r in tables.rollouts.itertuples()}
    of = [about[(s.label, s.states, s.prompt_index, s.rollout_index)] for s in states.itertuples()]
    if row.by == "group":
        kept = [s.group == row.level for s in states.itertuples()]
    elif row.by == "is_correct":
        kept = [not pd.isna(r.is_correct) and str(bool(r.is_correct)) == row.level for r in of]
    else:
        inside = [
            not pd.isna(r.cycle_start) and s.position >= r.cycle_start
            for s, r in zip(states.itertuples(), of, strict=True)
        ]
        kept = [str(i) == row.level for i in inside]
    return states[np.array(kept)]


def test_rows_are_the_summary_of_their_states_alone(tables):
    of_metrics = tables.strata[tables.strata["metric"].isin(METRIC_NAMES)]
    for key, of in of_metrics.groupby(["label", "states", "by", "level"]):
        states = members(tables, next(of.itertuples()))
        alone = summarize(states)
        for row in of.itertuples():
            expected = one(alone, metric=row.metric)
            assert [row.value, row.ci_low, row.ci_high] == pytest.approx(numbers(expected), nan_ok=True), key
            for name in ("k", "aggregation", "n_states", "n_rollouts", "n_prompts", "n_undefined"):
                found = getattr(row, name)
                assert (pd.isna(found) and pd.isna(expected[name])) or found == expected[name], (key, name)
    assert set(tables.strata[tables.strata["aggregation"] == "ratio of sums"]["metric"]) == {
        m for m in METRIC_NAMES if BY_NAME[m].weight is not None
    }


def test_levels_share_out_the_states(tables):
    """Groups hold all states; whether a response is right, those that are graded; cycles, all again."""
    for (label, states_name, by), of in tables.strata[tables.strata["metric"] == "reverse_kl"].groupby(
        ["label", "states", "by"]
    ):
        whole = tables.states[(tables.states["label"] == label) & (tables.states["states"] == states_name)]
        if by == "is_correct":
            whole = whole[whole["prompt_index"] != 1]
        assert of["n_states"].sum() == len(whole)
        assert (of["n_states"] * of["value"]).sum() / len(whole) == pytest.approx(whole["reverse_kl"].mean())


def test_a_planted_difference_is_found_inside_the_loops(tables):
    """A distribution pair that agrees in loops and differs outside: KL without the repeated tokens is higher."""
    states = tables.states.copy()
    own = (states["label"] == "step 10") & (states["states"] == "on-policy") & (states["prompt_index"] % 2 == 1)
    looping = own & (states["position"] >= 3)
    states["reverse_kl"] = np.where(looping, 0.01, 1.0)
    strata = strata_table(states, tables.rollouts)
    inside, outside = (
        one(strata, label="step 10", by="in_cycle", level=level, metric="reverse_kl") for level in ("True", "False")
    )
    assert (inside["value"], outside["value"]) == (pytest.approx(0.01), pytest.approx(1.0))
    assert (inside["n_states"], inside["n_prompts"], inside["n_rollouts"]) == (22 * 12, 6, 12)


def test_no_interval_below_the_least_number_of_prompts(tables):
    of = tables.strata[(tables.strata["by"] == "group") & (tables.strata["metric"] == "reverse_kl")]
    assert (of["n_prompts"] == 4).all()
    assert stats.MIN_CLUSTERS > 4
    assert of["ci_low"].isna().all()
    assert of["value"].notna().all()
    graded = tables.strata[(tables.strata["by"] == "is_correct") & (tables.strata["metric"] == "reverse_kl")]
    assert graded["ci_low"].notna().all()


def test_one_level_is_no_split():
    tables = assemble((s.pair for s in a_graded_run(group_of=lambda p: "all")), k=4)
    assert "group" not in set(tables.strata["by"])
    tables = assemble((s.pair for s in a_graded_run(group_of=lambda p: None)), k=4)
    assert "group" not in set(tables.strata["by"])
    one_outcome = [rollout(p, 0, 4, is_correct=True) for p in range(6)]
    assert len(assemble([scored(one_outcome).pair], k=4).strata) == 0
    pd.testing.assert_frame_equal(
        assemble([scored(one_outcome).pair], k=4).strata, strata_rows(None), check_dtype=False
    )


def test_prompts_without_a_group_are_a_level():
    tables = assemble((s.pair for s in a_graded_run(group_of=lambda p: "sums" if p < 5 else None)), k=4)
    assert levels_of(tables.strata, by="group") == ["sums", NO_GROUP]


def test_many_groups_keep_the_largest_and_say_how_many_are_left():
    sizes = {f"g{i:02d}": 2 if i in (7, 30) else 1 for i in range(33)}
    groups = [name for name, size in sizes.items() for _ in range(size)]
    made = scored([rollout(p, 0, 3, group=group) for p, group in enumerate(groups)])
    tables = assemble([made.pair], k=4)
    kept = ["g07", "g30", *(f"g{i:02d}" for i in range(33) if i not in (7, 30))][:MOST_GROUPS]
    assert levels_of(tables.strata, by="group") == [*sorted(kept), "(13 other groups)"]
    of = tables.strata[(tables.strata["metric"] == "reverse_kl") & (tables.strata["by"] == "group")]
    assert of["n_prompts"].tolist() == [2 if level in ("g07", "g30") else 1 for level in sorted(kept)] + [13]


def test_rows_of_responses_are_the_summary_of_these_responses_alone(tables):
    """A run of the level's responses and no others has these numbers, the undefined ones counted."""
    of_responses = tables.strata[~tables.strata["metric"].isin(METRIC_NAMES)]
    checked = 0
    for key, of in of_responses.groupby(["label", "states", "by", "level"]):
        states = members(tables, next(of.itertuples()))
        keys = ["label", "states", "prompt_index", "rollout_index"]
        ids = set(states[keys].itertuples(index=False, name=None))
        rollouts, stops = (
            table[[row in ids for row in table[keys].itertuples(index=False, name=None)]]
            for table in (tables.rollouts, tables.stops)
        )
        alone = summarize(states, rollouts, None, stops)
        for row in of.itertuples():
            expected = one(alone, metric=row.metric)
            assert [row.value, row.ci_low, row.ci_high] == pytest.approx(numbers(expected), nan_ok=True), (key, row)
            for name in ("aggregation", "n_states", "n_rollouts", "n_prompts", "n_undefined"):
                assert getattr(row, name) == expected[name], (key, row.metric, name)
            checked += not np.isnan(row.value)
    assert checked > len(of_responses) / 2
    assert (of_responses["n_undefined"] > 0).any()
    assert of_responses["ci_low"].notna().any()


def test_longer_wrong_answers_are_seen():
    rollouts = [rollout(p, 0, 4 if p % 2 else 9, is_correct=p % 2 == 1, group="ab"[p % 2]) for p in range(20)]
    strata = assemble([scored(rollouts).pair], k=4).strata
    lengths = strata[strata["metric"] == "response_length"].set_index(["by", "level"])["value"]
    assert lengths.to_dict() == {
        ("is_correct", "False"): 9.0, ("is_correct", "True"): 4.0, ("group", "a"): 9.0, ("group", "b"): 4.0,
    }  # fmt: skip
    accuracy = strata[strata["metric"] == "accuracy"].set_index(["by", "level"])["value"]
    assert accuracy.to_dict() == {("group", "a"): 0.0, ("group", "b"): 1.0}


def test_a_stop_token_behind_a_loop_is_not_in_it():
    stopped = rollout(0, 0, response_ids=(*LOOP, 0), stop_reason="stop")
    cut = rollout(1, 0, response_ids=LOOP, stop_reason="length")
    tables = assemble([scored([stopped, cut]).pair], k=4)
    inside = one(tables.strata, by="in_cycle", level="True", metric="reverse_kl")
    assert inside["n_states"] == 2 * 22
    outside = one(tables.strata, by="in_cycle", level="False", metric="reverse_kl")
    assert outside["n_states"] == 3 + 3 + 1
