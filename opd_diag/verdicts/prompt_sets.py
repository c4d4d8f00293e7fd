"""Rules on two sets of prompts, or one set under two templates: which is closer to agreement of both models."""

from __future__ import annotations

import math
from typing import Literal

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import with_interval
from opd_diag.tables.prompts import Estimates
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import plain, would_tell
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import too_little, unknown

Closer = Literal["first", "second", "equal", "contradictory", "inconclusive"]

CUT_ADVICE = "Allow longer responses with --max-new-tokens."


def closer(found: Estimates, limits: Thresholds) -> Closer:
    """Say which of two sets is closer to agreement, by student overlap mass and reverse KL together."""
    mass, kl = found["student_overlap_mass"][2], found["reverse_kl"][2]
    likes = [_likeness(mass, limits.overlap_mass_change), _likeness(kl, limits.reverse_kl_change)]
    ways = {_way(mass, limits.overlap_mass_change), -_way(kl, limits.reverse_kl_change)} - {0}
    if len(ways) == 2:
        return "contradictory"
    if ways:
        return "second" if ways == {1} else "first"
    return "equal" if likes == ["equivalent", "equivalent"] else "inconclusive"


def set_alignment(
    name: str, found: Estimates, first: str, second: str, limits: Thresholds, *, is_paired: bool
) -> Verdict:
    """Whether another template, wording or set of prompts is closer to agreement than the one in use.

    Parameters
    ----------
    name
        ``template`` or ``prompt_set``.
    found
        From :func:`~opd_diag.tables.prompts.compared_sets`.
    first, second
        What the one in use and the other are called.
    limits
        Hold δ of both quantities.
    is_paired
        Whether they were compared prompt by prompt.
    """
    question = f"Are student and teacher closer under {second} than under {first}?"
    one, two, mass = found["student_overlap_mass"]
    kl = found["reverse_kl"]
    cut = all_cut(name, question, found, (0, 1))
    if cut is not None:
        return cut
    counted = (mass, kl[2]) if is_paired else (one, two, *kl[:2])
    fewest = min(of.n_clusters for of in counted)
    if fewest < limits.prompts or math.isnan(mass.ci_low) or math.isnan(kl[2].ci_low):
        return too_little(name, question, fewest, limits)
    answer = closer(found, limits)
    statuses: dict[Closer, Status] = {"first": "pass", "equal": "pass", "second": "warn"}
    status = statuses.get(answer, "unknown")
    likes = [
        stats.equivalence(of, least)
        for of, least in ((mass, limits.overlap_mass_change), (kl[2], limits.reverse_kl_change))
    ]
    needs = [like.clusters_needed for like in likes if like.outcome == "inconclusive"]
    most = None if None in needs or not needs else max(n for n in needs if n is not None)
    how = {
        "first": f"{first} is closer",
        "second": f"{second} is closer",
        "equal": "no difference",
        "contradictory": "the two contradict each other",
        "inconclusive": f"inconclusive, {would_tell(most)}",
    }[answer]
    ratio, lead = found["overlap_ratio"][2], found["teacher_lead"]
    learnt = f"teacher's lead from {said_of(lead[0])} to {said_of(lead[1])}; " if lead[2].n else ""
    prompts = f"{mass.n_clusters} prompts, paired" if is_paired else f"{one.n_clusters} and {two.n_clusters} prompts"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=mass.value,
        ci_low=mass.ci_low,
        ci_high=mass.ci_high,
        threshold=limits.overlap_mass_change,
        evidence=f"From {first} to {second} student overlap mass goes from {said_of(one)} to {said_of(two)} "
        f"({signed(mass)}, δ = {plain(limits.overlap_mass_change)}) and reverse KL from {said_of(kl[0])} to "
        f"{said_of(kl[1])} nats ({signed(kl[2])}, δ = {plain(limits.reverse_kl_change)}): {how}; "
        f"overlap ratio {signed(ratio)}; {learnt}{prompts}.",
        advice={
            "pass": f"Nothing speaks for {second}.",
            "warn": f"Try {second} in a short run: it starts closer, which is a condition and no success.",
            "unknown": "Give more prompts or responses.",
        }[status],
        reference=f"{PAPER}, section 5.2 (the teacher's template: recovery from 80 to 85 %)",
        caution="The overlap ratio does not decide: on prompts that taught better it was lower. Closer also means less "
        "to learn.",
    )


def _likeness(of: stats.Estimate, least: float) -> str:
    return stats.equivalence(of, least).outcome


def _way(of: stats.Estimate, least: float) -> int:
    return (of.ci_low > least) - (of.ci_high < -least)


def all_cut(name: str, question: str, found: Estimates, sides: tuple[int, ...]) -> Verdict | None:
    """Leave a question open where all responses of a side (0 first, 1 second) were cut; None where they were not."""
    rates = [found["truncation_rate"][side] for side in sides]
    if any(rate.value == 1.0 for rate in rates):
        n = max(rate.n for rate in rates)
        said = f"All {n:,} responses were cut at the limit: what the models would do after it is not seen."
        return unknown(name, question, said, CUT_ADVICE)
    return None


def said_of(estimate: stats.Estimate) -> str:
    """Write a mean with its interval."""
    return with_interval(estimate.value, estimate.ci_low, estimate.ci_high)


def signed(estimate: stats.Estimate) -> str:
    """Write a difference with its interval and sign."""
    return with_interval(estimate.value, estimate.ci_low, estimate.ci_high, signed=True)
