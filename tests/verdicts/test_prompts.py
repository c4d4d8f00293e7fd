"""The rules on chosen prompts: true by construction where estimates are given so, unknown where they cannot tell."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.stats import Estimate
from opd_diag.tables.prompts import QUANTITIES
from opd_diag.tables.selection import Choice
from opd_diag.verdicts.prompts import selection_alignment, selection_entropy, selection_groups, selection_lead
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds

BY_MASS = Choice(40, "student_overlap_mass")
NAN = math.nan


def at(value, half=0.01, n=40):
    if math.isnan(half):
        return Estimate(value, NAN, NAN, NAN, 2 * n, n, 0)
    return Estimate(value, value - half, value + half, half / 2.02, 2 * n, n, 0, degrees_of_freedom=n - 1.0)


NONE = Estimate(NAN, NAN, NAN, NAN, 0, 0, 0)


def held(**given):
    """Give a comparison: (others, chosen, difference) by quantity; what is not named differs by nothing."""
    plain = dict.fromkeys(QUANTITIES, (at(0.5, n=160), at(0.5), at(0.0, 0.01, 200)))
    plain["truncation_rate"] = (at(0.1, n=160), at(0.1), at(0.0, 0.01, 200))
    return plain | given


class TestAlignment:
    def test_ahead_on_new_responses(self):
        found = held(student_overlap_mass=(at(0.90, n=160), at(0.97), at(0.07, 0.02, 200)))
        verdict = selection_alignment(found, BY_MASS, DEFAULTS)
        assert verdict.status == "pass"
        assert verdict.evidence == (
            "Student overlap mass 0.97 [0.96, 0.98] on the chosen prompts, 0.90 [0.89, 0.91] on the others: difference "
            "+0.07 [+0.05, +0.09], on responses that had no part in choosing, 40 and 160 prompts."
        )

    def test_no_better_than_chance(self):
        found = held(student_overlap_mass=(at(0.9, n=160), at(0.88), at(-0.02, 0.01, 200)))
        assert selection_alignment(found, BY_MASS, DEFAULTS).status == "warn"

    def test_not_enough_to_tell(self):
        found = held(student_overlap_mass=(at(0.9, n=160), at(0.91), at(0.01, 0.02, 200)))
        verdict = selection_alignment(found, BY_MASS, DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.evidence.endswith("40 and 160 prompts; some 800 prompts would tell.")  # 200 · (.02 / .01)²

    def test_one_response_each(self):
        found = held(student_overlap_mass=(NONE, NONE, NONE))
        verdict = selection_alignment(found, BY_MASS, DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "There is one response to each prompt: what chose the prompts would also judge the choice, which would "
            "look good by chance alone."
        )
        assert verdict.advice == "Give two or more with --rollouts-per-prompt."

    def test_all_chosen(self):
        found = held(student_overlap_mass=(NONE, at(0.9), NONE))
        verdict = selection_alignment(found, BY_MASS, DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.evidence == "All prompts were chosen: there are no others to compare with."

    def test_too_few_prompts(self):
        found = held(student_overlap_mass=(at(0.9, n=160), at(0.95, NAN, 3), at(0.05, NAN, 163)))
        verdict = selection_alignment(found, Choice(3, "student_overlap_mass"), DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "3 prompts are too few for an interval that means something; at least 5 are needed."
        )


def chosen_of(**groups):
    """Give prompts by group: so many chosen, so many left out."""
    rows = [
        {"group": None if name == "nameless" else name, "is_chosen": is_in}
        for name, counts in groups.items()
        for is_in, count in zip((True, False), counts, strict=True)
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["group", "is_chosen"]).astype({"group": object})


class TestGroups:
    def test_one_kind_crowds_out_another(self):
        verdict = selection_groups(chosen_of(add=(4, 46), multiply=(46, 4)), DEFAULTS)
        assert verdict.status == "warn"
        assert verdict.value == pytest.approx(4 / 25)
        assert verdict.evidence == (
            "Least of all add, which keeps 0.16 of its share of the prompts; chosen of each: add 4 of 50, multiply 46 "
            "of 50."
        )

    def test_about_its_share(self):
        verdict = selection_groups(chosen_of(add=(20, 30), multiply=(30, 20)), DEFAULTS)
        assert (verdict.status, verdict.value) == ("pass", pytest.approx(0.8))

    def test_a_group_left_out_whole(self):
        assert selection_groups(chosen_of(add=(0, 20), multiply=(40, 0)), DEFAULTS).value == 0.0

    def test_small_groups_say_nothing(self):
        verdict = selection_groups(chosen_of(add=(30, 30), rare=(0, 8), multiply=(30, 30)), DEFAULTS)
        assert verdict.status == "pass"
        assert "rare" not in verdict.evidence

    @pytest.mark.parametrize("groups", [{"add": (5, 5)}, {"nameless": (9, 9)}, {"a": (1, 2), "b": (0, 3)}])
    def test_without_two_groups_there_is_no_question(self, groups):
        assert selection_groups(chosen_of(**groups), DEFAULTS) is None


def rules(found):
    return [
        selection_alignment(found, BY_MASS, DEFAULTS),
        selection_entropy(found, BY_MASS, DEFAULTS),
        selection_lead(found, DEFAULTS),
    ]


def test_where_all_responses_are_cut_nothing_is_said():
    for verdict in rules(held(truncation_rate=(at(1.0, n=160), at(1.0), at(0.0)))):
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "All 80 responses were cut at the limit: what the models would do after it is not seen."
        )
        assert verdict.advice == "Allow longer responses with --max-new-tokens."


class TestEntropy:
    @pytest.mark.parametrize(
        ("difference", "half", "status"),
        [(-0.2, 0.05, "warn"), (0.0, 0.05, "pass"), (0.2, 0.05, "pass"), (-0.1, 0.05, "unknown")],
    )
    def test_against_a_tenth_of_the_others(self, difference, half, status):
        found = held(student_entropy=(at(1.0, n=160), at(1.0 + difference), at(difference, half, 200)))
        verdict = selection_entropy(found, BY_MASS, DEFAULTS)
        assert verdict.status == status
        assert verdict.threshold == pytest.approx(-0.1)

    def test_its_evidence(self):
        found = held(student_entropy=(at(1.0, n=160), at(0.8), at(-0.2, 0.05, 200)))
        assert selection_entropy(found, BY_MASS, DEFAULTS).evidence == (
            "Student entropy 0.80 [0.79, 0.81] nats on the chosen prompts, 1.00 [0.99, 1.01] on the others: less at "
            "δ = 0.1; difference −0.20 [−0.25, −0.15], 40 and 160 prompts, 8 of the 40 drawn from the rest."
        )


class TestLead:
    @staticmethod
    def verdict(ours, theirs, half=0.05, n=40):
        lead = at(theirs - ours, half, n)
        others = at(0.02, 0.03, 160)
        return selection_lead(
            held(accuracy=(at(0.9), at(ours), NONE), teacher_accuracy=(at(0.9), at(theirs), NONE),
                 teacher_lead=(others, lead, NONE)), DEFAULTS
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("ours", "theirs", "half", "status"),
        [(0.2, 0.9, 0.05, "pass"), (0.9, 0.92, 0.05, "warn"), (0.8, 0.9, 0.05, "unknown"), (0.9, 0.4, 0.05, "warn")],
    )
    def test_against_what_counts_as_a_capability(self, ours, theirs, half, status):
        assert self.verdict(ours, theirs, half).status == status

    def test_its_evidence(self):
        assert self.verdict(0.2, 0.9).evidence == (
            "On the chosen prompts the student solves 0.20, the teacher 0.90: a lead of more than δ = 0.1; lead +0.70 "
            "[+0.65, +0.75], 40 prompts; on the others +0.02 [−0.01, +0.05]."
        )

    def test_none_solved(self):
        verdict = self.verdict(0.0, 0.0)
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "Neither model solves any of the chosen prompts, so what the teacher can do there is not seen."
        )

    def test_all_solved(self):
        verdict = self.verdict(1.0, 1.0, half=0.0)
        assert verdict.status == "warn"
        assert verdict.evidence.endswith("; both solve all of them.")

    def test_no_answers(self):
        found = held(teacher_lead=(NONE, NONE, NONE), reverse_kl_of_response=(NONE, at(3.2, 0.4), NONE))
        verdict = selection_lead(found, DEFAULTS)
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "No response was graded; reverse KL of a response on the chosen prompts is 3.20 [2.80, 3.60] nats."
        )
        found = held(teacher_lead=(NONE, NONE, NONE), reverse_kl_of_response=(NONE, NONE, NONE))
        assert selection_lead(found, DEFAULTS).evidence == "No response was graded."

    def test_too_few_prompts(self):
        assert self.verdict(0.2, 0.9, half=NAN, n=3).evidence == (
            "3 prompts are too few for an interval that means something; at least 5 are needed."
        )

    def test_too_few_graded_prompts_for_a_verdict(self):
        """Overlap is known of 40 prompts, but 6 were graded."""
        lead = (at(0.02, 0.03, 160), at(0.7, 0.05, 6), NONE)
        verdict = selection_lead(held(teacher_lead=lead), Thresholds(prompts=10))
        assert verdict.status == "unknown"
        assert verdict.evidence == (
            "6 prompts are too few for an interval that means something; at least 10 are needed."
        )


@pytest.mark.parametrize("rule", [selection_alignment, selection_entropy])
def test_too_few_others_for_a_verdict(rule):
    few = (at(0.5, n=6), at(0.9), at(0.4, 0.01, 46))
    found = held(student_overlap_mass=few, student_entropy=few)
    assert rule(found, BY_MASS, DEFAULTS).status == "pass"
    verdict = rule(found, BY_MASS, Thresholds(prompts=10))
    assert verdict.status == "unknown"
    assert verdict.evidence == "6 prompts are too few for an interval that means something; at least 10 are needed."
