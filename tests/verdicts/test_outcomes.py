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
        assert "6 forgotten from first to last, 6 of these beyond chance one by one" in verdict.evidence

    def test_learned(self):
        assert of_items(drawn(first=np.full(80, 0.3), last=MOST)).status == "pass"

    @pytest.mark.parametrize("seed", range(10))
    def test_the_same_student_again_is_no_forgetting(self, seed):
        assert of_items(drawn(seed=seed, first=MIXED, last=MIXED)).status in ("pass", "unknown")

    def test_few_prompts_with_few_responses_tell_nothing(self):
        verdict = of_items(drawn(n=2, first=MIXED[::8], last=MIXED[::8]))
        assert verdict.status == "unknown"


class TestGapRecovery:
    def test_half_arrived(self):
        verdict = gap_recovered(drawn(first=NONE, last=HALF, teacher=np.ones(80)), "first", "last", "teacher", DEFAULTS)
        assert verdict.status == "pass"
        assert verdict.ci_low < 0.5 < verdict.ci_high

    def test_moved_away(self):
        found = drawn(first=HALF, last=np.full(80, 0.2), teacher=np.ones(80))
        assert gap_recovered(found, "first", "last", "teacher", DEFAULTS).status == "fail"

    def test_no_lead(self):
        verdict = gap_recovered(drawn(first=MIXED, last=MOST, teacher=MIXED), "first", "last", "teacher", DEFAULTS)
        assert (verdict.status, math.isnan(verdict.value)) == ("unknown", True)
        assert verdict.evidence.startswith("No lead of the teacher is established (")

    def test_no_teacher(self):
        verdict = gap_recovered(drawn(first=MIXED, last=MOST), "first", "last", "teacher", DEFAULTS)
        assert verdict.evidence == "The teacher's responses were not graded, so its lead is not known."
