"""Rules on a cold start: needed, what it did, and whether there is data for one."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.cold_start import cold_start_effect, cold_start_needed, sft_data

from .synthetic import run, without

CLOSED = stats.Estimate(0.6, 0.5, 0.7, 0.04, 1000, 32, 0)


def masses(*by_checkpoint):
    return {"student_overlap_mass": by_checkpoint, "teacher_overlap_mass": by_checkpoint}


def effect(kl=(1.0, 0.5), *, own=(0.3, 0.9), start=(0.3, 0.6), error=0.01, prompts=32, **more):
    tables = run(masses(*own), masses(*start), {"forward_kl": kl}, checkpoints=2, error=error, prompts=prompts, **more)
    return cold_start_effect(tables, DEFAULTS, CLOSED)


class TestNeeded:
    @pytest.mark.parametrize(
        ("mass", "status", "word"), [(0.3, "warn", "Yes"), (0.95, "pass", "No"), (0.9, "unknown", "Inconclusive")]
    )
    def test_by_the_mass_on_shared_tokens_at_step_zero(self, mass, status, word):
        found = cold_start_needed(run(masses(mass, 0.5), checkpoints=2), DEFAULTS)
        only = "only " if status == "warn" else ""
        assert (found.name, found.status, found.value) == ("cold_start_needed", status, mass)
        assert found.evidence.startswith(f"{word}: at step 0 the tokens shared at k = 16 hold {only}{mass:.2f} [")
        assert "; at the teacher's states forward KL 1.20 [1.19, 1.21] nats a token" in found.evidence
        assert found.evidence.count(".") == found.evidence.count("0.") + found.evidence.count("1.") + 1

    def test_by_the_lower_of_both(self):
        changes = {"student_overlap_mass": (0.95,), "teacher_overlap_mass": (0.4,)}
        assert cold_start_needed(run(changes, checkpoints=1), DEFAULTS).value == 0.4

    def test_again_it_is_asked_of_the_last(self):
        tables = run(masses(0.3, 0.97), teacher={"forward_kl": (2.0, 0.5)}, checkpoints=2)
        found = cold_start_needed(tables, DEFAULTS, again=True)
        assert (found.status, found.value) == ("pass", 0.97)
        assert "at step 10" in found.evidence
        assert "forward KL 0.50" in found.evidence
        assert found.question == "Does this pair need more of a cold start before on-policy distillation?"

    def test_the_threshold_is_the_users(self):
        tables = run(masses(0.85, 0.9), checkpoints=2)
        assert cold_start_needed(tables, Thresholds(shared_mass=0.8)).status == "pass"

    @pytest.mark.parametrize("missing", ["on-policy", "teacher"])
    def test_a_state_set_that_was_not_scored(self, missing):
        sets = tuple(s for s in ("on-policy", "start", "teacher") if s != missing)
        found = cold_start_needed(run(states=sets), DEFAULTS)
        assert (found.status, found.evidence) == ("unknown", f"The {missing} states were not scored.")

    def test_too_few_prompts(self):
        found = cold_start_needed(run(masses(0.3), prompts=4), DEFAULTS)
        assert (found.name, found.status) == ("cold_start_needed", "unknown")
        assert found.evidence == "4 prompts are too few for an interval that means something; at least 5 are needed."

    def test_doubt_says_how_many_prompts_would_tell(self):
        found = cold_start_needed(run(masses(0.91), error=0.02, prompts=32), DEFAULTS)
        assert found.status == "unknown"
        assert "some 130 prompts would tell" in found.evidence  # 32 · (.02 / .01)²


class TestEffect:
    @pytest.mark.parametrize(
        ("kl", "status"),
        [((1.0, 0.5), "pass"), ((0.5, 1.0), "fail"), ((1.0, 1.0), "warn"), ((1.0, 0.985), "unknown")],
    )
    def test_by_the_forward_kl_at_the_teachers_states(self, kl, status):
        found = effect(kl)
        assert found.status == status
        assert found.value == pytest.approx(kl[1] - kl[0])
        assert ("0.60 [0.50, 0.70] of the distance closed" in found.evidence) is (status == "pass")
        assert "own states 0.30 → 0.90 and 0.30 → 0.90" in found.evidence

    @pytest.mark.parametrize(
        ("changes", "where"), [({"start": (0.6, 0.3)}, "at the start's states"), ({"own": (0.9, 0.3)}, "on own states")]
    )
    def test_mass_that_fell_is_a_price(self, changes, where):
        found = effect(**changes)
        assert found.status == "warn"
        assert found.advice == f"Shared mass fell {where}: read responses, and look for what was forgotten."

    def test_mass_within_what_counts_is_no_price(self):
        assert effect(own=(0.95, 0.94), error=0.001).status == "pass"

    def test_mass_that_may_have_fallen_is_no_price_yet(self):
        assert effect(own=(0.95, 0.93), error=0.01).status == "pass"

    def test_nothing_changed_is_said_with_what_it_rests_on(self):
        found = effect((1.0, 1.0))
        assert "no change, equivalent within δ = 0.02" in found.evidence
        assert found.advice.startswith("It changed nothing")

    def test_too_few_prompts(self):
        found = effect(prompts=3)
        assert (found.status, found.evidence) == (
            "unknown",
            "3 prompts are too few for an interval that means something; at least 5 are needed.",
        )

    def test_what_was_not_measured(self):
        assert effect(states=("on-policy", "start")).evidence == "The teacher states were not scored."
        tables = without(run(checkpoints=2), "forward_kl")
        found = cold_start_effect(tables, DEFAULTS, CLOSED)
        assert found.evidence == "Nothing is known of the forward KL at the teacher's states."

    def test_without_masses_it_says_nothing_of_them(self):
        tables = run(teacher={"forward_kl": (1.0, 0.5)}, checkpoints=2)
        for name in ("student_overlap_mass", "teacher_overlap_mass"):
            tables = without(tables, name)
        found = cold_start_effect(tables, DEFAULTS, CLOSED)
        assert found.status == "pass"
        assert "mass" not in found.evidence

    def test_a_fall_within_the_floor_of_precision_is_none(self):
        tables = run(teacher={"forward_kl": (1.0, 0.95)}, checkpoints=2)
        coarse = replace(tables, summary=tables.summary.assign(floor=0.1))
        assert cold_start_effect(tables, DEFAULTS, CLOSED).status == "pass"
        assert cold_start_effect(coarse, DEFAULTS, CLOSED).status == "warn"  # equivalent within twice of it


def responses(kept=8, left=(), taught="as sampled", stops=True):
    rows = [{"reason": "", "kept": True, "taught": taught, "stop_taught": stops}] * kept
    rows += [{"reason": reason, "kept": False, "taught": "", "stop_taught": pd.NA} for reason in left]
    table = pd.DataFrame(rows).assign(prompt_index=range(len(rows)))
    return table.astype({"kept": bool, "stop_taught": "boolean"})


class TestData:
    def test_all_kept(self):
        found = sft_data(responses(8), DEFAULTS)
        assert (found.status, found.value) == ("pass", 1.0)
        assert found.evidence == "Of 8 teacher responses 8 are kept."
        assert found.ci_low < 1.0 == found.ci_high

    def test_what_is_left_out_is_counted(self):
        found = sft_data(responses(6, ["truncated"] * 2 + ["degenerate"]), DEFAULTS)
        assert found.status == "pass"
        assert found.evidence == "Of 9 teacher responses 6 are kept (2 truncated, 1 degenerate left out)."

    def test_a_selection_of_the_least_part_warns(self):
        found = sft_data(responses(3, ["truncated"] * 5), DEFAULTS)
        assert (found.status, found.value, found.threshold) == ("warn", 0.375, 0.5)
        assert found.advice == "Give the teacher more tokens with --max-new-tokens."
        assert sft_data(responses(3, ["truncated"] * 5), Thresholds(kept_share=0.3)).status == "pass"

    def test_none_kept(self):
        found = sft_data(responses(0, ["truncated"] * 5 + ["degenerate"]), DEFAULTS)
        assert found.status == "fail"
        assert found.evidence == (
            "Of 6 teacher responses none can be taught: 5 truncated, 1 degenerate; nothing was written."
        )

    @pytest.mark.parametrize(
        ("reason", "advice"),
        [
            (
                "degenerate",
                "The teacher loops: see that it is shown its own chat template, and sample below --top-p 1.",
            ),
            ("repeated", "The teacher says the same again: give more prompts rather than more responses to each."),
            ("not correct", "The teacher is often wrong here: choose another one, or leave --only-correct out."),
            ("empty", "Read the responses; sft_responses.csv says why each was left out."),
        ],
    )
    def test_advice_by_the_commonest_reason(self, reason, advice):
        assert sft_data(responses(2, [reason] * 5), DEFAULTS).advice == advice

    def test_a_template_that_changes_the_text_warns(self):
        found = sft_data(responses(8, taught="other text"), DEFAULTS)
        assert found.status == "warn"
        assert "8 are changed by the student's chat template" in found.evidence
        assert found.advice.startswith("Train with a template that keeps the whole response")

    def test_a_template_that_never_ends_warns(self):
        found = sft_data(responses(8, stops=False), DEFAULTS)
        assert found.status == "warn"
        assert "8 end without a stop token under it" in found.evidence
        assert "will not learn to stop" in found.advice

    def test_other_tokens_of_the_same_text_are_only_said(self):
        found = sft_data(responses(8, taught="other tokens"), DEFAULTS)
        assert found.status == "pass"
        assert found.evidence == "Of 8 teacher responses 8 are kept; 8 read back as other tokens of the same text."

    def test_four_prompts_have_no_interval(self):
        assert math.isnan(sft_data(responses(4), DEFAULTS).ci_low)
