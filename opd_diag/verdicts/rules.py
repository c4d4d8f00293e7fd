"""Rules on one number: the task, the pair before training, the mass on shared tokens, the entropies."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables import Tables
from opd_diag.tables.floors import near
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.evidence import change, is_scored, summary_row
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import STEP_ZERO_ADVICE, not_scored, too_little, unknown

MASSES = ("student_overlap_mass", "teacher_overlap_mass")


def patterns_compatible(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether student and teacher think alike before training: both models' mass on shared tokens at step 0."""
    name, question = "patterns_compatible", "Do student and teacher think alike before training?"
    if not step_zero_known:
        return unknown(name, question, "Step 0 is unknown.", STEP_ZERO_ADVICE)
    if not is_scored(tables, "on-policy"):
        return not_scored(name, question, "on-policy")
    rows = {m: summary_row(tables, m, "on-policy", 0) for m in ("overlap_ratio", "reverse_kl", *MASSES)}
    return _mass_verdict(
        name,
        question,
        rows,
        limits,
        said=f"overlap ratio {_value(rows['overlap_ratio'])}, reverse KL {_value(rows['reverse_kl'])} nats",
        good="Compatible patterns are one condition; the teacher must also bring something new.",
        bad="Consider an off-policy cold start on the teacher's responses, or prompts from the teacher's training.",
        reference=f"{PAPER}, sections 3.1 and 5.1 (thinking-pattern compatibility)",
    )


def shared_mass(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether a small shared token set holds most of both models' mass at the last checkpoint."""
    name, question = "shared_mass", "Do both models put their mass on shared tokens?"
    if not is_scored(tables, "on-policy"):
        return not_scored(name, question, "on-policy")
    rows = {m: summary_row(tables, m, "on-policy", -1) for m in MASSES}
    return _mass_verdict(
        name,
        question,
        rows,
        limits,
        said="",
        good="Necessary, not sufficient: the top tokens cover the distribution, which does not say that they agree.",
        bad="The pair differs where the student goes; consider a cold start on the teacher's responses.",
        reference=f"{PAPER}, Eq. 9, 10 and section 4.1 (.97–.99 in its runs)",
    )


def entropy_gap(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the entropies of both models come closer, state by state."""
    question = "Does the entropy gap close on own states?"
    if not is_scored(tables, "on-policy"):
        return not_scored("entropy_gap", question, "on-policy")
    seen = change(tables, "entropy_gap", "on-policy")
    if seen.thin(limits.prompts):
        return too_little("entropy_gap", question, seen.n_prompts, limits, seen.n_checkpoints)
    direction = seen.direction(limits.entropy_gap_change, limits.order)
    small = seen.last <= limits.entropy_gap_small
    status: Status = "fail" if direction > 0 and not small else "pass" if direction < 0 or small else "warn"
    signed = change(tables, "entropy_difference", "on-policy")
    side = "sharper" if signed.last < 0 else "flatter"
    return Verdict(
        name="entropy_gap",
        question=question,
        status=status,
        value=seen.difference,
        ci_low=seen.ci_low,
        ci_high=seen.ci_high,
        threshold=-limits.entropy_gap_change,
        evidence=f"On own states, {seen.path}; difference {seen.shift}, {seen.n_prompts} prompts; on average the "
        f"student ends {number(abs(signed.last), 3)} nats {side} than the teacher.",
        advice={
            "pass": "Read it with the KL: equal entropies may stand for different tokens.",
            "warn": "The student keeps its own uncertainty; see where in the response the gap is largest.",
            "fail": "The student becomes surer, or less sure, than its teacher: check temperature and learning rate.",
        }[status],
        reference=f"{PAPER}, Eq. 8 and section 4.1",
        within_floor=seen.within_floor,
    )


def accuracy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student got better at the task."""
    question = "Did the student get better at the task?"
    if not is_scored(tables, "on-policy"):
        return not_scored("accuracy", question, "on-policy")
    seen = change(tables, "accuracy", "on-policy")
    if math.isnan(seen.last):
        return unknown(
            "accuracy",
            question,
            "The prompts have no reference answers, so alignment is all that can be seen.",
            "Give answers in the prompts file: more alike is not the same as better.",
        )
    if seen.thin(limits.prompts):
        return too_little("accuracy", question, seen.n_prompts, limits, seen.n_checkpoints)
    direction = seen.direction(limits.accuracy_change, -1.0)
    status: Status = "pass" if direction > 0 else "fail" if direction < 0 else "warn"
    return Verdict(
        name="accuracy",
        question=question,
        status=status,
        value=seen.difference,
        ci_low=seen.ci_low,
        ci_high=seen.ci_high,
        threshold=limits.accuracy_change,
        evidence=f"At the task: {seen.path} of sampled responses; difference {seen.shift}, {seen.n_prompts} prompts.",
        advice={
            "pass": "The teacher brings something the student lacked, and it arrives.",
            "warn": "No gain is established: the teacher may bring nothing new, or too little of it arrives.",
            "fail": "The student loses what it could: lower the learning rate, and compare with the start's states.",
        }[status],
        reference=f"{PAPER}, sections 3.2 and 4.1 (a teacher must bring new capabilities)",
    )


def _mass_verdict(
    name: str,
    question: str,
    rows: dict[str, pd.Series],
    limits: Thresholds,
    *,
    said: str,
    good: str,
    bad: str,
    reference: str,
) -> Verdict:
    student, teacher = rows["student_overlap_mass"], rows["teacher_overlap_mass"]
    if student["n_prompts"] < limits.prompts:
        return too_little(name, question, int(student["n_prompts"]), limits)
    lower = student if student["value"] <= teacher["value"] else teacher
    far = bool(lower["value"] < limits.shared_mass)
    return Verdict(
        name=name,
        question=question,
        status="warn" if far else "pass",
        value=float(lower["value"]),
        ci_low=float(lower["ci_low"]),
        ci_high=float(lower["ci_high"]),
        threshold=limits.shared_mass,
        evidence=f"At {student['label']} the tokens shared at k = {int(student['k'])} hold {_value(student)} of the "
        f"student's mass and {_value(teacher)} of the teacher's{'; ' + said if said else ''} "
        f"({int(student['n_states'])} own states, {int(student['n_prompts'])} prompts).",
        advice=bad if far else good,
        reference=reference,
        within_floor=near(lower),
    )


def _value(row: pd.Series) -> str:
    return with_interval(row["value"], row["ci_low"], row["ci_high"], near=near(row))
