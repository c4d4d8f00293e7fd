"""The rules on outcomes: true by construction where responses are drawn so, unknown where there are too few."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.outcomes import ATTEMPT_COLUMNS, item_table
from opd_diag.verdicts.outcomes import forgetting, gap_recovered, pass_at_k
from opd_diag.verdicts.thresholds import DEFAULTS


def drawn(n=8, seed=0, **p):
    """Give attempts with so many of `n` responses correct as each prompt's probability says."""
    rng, rows = np.random.default_rng(seed), []
    for label, of in p.items():
        for prompt, right in enumerate(rng.binomial(n, of)):
            rows.append((label, 0, prompt, str(prompt), None, int(right), n))
    return pd.DataFrame(rows, columns=ATTEMPT_COLUMNS)


HALF, MOST, NONE = np.full(80, 0.5), np.full(80, 0.95), np.zeros(80)
MIXED = np.linspace(0.05, 0.95, 80)


def of_items(attempts):
    return forgetting(item_table(attempts, "first", "last"), "first", "last", DEFAULTS)


class TestPassAtK:
    def test_better(self):
        verdict = pass_at_k(drawn(first=NONE, last=HALF), "first", "last", DEFAULTS)
        assert verdict.status == "pass"
        assert verdict.question == "Does it still solve, with 8 tries, what it solved before?"
        assert verdict.value == pytest.approx(1 - 0.5**8, abs=0.03)
        assert verdict.evidence.startswith("pass@8 0.00 at first, ")

    def test_lost(self):
        half_lost = np.where(np.arange(80) % 2, HALF, NONE)
        verdict = pass_at_k(drawn(first=HALF, last=half_lost), "first", "last", DEFAULTS)
        assert (verdict.status, verdict.ci_high < 0) == ("fail", True)

    def test_surer_and_not_abler_is_kept(self):
        verdict = pass_at_k(drawn(first=np.full(80, 0.6), last=MOST), "first", "last", DEFAULTS)
        assert verdict.status == "pass"

    def test_too_few_prompts(self):
        verdict = pass_at_k(drawn(n=1, first=MIXED[:8], last=MIXED[:8]), "first", "last", DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.question == "Does it still solve, with 1 try, what it solved before?"

    @pytest.mark.parametrize(("prompts", "status"), [(5, "unknown"), (20, "unknown"), (80, "pass")])
    def test_few_prompts_that_stay_as_they_are_leave_a_loss_open(self, prompts, status):
        p = np.arange(prompts) % 2
        verdict = pass_at_k(drawn(first=p, last=p), "first", "last", DEFAULTS)
        assert verdict.status == status
        assert verdict.ci_high == -verdict.ci_low == pytest.approx(3.8415 / (prompts + 3.8415), abs=1e-4)

    @pytest.mark.parametrize("prompts", [5, 10, 20, 40])
    def test_what_a_tenth_of_the_prompts_lose_is_hardly_ever_passed(self, prompts):
        passed = 0
        for seed in range(60):
            first = np.ones(prompts)
            last = (np.random.default_rng(seed).random(prompts) > 0.1).astype(float)
            passed += pass_at_k(drawn(n=1, first=first, last=last), "first", "last", DEFAULTS).status == "pass"
        assert passed <= 60 * 0.05

    def test_only_prompts_that_both_have_are_told(self):
        table = drawn(first=np.repeat([0.0, 1.0], 20), last=np.repeat([0.0, 1.0], 20))
        table = table[(table["label"] == "first") | (table["prompt_index"] >= 20)]
        verdict = pass_at_k(table, "first", "last", DEFAULTS)
        assert verdict.evidence.startswith("pass@8 1.00 at first, 1.00 at last; difference 0.00 [")
        assert verdict.evidence.endswith("], 20 prompts.")

    def test_as_many_tries_as_these_two_have(self):
        table = drawn(first=MIXED, last=MIXED, between=MIXED)
        table.loc[table["label"] == "between", ["n_correct", "n_rollouts"]] = 1
        assert pass_at_k(table, "first", "last", DEFAULTS).evidence.startswith("pass@8 ")

    def test_three_prompts_have_no_interval(self):
        verdict = pass_at_k(drawn(first=MIXED[:3], last=MIXED[:3]), "first", "last", DEFAULTS)
        assert verdict.status == "unknown"
        assert math.isnan(verdict.ci_low)


class TestForgetting:
    def test_more_forgotten_than_solved(self):
        verdict = of_items(drawn(first=np.full(80, 0.7), last=np.full(80, 0.3)))
        assert verdict.status == "fail"
        assert verdict.value < -0.5

    def test_one_kind_is_forgotten_while_others_are_learned(self):
        first, last = np.full(80, 0.05), np.full(80, 0.95)
        first[:6], last[:6] = 1.0, 0.0
        verdict = of_items(drawn(first=first, last=last))
        assert verdict.status == "warn"
        assert "6 forgotten from first to last, and 6 fell beyond chance one by one;" in verdict.evidence

    def test_learned(self):
        assert of_items(drawn(first=np.full(80, 0.3), last=MOST)).status == "pass"

    @pytest.mark.parametrize("seed", range(10))
    def test_the_same_student_again_is_no_forgetting(self, seed):
        assert of_items(drawn(seed=seed, first=MIXED, last=MIXED)).status in ("pass", "unknown")

    @pytest.mark.parametrize(("prompts", "status"), [(5, "unknown"), (20, "unknown"), (80, "pass")])
    def test_few_prompts_of_which_none_changes_sides_leave_it_open(self, prompts, status):
        p = np.arange(prompts) % 2
        verdict = of_items(drawn(first=p, last=p))
        assert verdict.status == status
        assert verdict.ci_low == pytest.approx(-3.8415 / (prompts + 3.8415), abs=1e-4)

    def test_a_prompt_that_fell_and_is_still_solved_is_not_called_forgotten(self):
        first, last = np.ones(80), np.ones(80)
        table = drawn(n=64, first=first, last=last)
        table.loc[(table["label"] == "last") & (table["prompt_index"] == 3), "n_correct"] = 32
        verdict = of_items(table)
        assert verdict.status == "warn"
        assert "0 forgotten from first to last, and 1 fell beyond chance one by one;" in verdict.evidence

    def test_more_responses_to_a_prompt_are_no_gain(self):
        """Of two responses half are correct more often than of one, by the same student."""
        few, more = drawn(n=1, first=np.full(80, 0.4)), drawn(n=2, seed=1, last=np.full(80, 0.4))
        table = pd.concat([few, more], ignore_index=True)
        table.loc[(table["label"] == "last") & (table["prompt_index"] < 6), ["n_correct", "n_rollouts"]] = [0, 1]
        verdict = of_items(table)
        assert verdict.status == "unknown"
        assert verdict.evidence.startswith("Of 6 prompts with as many responses from both ")

    def test_no_prompt_with_as_many_responses(self):
        table = pd.concat([drawn(n=1, first=MIXED), drawn(n=2, last=MIXED)], ignore_index=True)
        verdict = of_items(table)
        assert (verdict.status, math.isnan(verdict.value)) == ("unknown", True)

    def test_few_prompts_with_few_responses_tell_nothing(self):
        verdict = of_items(drawn(n=2, first=MIXED[::8], last=MIXED[::8]))
        assert verdict.status == "unknown"


class TestGapRecovery:
    def test_half_arrived(self):
        verdict = gap_recovered(drawn(first=NONE, last=HALF, teacher=np.ones(80)), "first", "last", "teacher")
        assert verdict.status == "pass"
        assert verdict.ci_low < 0.5 < verdict.ci_high

    def test_moved_away(self):
        found = drawn(first=HALF, last=np.full(80, 0.2), teacher=np.ones(80))
        assert gap_recovered(found, "first", "last", "teacher").status == "fail"

    def test_no_lead(self):
        verdict = gap_recovered(drawn(first=MIXED, last=MOST, teacher=MIXED), "first", "last", "teacher")
        assert (verdict.status, math.isnan(verdict.value)) == ("unknown", True)
        assert verdict.evidence.startswith("No lead of the teacher is established (")
        assert verdict.evidence.endswith(" in accuracy), so what of it arrived is not known.")

    def test_the_lead_is_that_on_the_prompts_that_all_three_have(self):
        """It leads on prompts alone that the last checkpoint does not have."""
        table = drawn(first=NONE, last=np.ones(80), teacher=np.repeat([1.0, 0.0], 40))
        table = table[(table["label"] != "last") | (table["prompt_index"] >= 40)]
        verdict = gap_recovered(table, "first", "last", "teacher")
        assert verdict.evidence.startswith("No lead of the teacher is established (0.00 [")

    def test_no_teacher(self):
        verdict = gap_recovered(drawn(first=MIXED, last=MOST), "first", "last", "teacher")
        assert verdict.evidence == "The teacher's responses were not graded, so its lead is not known."
