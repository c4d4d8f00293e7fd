"""Prompts one by one, and sets of them, from rollouts written by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from opd_diag.tables.prompts import (
    OF_STATES,
    PROMPT_COLUMNS,
    QUANTITIES,
    RELIABILITY_COLUMNS,
    SET_COLUMNS,
    compared_sets,
    prompt_table,
    prompt_values,
    reliability_table,
    set_table,
)


def rollout_rows(prompt, *, states="on-policy", right=(None, None), length=(4, 6), cut=(False, False), **values):
    """Give the rows of one prompt in the rollout table; every metric is .5 unless named."""
    rows = []
    for r in range(len(length)):
        row = {"states": states, "prompt_index": prompt, "prompt_id": f"p{prompt}", "group": "g", "rollout_index": r}
        row |= {name: values.get(name, (0.5, 0.5))[r] for name in OF_STATES}
        row |= {"n_states": length[r], "stop_reason": "length" if cut[r] else "stop", "is_correct": right[r]}
        rows.append(row | {"is_repeating": pd.NA})
    return rows


def rollouts(*rows):
    table = pd.DataFrame([row for of in rows for row in of])
    return table.astype({"is_correct": "boolean", "is_repeating": "boolean"})


BOTH = rollouts(
    rollout_rows(0, right=(True, False), reverse_kl=(0.1, 0.3), cut=(True, False)),
    rollout_rows(1, right=(False, False), reverse_kl=(1.0, 1.0), student_overlap_mass=(0.9, 0.7)),
    rollout_rows(0, states="teacher", right=(True, True)),
    rollout_rows(1, states="teacher", right=(True, False)),
)


class TestValues:
    def test_a_row_a_response_with_one_of_the_teachers_beside_it(self):
        values = prompt_values(BOTH)
        assert values["prompt_index"].tolist() == [0, 0, 1, 1]
        assert values["reverse_kl_of_response"].tolist() == pytest.approx([0.4, 1.8, 4.0, 6.0])
        assert values["truncation_rate"].tolist() == [1, 0, 0, 0]
        assert values["accuracy"].tolist() == [1, 0, 0, 0]
        assert values["teacher_lead"].tolist() == [0, 1, 1, 0]

    def test_without_the_teachers_responses_there_is_no_lead(self):
        values = prompt_values(BOTH[BOTH["states"] == "on-policy"])
        assert values["teacher_accuracy"].isna().all()
        assert values["teacher_lead"].isna().all()
        assert values["accuracy"].notna().all()

    def test_what_is_not_finite_is_undefined(self):
        assert prompt_values(rollouts(rollout_rows(0, reverse_kl=(math.inf, 1.0))))["reverse_kl"].isna().tolist() == [
            True,
            False,
        ]


class TestPrompts:
    def test_means_and_intervals_over_the_responses(self):
        table = prompt_table(prompt_values(BOTH))
        assert list(table.columns) == PROMPT_COLUMNS
        assert table["n_rollouts"].tolist() == [2, 2]
        assert table["reverse_kl"].tolist() == pytest.approx([0.2, 1.0])
        within = (0.1**2 * 2 + 0) / 2  # over two degrees of freedom
        half = scipy_stats.t.ppf(0.975, 2) * math.sqrt(within / 2)
        assert table["reverse_kl_ci_high"].tolist() == pytest.approx([0.2 + half, 1.0 + half])
        assert table["reverse_kl_ci_low"].tolist() == pytest.approx([0.0, 1.0 - half])  # a KL is never below 0
        assert table["teacher_lead"].tolist() == [0.5, 0.5]
        assert table["teacher_lead_ci_high"].tolist() == [1.0, 1.0]

    def test_one_response_has_no_interval(self):
        values = prompt_values(BOTH)
        table = prompt_table(values[values["rollout_index"] == 0])
        assert table[[f"{name}_ci_low" for name in QUANTITIES]].isna().all(axis=None)
        assert table["reverse_kl_shrunken"].tolist() == table["reverse_kl"].tolist()


def test_reliability_is_that_of_the_draws():
    rng = np.random.default_rng(0)
    true = rng.normal(0.5, 0.1, 400)
    rows = [
        rollout_rows(p, student_overlap_mass=tuple(true[p] + rng.normal(0, 0.2, 4)), length=(5, 5, 5, 5),
                     right=[None] * 4, cut=[False] * 4, **{m: [0.5] * 4 for m in OF_STATES[1:]})
        for p in range(400)
    ]  # fmt: skip
    table = reliability_table(prompt_values(rollouts(*rows))).set_index("quantity")
    assert [table.index.name, *table.columns] == RELIABILITY_COLUMNS
    assert table.loc["student_overlap_mass", "reliability"] == pytest.approx(0.01 / (0.01 + 0.04 / 4), abs=0.06)
    assert math.isnan(table.loc["reverse_kl", "reliability"])  # nothing varies
    assert table.loc["teacher_lead", "n_prompts"] == 0
    assert math.isnan(table.loc["teacher_lead", "mean"])
    assert table.loc["student_overlap_mass", "n_rollouts"] == 1600


class TestSets:
    @staticmethod
    def values(seed, shift=0.0, n=30, first=0):
        rng = np.random.default_rng(seed)
        level = np.random.default_rng(99).normal(2.0, 1.0, 200)
        rows = [
            rollout_rows(p, reverse_kl=tuple(np.abs(level[p] + shift + rng.normal(0, 0.05, 2))))
            for p in range(first, first + n)
        ]
        return prompt_values(rollouts(*rows))

    def test_prompt_by_prompt_what_prompts_share_drops_out(self):
        one, two = self.values(0), self.values(1, shift=0.1)
        paired, apart = (compared_sets(one, two, is_paired=of)["reverse_kl"][2] for of in (True, False))
        assert paired.value == apart.value == pytest.approx(0.1, abs=0.03)
        assert paired.ci_low > 0.05
        assert apart.ci_low < 0 < apart.ci_high
        assert (paired.n_clusters, apart.n_clusters) == (30, 60)

    def test_unpaired_is_welchs_difference_of_prompt_means(self):
        one, two = self.values(0, n=20), self.values(1, n=40, first=50)
        found = compared_sets(one, two, is_paired=False)["reverse_kl"][2]
        means = [of.groupby("prompt_id")["reverse_kl"].mean() for of in (one, two)]
        theirs = scipy_stats.ttest_ind(means[1], means[0], equal_var=False).confidence_interval()
        assert (found.ci_low, found.ci_high) == pytest.approx((theirs.low, theirs.high))

    def test_rows(self):
        table = set_table(compared_sets(self.values(0), self.values(1), is_paired=True), is_paired=True)
        assert list(table.columns) == SET_COLUMNS
        assert table["quantity"].tolist() == list(QUANTITIES)
        by = table.set_index("quantity")
        assert by.loc["truncation_rate", "first"] == 0
        assert by.loc["truncation_rate", "first_ci_high"] == pytest.approx(1.92073**2 / (1.92073**2 + 30), abs=0.02)
        assert by.loc["overlap_ratio", "value"] == 0
        assert math.isnan(by.loc["teacher_lead", "value"])
        assert by["n_first"].tolist() == [30] * 9 + [30, 0, 0, 0]
        assert by["is_paired"].all()

    def test_levels_stay_within_what_they_can_be(self):
        rows = [rollout_rows(p, teacher_overlap_mass=(1.0, 0.9 if p == 0 else 1.0)) for p in range(6)]
        one = prompt_values(rollouts(*rows))
        mean = compared_sets(one, one, is_paired=True)["teacher_overlap_mass"][0]
        assert mean.value < 1
        assert mean.ci_high == 1.0


class TestWhatFewPromptsLeaveOpen:
    """Where nothing changes, n prompts leave z²/(n + z²) open either way."""

    OPEN = 1.959964**2 / (6 + 1.959964**2)

    @staticmethod
    def solved(ours, theirs):
        right = {"on-policy": ours, "teacher": theirs}
        rows = [rollout_rows(p, states=of, right=(r, r)) for of, r in right.items() for p in range(6)]
        return prompt_values(rollouts(*rows))

    def test_a_lead_on_prompts_that_both_solve(self):
        both = self.solved(True, True)
        lead = compared_sets(both, both, is_paired=False)["teacher_lead"][0]
        assert (lead.value, lead.ci_low, lead.ci_high) == (0.0, pytest.approx(-self.OPEN), pytest.approx(self.OPEN))

    def test_a_lead_that_every_prompt_has(self):
        lead = compared_sets(self.solved(False, True), self.solved(False, True), is_paired=False)["teacher_lead"][0]
        assert (lead.value, lead.ci_high) == (1.0, 1.0)
        assert lead.ci_low < 0.75

    @pytest.mark.parametrize("name", ["accuracy", "teacher_accuracy", "teacher_lead", "truncation_rate"])
    def test_shares_that_no_prompt_changes(self, name):
        both = self.solved(True, True)
        found = compared_sets(both, both, is_paired=True)[name][2]
        assert (found.value, found.ci_low, found.ci_high) == (0.0, pytest.approx(-self.OPEN), pytest.approx(self.OPEN))

    def test_what_is_no_share_stays_as_it_is(self):
        both = self.solved(True, True)
        found = compared_sets(both, both, is_paired=True)["reverse_kl"][2]
        assert (found.value, found.ci_low, found.ci_high) == (0.0, 0.0, 0.0)
