"""Correct responses by prompt, pass@k, prompts that change sides and the recovered lead, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.tables.outcomes import (
    ATTEMPT_COLUMNS,
    ITEM_COLUMNS,
    PASS_COLUMNS,
    attempt_table,
    gap_recovery,
    item_table,
    most_tries,
    on_shared_prompts,
    pass_difference,
    pass_table,
    tries,
)


def rollouts(label, step, *prompts):
    """Give responses: of each prompt a text of 1 (correct), 0 (wrong) and ? (cannot be told)."""
    source = Provenance("sampled", label, "", step, 1.0, 1.0, 0)
    right = {"1": True, "0": False, "?": None}
    return [
        Rollout(p, r, f"prompt {p}", "odd" if p % 2 else None, (1,), (1,), (2,), "stop", source, is_correct=right[mark])
        for p, marks in enumerate(prompts)
        for r, mark in enumerate(marks)
    ]


def attempts(**marks):
    steps = {"first": 0, "last": 40, "teacher": None}
    return attempt_table({label: rollouts(label, steps[label], *of) for label, of in marks.items()})


class TestAttempts:
    def test_counts(self):
        table = attempts(first=["110", "?1", "??"], teacher=["1"])
        assert list(table.columns) == ATTEMPT_COLUMNS
        assert table[["label", "prompt_index", "n_correct", "n_rollouts"]].values.tolist() == [
            ["first", 0, 2, 3],
            ["first", 1, 1, 1],
            ["teacher", 0, 1, 1],
        ]
        assert table["step"].tolist() == [0, 0, pd.NA]
        assert table["group"].fillna("none").tolist() == ["none", "odd", "none"]

    def test_of_none(self):
        table = attempts(first=["??"])
        assert table.empty
        assert most_tries(table) == 0
        assert pass_table(table).empty


class TestPass:
    def test_the_mean_over_prompts_of_the_unbiased_estimate(self):
        table = pass_table(attempts(first=["1100", "0000", "1111"], last=["1000", "1000", "1000"]))
        assert list(table.columns) == PASS_COLUMNS
        at_2 = (1 - math.comb(2, 2) / math.comb(4, 2) + 0 + 1) / 3
        values = {(row.label, row.k): row.value for row in table.itertuples()}
        assert values == pytest.approx(
            {
                ("first", 1): 0.5,
                ("first", 2): at_2,
                ("first", 4): 2 / 3,
                ("last", 1): 0.25,
                ("last", 2): 0.5,
                ("last", 4): 1.0,
            }
        )
        assert table["n_rollouts"].tolist() == [12] * 6

    def test_only_as_many_tries_as_every_prompt_has(self):
        assert pass_table(attempts(first=["110", "1"]))["k"].tolist() == [1]

    def test_intervals_stay_in_range_and_all_correct_leaves_something_open(self):
        table = pass_table(attempts(first=["11"] * 8))
        assert table["value"].tolist() == [1.0, 1.0]
        assert (table["ci_high"] == 1.0).all()
        assert table["ci_low"].tolist() == pytest.approx([1 - 3.8415 / (8 + 3.8415)] * 2, abs=1e-3)

    def test_too_few_prompts_have_no_interval(self):
        table = pass_table(attempts(first=["10", "11", "00"]))
        assert table["value"].tolist() == pytest.approx([0.5, 2 / 3])
        assert table[["ci_low", "ci_high"]].isna().all(axis=None)

    def test_the_difference_is_paired_by_prompt(self):
        table = attempts(first=["10", "00", "11", "00", "10"], last=["11", "10", "11", "00", "11"])
        found = pass_difference(table, "first", "last", 1)
        differences = np.array([0.5, 0.5, 0.0, 0.0, 0.5])
        assert found.value == pytest.approx(differences.mean())
        assert found.standard_error == pytest.approx(differences.std(ddof=1) / math.sqrt(5))

    def test_prompts_that_all_have(self):
        table = attempts(first=["1", "?", "0", "1"], last=["?", "1", "1", "0"], teacher=["1", "1", "1", "?"])
        assert on_shared_prompts(table, ("first", "last"))["prompt_index"].tolist() == [2, 3, 2, 3]
        assert on_shared_prompts(table, ("first", "last", "teacher"))["prompt_index"].tolist() == [2, 2, 2]
        assert on_shared_prompts(table, ("first", "nobody")).empty

    @pytest.mark.parametrize(("most", "ks"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
    def test_tries(self, most, ks):
        assert tries(most) == ks


class TestItems:
    def test_who_changes_sides(self):
        table = item_table(attempts(first=["11", "10", "00", "00"], last=["11", "00", "10", "00"]), "first", "last")
        assert list(table.columns) == ITEM_COLUMNS
        assert table["outcome"].tolist() == ["kept", "forgotten", "solved", "unsolved"]
        assert table[["first_correct", "first_rollouts", "last_correct", "last_rollouts"]].values.tolist() == [
            [2, 2, 2, 2],
            [1, 2, 0, 2],
            [0, 2, 1, 2],
            [0, 2, 0, 2],
        ]

    def test_only_prompts_that_both_have(self):
        table = item_table(attempts(first=["1", "?", "0"], last=["1", "1"]), "first", "last")
        assert table["prompt_index"].tolist() == [0]

    def test_a_change_beyond_chance(self):
        table = item_table(attempts(first=["1" * 8, "1" * 8], last=["0" * 8, "1" * 8]), "first", "last")
        assert table["p_adjusted"].tolist() == pytest.approx([2 / math.comb(16, 8) * 2, 1.0])


class TestRecovery:
    def test_the_share_of_the_lead(self):
        table = attempts(first=["00", "10"], last=["10", "10"], teacher=["11", "11"])
        assert gap_recovery(table, "first", "last", "teacher").value == pytest.approx((0.5 - 0.25) / (1.0 - 0.25))

    def test_its_interval_is_the_jackknife_over_prompts(self):
        marks = {"first": ["00", "10", "00", "10", "00", "11"], "last": ["10", "10", "11", "11", "00", "11"]}
        table = attempts(**marks, teacher=["11", "11", "11", "10", "11", "11"])
        shares = np.array(
            [[m.count("1") / 2 for m in of] for of in (*marks.values(), ["11", "11", "11", "10", "11", "11"])]
        )
        left_out = []
        for i in range(6):
            a, b, c = np.delete(shares, i, axis=1).mean(axis=1)
            left_out.append((b - a) / (c - a))
        found = gap_recovery(table, "first", "last", "teacher")
        assert found.standard_error == pytest.approx(np.std(left_out) * math.sqrt(5))

    def test_no_lead_is_undefined(self):
        found = gap_recovery(attempts(first=["1"], last=["1"], teacher=["1"]), "first", "last", "teacher")
        assert math.isnan(found.value)
