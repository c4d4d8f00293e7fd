"""What rows of several tables have in common."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES, WEIGHTS
from opd_diag.tables.rows import estimate_columns, few_drawn, groups_of, rollout_ids, rows_of, sample_of

TABLE = pd.DataFrame(
    {
        "label": ["b", "b", "a", "b"],
        "states": ["start", "on-policy", "start", "start"],
        "step": pd.array([pd.NA, pd.NA, 3, pd.NA], dtype="Int64"),
        "prompt_index": [0, 1, 0, 0],
        "rollout_index": [1, 0, 1, 2],
    }
)


def test_groups_keep_the_order_and_what_is_missing():
    found = list(groups_of(TABLE, ["step", "label", "states"]))
    assert [(keys["label"], keys["states"], len(rows)) for keys, rows in found] == [
        ("b", "start", 2), ("b", "on-policy", 1), ("a", "start", 1),
    ]  # fmt: skip
    assert pd.isna(found[0][0]["step"])


def test_rows_of_one_checkpoint_on_one_set():
    assert list(rows_of(TABLE, "b", "start").index) == [0, 3]
    assert rows_of(TABLE, "a", "teacher").empty


def test_rollouts_are_told_apart_by_both_numbers():
    assert len(np.unique(rollout_ids(TABLE))) == 3
    assert rollout_ids(TABLE)[0] == rollout_ids(TABLE)[2]
    assert len(rollout_ids(TABLE.iloc[:0])) == 0


def test_columns_of_an_estimate():
    found = estimate_columns(stats.clustered_mean([0.0, 1.0, 1.0, 2.0, 3.0, 5.0], range(6)))
    assert (found["value"], found["n_prompts"], found["n_effective"]) == (2.0, 6, pytest.approx(6))
    assert 0.1 < found["ci_low"] < 0.2 < 3.8 < found["ci_high"] < 3.9
    assert found["p_value"] == pytest.approx(0.04086, abs=1e-4)
    assert (found["approximate"], found["degrees_of_freedom"]) == (True, pytest.approx(5))


def test_only_ratios_of_sums_have_weights():
    table = pd.DataFrame(np.arange(2.0 * len(METRIC_NAMES)).reshape(2, -1), columns=list(METRIC_NAMES))
    values, prompts, weights = sample_of(table.assign(prompt_index=[3, 5], **{key: [0.25, 4.0] for key in WEIGHTS}))
    assert np.array_equal(values, table.to_numpy())
    assert prompts.tolist() == [3, 5]
    for i, name in enumerate(METRIC_NAMES):
        expected = [0.25, 4.0] if BY_NAME[name].weight else [1.0, 1.0]
        assert weights[:, i].tolist() == expected, name
    assert (weights == 1.0).mean() < 1


def test_an_estimate_rests_on_few_draws_where_hardly_any_lie_where_the_teacher_is_not_known():
    """Expected are as many as the student's probability there adds up to, over the states that have an estimate."""
    table = pd.DataFrame({"tail_sampled_reverse_kl": [0.1] * 99 + [np.nan], "unknown_mass": [0.21] * 99 + [5.0]})
    assert not few_drawn(table)
    assert few_drawn(table.head(95))
    assert few_drawn(table, table.head(10)), "of two, both must have enough"
