"""Which of two sets is closer: by mass and KL together, with contradiction and doubt as answers of their own."""

from __future__ import annotations

import math

import pytest

from opd_diag.verdicts.prompt_sets import closer, set_alignment
from opd_diag.verdicts.thresholds import DEFAULTS, Thresholds

from .test_prompts import NONE, at, held


def compared(mass, kl, half=0.01, n=60):
    """Give a comparison whose second set has so much more mass and KL than the first."""
    return held(
        student_overlap_mass=(at(0.9, n=n), at(0.9 + mass, n=n), at(mass, half, n)),
        reverse_kl=(at(0.5, n=n), at(0.5 + kl, n=n), at(kl, half, n)),
        overlap_ratio=(at(0.6, n=n), at(0.6, n=n), at(0.0, 0.01, n)),
        teacher_lead=(NONE, NONE, NONE),
    )


@pytest.mark.parametrize(
    ("mass", "kl", "answer", "status"),
    [
        (0.06, -0.2, "second", "warn"),
        (0.06, 0.0, "second", "warn"),
        (0.0, -0.2, "second", "warn"),
        (-0.06, 0.2, "first", "pass"),
        (0.0, 0.2, "first", "pass"),
        (0.0, 0.0, "equal", "pass"),
        (0.06, 0.2, "contradictory", "unknown"),
        (0.02, 0.0, "inconclusive", "unknown"),
    ],
)
def test_by_both(mass, kl, answer, status):
    found = compared(mass, kl)
    assert closer(found, DEFAULTS) == answer
    assert set_alignment("template", found, "own", "new", DEFAULTS, is_paired=True).status == status


def test_the_evidence():
    verdict = set_alignment("prompt_set", compared(0.06, -0.2), "own", "new", DEFAULTS, is_paired=False)
    assert verdict.evidence == (
        "From own to new student overlap mass goes from 0.90 [0.89, 0.91] to 0.96 [0.95, 0.97] (+0.06 [+0.05, +0.07], "
        "δ = 0.02) and reverse KL from 0.50 [0.49, 0.51] to 0.30 [0.29, 0.31] nats (−0.20 [−0.21, −0.19], δ = 0.02): "
        "new is closer; overlap ratio 0.00 [−0.01, +0.01]; 60 and 60 prompts."
    )
    assert verdict.advice == ("Try new in a short run: it starts closer, which is a condition and no success.")


def test_a_lead_is_told_where_it_is_known():
    found = compared(0.06, -0.2) | {"teacher_lead": (at(0.7, 0.1), at(0.0, 0.1), at(-0.7, 0.1))}
    said = set_alignment("template", found, "own", "new", DEFAULTS, is_paired=True).evidence
    assert said.endswith("; teacher's lead from 0.70 [0.60, 0.80] to 0.00 [−0.10, 0.10]; 60 prompts, paired.")


def test_in_doubt_it_says_how_many_prompts_would_tell():
    said = set_alignment("template", compared(0.01, 0.0, 0.02), "own", "new", DEFAULTS, is_paired=True).evidence
    assert ": inconclusive, some " in said
    assert " prompts would tell; " in said


def test_too_few():
    found = compared(0.06, -0.2, math.nan, n=3)
    verdict = set_alignment("template", found, "own", "new", DEFAULTS, is_paired=True)
    assert verdict.status == "unknown"
    assert verdict.evidence == "3 prompts are too few for an interval that means something; at least 5 are needed."


def test_all_cut_on_one_side():
    found = compared(0.06, -0.2) | {"truncation_rate": (at(0.2), at(1.0), at(0.8))}
    verdict = set_alignment("template", found, "own", "new", DEFAULTS, is_paired=True)
    assert verdict.status == "unknown"
    assert verdict.evidence == (
        "All 80 responses were cut at the limit: what the models would do after it is not seen."
    )


TEN = Thresholds(prompts=10)
TOO_FEW = "6 prompts are too few for an interval that means something; at least 10 are needed."


def test_the_fewest_prompts_for_a_verdict_hold_for_pairs_and_for_each_set():
    paired = compared(0.06, -0.2, n=6)
    apart = compared(0.06, -0.2) | {"reverse_kl": (at(0.5), at(0.3, n=6), at(-0.2))}
    for found, is_paired in ((paired, True), (apart, False)):
        verdict = set_alignment("prompt_set", found, "own", "new", TEN, is_paired=is_paired)
        assert (verdict.status, verdict.evidence) == ("unknown", TOO_FEW)
        assert set_alignment("prompt_set", found, "own", "new", DEFAULTS, is_paired=is_paired).status == "warn"
