"""Metrics by depth on cohorts, survivors and entropies, of made-up states."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opd_diag.tables import METRIC_NAMES
from opd_diag.tables.horizon import SURVIVOR_COLUMNS, cohort_table, entropy_table, survivor_table


def states(lengths=(4, 4, 8, 8, 8, 8), label="step 0", step=0):
    """Every metric of a state is its position; short rollouts have 100 more."""
    rows = []
    for prompt, length in enumerate(lengths):
        for position in range(length):
            about = {"step": step, "label": label, "teacher": "big", "states": "on-policy", "k": 4}
            about |= {"prompt_index": prompt, "prompt_id": str(prompt), "group": None, "rollout_index": 0}
            about |= {
                "position": position,
                "sampled_id": 0,
                "gradient_squared_norm": 1.0,
                "shared_tokens": 2,
                "unknown_mass": 0.1,
            }
            rows.append(about | dict.fromkeys(METRIC_NAMES, position + 100.0 * (length < 8)))
    return pd.DataFrame(rows).astype({"step": "Int64"})


def test_survivors_by_depth():
    table = survivor_table(states(), [0, 3, 4, 7, 8])
    assert list(table.columns) == SURVIVOR_COLUMNS
    assert table["n_rollouts"].tolist() == [6, 6, 4, 4, 0]
    assert np.allclose(table["survivors"], [1, 1, 4 / 6, 4 / 6, 0])
    assert table["n_prompts"].tolist() == [6, 6, 4, 4, 0]


def test_the_cohort_has_the_same_rollouts_at_every_depth():
    table = cohort_table(states(), 8)
    rows = table[table["metric"] == "student_entropy"]
    assert set(rows["n_rollouts"]) == {4}
    assert rows["value"].tolist() == list(range(8))
    assert np.allclose(rows["survivors"], [1] * 4 + [4 / 6] * 4)
    assert set(table["metric"]) == set(METRIC_NAMES)


def test_entropies_are_of_all_that_get_there():
    """At token 0 two rollouts of 100 and four of 0."""
    table = entropy_table(pd.concat([states(), states((2, 2, 2), "step 9", 9)]))
    assert set(table["metric"]) == {"student_entropy", "teacher_entropy", "entropy_gap"}
    first = table[(table["metric"] == "teacher_entropy") & (table["label"] == "step 0")]
    assert first["n_prompts"].tolist() == [6] * 4 + [4] * 4
    assert first["value"].iloc[0] == 200 / 6
    assert list(table["label"].drop_duplicates()) == ["step 0", "step 9"]


def test_without_own_states_there_are_none():
    assert entropy_table(states().assign(states="teacher")).empty
