"""Verdicts that cannot be given: what is missing, and how to get it."""

from __future__ import annotations

import math

from opd_diag.records.verdict import Verdict
from opd_diag.verdicts.thresholds import Thresholds

STEP_ZERO_ADVICE = "Name the initial student with --student."


def unknown(name: str, question: str, evidence: str, advice: str) -> Verdict:
    """Leave a question open."""
    nan = math.nan
    return Verdict(name, question, "unknown", nan, nan, nan, nan, evidence, advice, "")


def not_scored(name: str, question: str, states: str) -> Verdict:
    """Leave it open for want of a state set."""
    return unknown(name, question, f"The {states} states were not scored.", f"Run report with {states} in --states.")


def too_little(name: str, question: str, prompts: int, limits: Thresholds, checkpoints: int = 2) -> Verdict:
    """Leave it open for want of checkpoints or prompts."""
    if checkpoints < 2:
        return unknown(
            name,
            question,
            "There is one checkpoint, so nothing can be compared.",
            "Save more checkpoints, or name the initial student with --student.",
        )
    return unknown(
        name,
        question,
        f"{prompts} prompts are too few for an interval that means something; at least {limits.prompts:g} are needed.",
        "Give more prompts.",
    )
