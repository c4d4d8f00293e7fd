"""The rules: one function a verdict, each short enough to be read while doubting its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables import Tables
from opd_diag.verdicts.evidence import Change, change, is_scored, summary_row
from opd_diag.verdicts.thresholds import Thresholds

PAPER = "arXiv 2604.13016"
MASSES = ("student_overlap_mass", "teacher_overlap_mass")
STEP_ZERO_ADVICE = "Name the initial student with --student."


def patterns_compatible(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether student and teacher think alike before training: both models' mass on shared tokens at step 0."""
    name, question = "patterns_compatible", "Do student and teacher think alike before training?"
    if not step_zero_known:
        return _unknown(name, question, "Step 0 is unknown.", STEP_ZERO_ADVICE)
    if not is_scored(tables, "on-policy"):
        return _not_scored(name, question, "on-policy")
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


def alignment_on_policy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether student and teacher grow alike on the states each checkpoint visits itself."""
    name, question = "alignment_on_policy", "Do student and teacher grow alike on the student's own states?"
    if not is_scored(tables, "on-policy"):
        return _not_scored(name, question, "on-policy")
    moved = _alignment(tables, "on-policy", limits)
    advice: dict[Status, str] = {
        "pass": "No success by itself: a collapse looks the same here. Read it with the start's states.",
        "warn": "See whether the pair was alike from the start (nothing to gain) or far apart (cold start, prompts).",
        "fail": "Read the rollouts; lower the learning rate, or start from a cold-started student.",
    }
    return _alignment_verdict(name, question, moved, limits, advice)


def alignment_at_start(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether the same holds at the states of the initial student, which do not move."""
    name, question = "alignment_at_start", "Does it hold at equal states, those of the initial student?"
    if not step_zero_known:
        missing = "Step 0 is unknown, so what changed before the first checkpoint cannot be seen."
        return _unknown(name, question, missing, STEP_ZERO_ADVICE)
    if not is_scored(tables, "start"):
        return _not_scored(name, question, "start")
    moved, own = _alignment(tables, "start", limits), _alignment(tables, "on-policy", limits)
    advice: dict[Status, str] = {
        "pass": "The policy itself came closer to the teacher, not only the states it visits.",
        "warn": "Progress on own states, if any, comes mostly from visiting other states: read the rollouts.",
        "fail": "What the policy had in common with the teacher at the start's states is lost: read the rollouts.",
    }
    held = moved.kl.difference / own.kl.difference if own.status == "pass" and own.kl.difference < 0 else math.nan
    if moved.status == "pass" and held < limits.held_share:
        moved = replace(moved, status="warn", word="progress in part")
    share = "" if math.isnan(held) else f" ({_percent(held)} of the fall of reverse KL on own states)"
    return _alignment_verdict(name, question, moved, limits, advice, share)


def shared_mass(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether a small shared token set holds most of both models' mass at the last checkpoint."""
    name, question = "shared_mass", "Do both models put their mass on shared tokens?"
    if not is_scored(tables, "on-policy"):
        return _not_scored(name, question, "on-policy")
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
        return _not_scored("entropy_gap", question, "on-policy")
    seen = change(tables, "entropy_gap", "on-policy")
    if seen.n_prompts < limits.prompts or seen.n_checkpoints < 2:
        return _too_little("entropy_gap", question, seen.n_prompts, limits, seen.n_checkpoints)
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
    )


def accuracy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student got better at the task."""
    question = "Did the student get better at the task?"
    if not is_scored(tables, "on-policy"):
        return _not_scored("accuracy", question, "on-policy")
    seen = change(tables, "accuracy", "on-policy")
    if math.isnan(seen.last):
        return _unknown(
            "accuracy",
            question,
            "The prompts have no reference answers, so alignment is all that can be seen.",
            "Give answers in the prompts file: more alike is not the same as better.",
        )
    if seen.n_prompts < limits.prompts or seen.n_checkpoints < 2:
        return _too_little("accuracy", question, seen.n_prompts, limits, seen.n_checkpoints)
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


@dataclass(frozen=True)
class _Moved:
    """How the pair moved on one state set."""

    states: str
    status: Status
    word: str
    overlap: Change
    kl: Change


def _alignment(tables: Tables, states: str, limits: Thresholds) -> _Moved:
    """Reverse KL decides; the overlap ratio supports or contradicts it.

    Alone it decides nothing against the pair: past the tokens that carry mass it compares noise with noise.
    """
    overlap, kl = change(tables, "overlap_ratio", states), change(tables, "reverse_kl", states)
    more_shared = overlap.direction(limits.overlap_ratio_change, limits.order)
    closer = -kl.direction(limits.reverse_kl_change, limits.order)
    status: Status
    if closer * more_shared < 0:
        status, word = "warn", "mixed"
    elif closer < 0:
        status, word = "fail", "regress"
    elif closer > 0 or more_shared > 0:
        status, word = "pass", "progress"
    else:
        status, word = "warn", "no clear change"
    return _Moved(states, status, word, overlap, kl)


def _alignment_verdict(
    name: str, question: str, moved: _Moved, limits: Thresholds, advice: dict[Status, str], share: str = ""
) -> Verdict:
    overlap, kl = moved.overlap, moved.kl
    if overlap.n_prompts < limits.prompts or overlap.n_checkpoints < 2:
        return _too_little(name, question, overlap.n_prompts, limits, overlap.n_checkpoints)
    order = "" if math.isnan(kl.tau) else f", order of the KL means τ = {number(kl.tau, 1, signed=True)}"
    where = "On own states" if moved.states == "on-policy" else "At the start's states"
    return Verdict(
        name=name,
        question=question,
        status=moved.status,
        value=kl.difference,
        ci_low=kl.ci_low,
        ci_high=kl.ci_high,
        threshold=-limits.reverse_kl_change,
        evidence=f"{where}, {moved.word}: {kl.path}, {overlap.path}{share}; differences {kl.shift} and "
        f"{overlap.shift}, {overlap.n_prompts} prompts, {overlap.n_checkpoints} checkpoints{order}.",
        advice=advice[moved.status],
        reference=f"{PAPER}, section 4.1 (success: overlap ratio .72 → .91 over training)",
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
        return _too_little(name, question, int(student["n_prompts"]), limits)
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
    )


def _percent(share: float) -> str:
    return "all" if share >= 1 else f"{max(0.0, share):.0%}"


def _value(row: pd.Series) -> str:
    return with_interval(row["value"], row["ci_low"], row["ci_high"])


def _unknown(name: str, question: str, evidence: str, advice: str) -> Verdict:
    nan = math.nan
    return Verdict(name, question, "unknown", nan, nan, nan, nan, evidence, advice, "")


def _not_scored(name: str, question: str, states: str) -> Verdict:
    return _unknown(name, question, f"The {states} states were not scored.", f"Run report with {states} in --states.")


def _too_little(name: str, question: str, prompts: int, limits: Thresholds, checkpoints: int = 2) -> Verdict:
    if checkpoints < 2:
        return _unknown(
            name,
            question,
            "There is one checkpoint, so nothing can be compared.",
            "Save more checkpoints, or name the initial student with --student.",
        )
    return _unknown(
        name,
        question,
        f"{prompts} prompts are too few for an interval that means something; at least {limits.prompts} are needed.",
        "Give more prompts.",
    )
