"""Verdicts that cannot be given: what is missing, and how to get it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from opd_diag.records.verdict import Verdict
from opd_diag.stats import MIN_CLUSTERS
from opd_diag.verdicts.thresholds import Thresholds

STEP_ZERO_ADVICE = "Name the initial student with --student."

BOUNDS_ADVICE = (
    "Ask for the teacher's whole vocabulary (--teacher-top -1, where its server allows that), or name its folder with "
    "--teacher."
)
"""What to do where the bounds that a teacher's top K leaves decide."""


def unknown(name: str, question: str, evidence: str, advice: str) -> Verdict:
    """Leave a question open."""
    nan = math.nan
    return Verdict(name, question, "unknown", nan, nan, nan, nan, evidence, advice, "")


def not_scored(name: str, question: str, states: str) -> Verdict:
    """Leave it open for want of a state set."""
    return unknown(name, question, f"The {states} states were not scored.", f"Run report with {states} in --states.")


def too_little(name: str, question: str, prompts: int, limits: Thresholds, checkpoints: int = 2) -> Verdict:
    """Leave it open for want of checkpoints, prompts or an interval."""
    if checkpoints < 2:
        return unknown(
            name,
            question,
            "There is one checkpoint, so nothing can be compared.",
            "Save more checkpoints, or name the initial student with --student.",
        )
    if prompts >= limits.prompts:
        evidence = f"{prompts} prompts give no interval: it takes {MIN_CLUSTERS}, and means that are finite."
        return unknown(name, question, evidence, "See which tokens one model holds impossible, or give more prompts.")
    few = f"{prompts} {'prompt is' if prompts == 1 else 'prompts are'} too few for an interval that means something"
    return unknown(name, question, f"{few}; at least {limits.prompts:g} are needed.", "Give more prompts.")


def needs_whole(name: str, question: str, what: str) -> Verdict:
    """Leave it open for want of whole distributions."""
    evidence = f"Of the teacher only the most probable ids came back, and {what} needs whole distributions."
    return unknown(name, question, evidence, BOUNDS_ADVICE)


def not_measured(name: str, question: str, metrics: Iterable[str], how: str = "Run report again.") -> Verdict:
    """Leave it open for want of numbers: an older or partial report, or nothing of the kind occurred."""
    return unknown(name, question, f"Nothing is known of {', '.join(metrics)}.", how)
