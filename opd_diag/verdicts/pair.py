"""Rules on the pair: before training, mass on shared tokens, entropies, whether there is a difference at all."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import known_between, number
from opd_diag.tables import Tables
from opd_diag.tables.baselines import CHANCE, OTHER_PRECISION, SHUFFLED
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.floors import SPAN, near
from opd_diag.verdicts.alignment import AVERAGES, PAPER
from opd_diag.verdicts.established import (
    FEW_DRAWN,
    caution,
    delta,
    open_advice,
    outcome,
    plain,
    prompts_for,
    side,
    told,
    would_tell,
)
from opd_diag.verdicts.evidence import OWN, baseline, called, change, is_scored, row_at, row_of_kl, said
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE, STEP_ZERO_ADVICE, not_measured, not_scored, too_little, unknown

MASSES = ("student_overlap_mass", "teacher_overlap_mass")

ALIKE_BEFORE = "Do student and teacher think alike before training?"


def patterns_compatible(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether student and teacher think alike before training: both models' mass on shared tokens at step 0."""
    if not step_zero_known:
        return unknown("patterns_compatible", ALIKE_BEFORE, "Step 0 is unknown.", STEP_ZERO_ADVICE)
    seen = mass_at_step_zero(tables, limits)
    word = {"pass": "Their patterns are alike", "warn": "Their patterns differ"}.get(seen.status, "")
    return replace(seen, evidence=f"{word}: {seen.evidence[0].lower()}{seen.evidence[1:]}") if word else seen


def mass_at_step_zero(tables: Tables, limits: Thresholds) -> Verdict:
    """Give the verdict on the pair before training, its evidence the numbers alone."""
    return _mass_verdict(
        tables,
        limits,
        "patterns_compatible",
        ALIKE_BEFORE,
        place=0,
        beside=_block_at_start(tables),
        advice={
            "pass": "Compatible patterns are one condition; the teacher must also bring something new.",
            "warn": "Consider a cold start on the teacher's responses, or prompts from the teacher's training.",
        },
        reference=f"{PAPER}, sections 3.1 and 5.1 (thinking-pattern compatibility)",
        caution="No one number says it: mass depends on k and on how sure both models are, and prompts closer to the "
        "teacher's training had a lower overlap ratio and a better outcome.",
    )


def shared_mass(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether a small shared token set holds most of both models' mass at the last checkpoint."""
    return _mass_verdict(
        tables,
        limits,
        "shared_mass",
        "Do both models put their mass on shared tokens?",
        place=-1,
        beside="",
        advice={
            "pass": "Necessary, not sufficient: read it with the KL.",
            "warn": "The pair differs where the student goes; consider a cold start on the teacher's responses.",
        },
        reference=f"{PAPER}, Eq. 9, 10 and section 4.1 (.97–.99 in its runs)",
        caution="The top tokens cover the distribution, which does not say that the models agree on them.",
    )


def entropy_gap(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the entropies of both models come closer, state by state, or are close."""
    name, question = "entropy_gap", "Does the entropy gap close on own states?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    seen, last = change(tables, "entropy_gap", OWN), row_at(tables, "entropy_gap", OWN, -1)
    if last is None or seen.thin(limits.prompts):
        return too_little(name, question, seen.n_prompts, limits, seen.n_checkpoints)
    found = outcome(seen, limits, direction=-1)
    small, wide = last["ci_high"] <= limits.entropy_gap_small, side(last, limits.entropy_gap_small) == "above"
    status: Status = "unknown"
    if small or (found == "fall" and not seen.depends_on_average):
        status = "pass"
    elif wide and found in ("rise", "unordered rise"):
        status = "fail"
    elif wide and found == "equivalent":
        status = "warn"
    signed = change(tables, "entropy_difference", OWN).last
    how = "it is small" if small else "" if found in ("fall", "rise") else told(seen, limits, found)
    how = AVERAGES if found == "fall" and seen.depends_on_average and not small else how
    ends = f"{number(abs(signed), 3)} nats {'sharper' if signed < 0 else 'flatter'}"
    average = "" if math.isnan(signed) else f"; on average the student ends {ends} than the teacher"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=seen.difference,
        ci_low=seen.ci_low,
        ci_high=seen.ci_high,
        threshold=-delta(seen, limits),
        evidence=f"On own states, {seen.path}; difference {seen.shift}, {seen.n_prompts} prompts"
        f"{'; ' + how if how else ''}{average}.",
        advice={
            "pass": "Read it with the KL.",
            "warn": "The student keeps its own uncertainty; see where in the response the gap is largest.",
            "fail": "The student becomes surer, or less sure, than its teacher: check temperature and learning rate.",
            "unknown": open_advice(seen, limits),
        }[status],
        reference=f"{PAPER}, Eq. 8 and section 4.1",
        within_floor=seen.within_floor,
        caution=caution(seen, "Equal entropies may stand for different tokens."),
    )


def indistinguishable_teacher(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether there is anything to learn: reverse KL at step 0, on own states, beyond what is as good as none."""
    name, question = "indistinguishable_teacher", "Does the teacher differ from the initial student at all?"
    if not step_zero_known:
        return unknown(name, question, "Step 0 is unknown.", STEP_ZERO_ADVICE)
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    kl = row_of_kl(tables, OWN, 0)
    if kl is None or math.isnan(kl["ci_low"]) or kl["n_prompts"] < limits.prompts:
        return too_little(name, question, 0 if kl is None else int(kl["n_prompts"]), limits)
    floor = kl.get("floor", math.nan)
    least = max(limits.indistinguishable_kl, 0.0 if math.isnan(floor) else SPAN * floor)
    found = side(kl, least)
    missed = found == "below" and kl["metric"] == ESTIMATE and kl["approximate"] == 1
    found = "unclear" if missed else found
    status: Status = "unknown" if found == "unclear" else "warn" if found == "below" else "pass"
    word = {"above": "They differ", "below": "No difference", "unclear": "Inconclusive"}[found]
    by_bounds = known_between(kl) and kl["bound_low"] < least <= kl["bound_high"]
    needed = f"; {FEW_DRAWN if missed else _open_by(kl, least, by_bounds)}" if found == "unclear" else ""
    overlap = _overlap_at_start(tables)
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=float(kl["value"]),
        ci_low=float(kl["ci_low"]),
        ci_high=float(kl["ci_high"]),
        threshold=least,
        evidence=f"{word} at δ = {plain(least)}: at {kl['label']} {called(str(kl['metric']))} {said(kl)} nats on own "
        f"states{', ' if overlap else ''}{overlap} ({int(kl['n_states'])} states, {int(kl['n_prompts'])} prompts)"
        f"{needed}.",
        advice={
            "pass": "A difference is one condition; see whether it is a capability, and whether it arrives.",
            "warn": "There is nothing to learn on these prompts: choose another teacher, or prompts where they differ.",
            "unknown": BOUNDS_ADVICE if by_bounds else "Give more prompts or rollouts.",
        }[status],
        reference=f"{PAPER}, section 3.3 (teachers that cannot be told apart on student states teach the same)",
        within_floor=near(kl),
        caution="A small KL may hold a capability: few tokens decide an answer. And it is about these prompts alone.",
    )


def _open_by(row: pd.Series, least: float, by_bounds: bool) -> str:
    """Say what leaves it open on which side of a threshold a row lies."""
    if by_bounds:
        return "the bounds leave it open"
    return "more prompts would tell" if known_between(row) else would_tell(prompts_for(row, least))


def _block_at_start(tables: Tables) -> str:
    """Say the rest of the block at step 0: overlap ratio beside its baselines, entropy gap, reverse KL."""
    told_of = [_overlap_at_start(tables)]
    for row in (row_at(tables, "entropy_gap", OWN, 0), row_of_kl(tables, OWN, 0)):
        if row is not None:
            told_of.append(f"{called(str(row['metric']))} {said(row)} nats")
    return ", ".join(filter(None, told_of))


def _overlap_at_start(tables: Tables) -> str:
    """Say the overlap ratio at step 0, on own states, beside its baselines; empty where it is not known."""
    ratio = row_at(tables, "overlap_ratio", OWN, 0)
    if ratio is None:
        return ""
    return f"overlap ratio {said(ratio)}{_baselines(tables, 'overlap_ratio', str(ratio['label']))}"


def _baselines(tables: Tables, metric: str, label: str) -> str:
    """Say what a metric is by chance, with the teacher shuffled, and in another precision, as far as it is known."""
    names = {CHANCE: "by chance", SHUFFLED: "with a shuffled teacher", OTHER_PRECISION: "in another precision"}
    rows = {name: baseline(tables, metric, which, label) for which, name in names.items()}
    found = [f"{number(row['value'], 3)} {name}" for name, row in rows.items() if row is not None]
    return f" ({', '.join(found)})" if found else ""


def _mass_verdict(
    tables: Tables,
    limits: Thresholds,
    name: str,
    question: str,
    *,
    place: int,
    beside: str,
    advice: dict[Status, str],
    reference: str,
    caution: str,
) -> Verdict:
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    student, teacher = (row_at(tables, metric, OWN, place) for metric in MASSES)
    if student is None or teacher is None:
        return not_measured(name, question, MASSES)
    if student["n_prompts"] < limits.prompts:
        return too_little(name, question, int(student["n_prompts"]), limits)
    lower = student if student["value"] <= teacher["value"] else teacher
    found = side(lower, limits.shared_mass)
    status: Status = "pass" if found == "above" else "warn" if found == "below" else "unknown"
    needed = f"; {would_tell(prompts_for(lower, limits.shared_mass))}" if status == "unknown" else ""
    only = "only " if status == "warn" else ""
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=float(lower["value"]),
        ci_low=float(lower["ci_low"]),
        ci_high=float(lower["ci_high"]),
        threshold=limits.shared_mass,
        evidence=f"At {student['label']} the tokens shared at k = {int(student['k'])} hold {only}{said(student)} "
        f"of the student's mass and {said(teacher)} of the teacher's{'; ' + beside if beside else ''} "
        f"({int(student['n_states'])} own states, {int(student['n_prompts'])} prompts){needed}.",
        advice=advice.get(status, "Give more prompts or rollouts."),
        reference=reference,
        within_floor=near(lower),
        caution=caution,
    )
