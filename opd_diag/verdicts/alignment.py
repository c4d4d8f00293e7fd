"""Rules on how the pair moves: on own states, at the start's states, at the teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number
from opd_diag.tables import Tables
from opd_diag.tables.split import PARTS
from opd_diag.verdicts.evidence import Change, change, is_scored, split_change
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import STEP_ZERO_ADVICE, not_scored, too_little, unknown

PAPER = "arXiv 2604.13016"

_WHERE = {"on-policy": "On own states", "start": "At the start's states"}


@dataclass(frozen=True)
class Moved:
    """How the pair moved on one state set."""

    states: str
    status: Status
    word: str
    overlap: Change
    kl: Change


def moved_on(tables: Tables, states: str, limits: Thresholds) -> Moved:
    """Say how the pair moved: reverse KL decides, the overlap ratio supports or contradicts it.

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
        bounced = kl.direction(limits.reverse_kl_change, -1.0)  # first and last differ, but not the way of the others
        status, word = "warn", "no steady change" if bounced else "no clear change"
    return Moved(states, status, word, overlap, kl)


def moved_at_start(tables: Tables, limits: Thresholds) -> tuple[Moved, float]:
    """Say how the pair moved at the start's states, and which share of the fall of reverse KL on own states it is.

    The share is that of the policy change; NaN where reverse KL does not fall on own states. Where it is small, and the
    state change is established, progress holds in part only.
    """
    moved, own = moved_on(tables, "start", limits), moved_on(tables, "on-policy", limits)
    whole, policy, state = (split_change(tables, "reverse_kl", part) for part in PARTS[:3])
    held = policy.value / whole.value if own.status == "pass" and whole.fell else math.nan
    if moved.status == "pass" and held < limits.held_share and state.fell:
        moved = replace(moved, status="warn", word="progress in part")
    return moved, held


def alignment_on_policy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether student and teacher grow alike on the states each checkpoint visits itself."""
    name, question = "alignment_on_policy", "Do student and teacher grow alike on the student's own states?"
    if not is_scored(tables, "on-policy"):
        return not_scored(name, question, "on-policy")
    advice: dict[Status, str] = {
        "pass": "No success by itself: a collapse looks the same here. Read it with the start's and teacher's states.",
        "warn": "See whether the pair was alike from the start (nothing to gain) or far apart (cold start, prompts).",
        "fail": "Read the rollouts; lower the learning rate, or start from a cold-started student.",
    }
    return _verdict(name, question, moved_on(tables, "on-policy", limits), limits, advice)


def alignment_at_start(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether the same holds at the states of the initial student, which do not move."""
    name, question = "alignment_at_start", "Does it hold at equal states, those of the initial student?"
    if not step_zero_known:
        missing = "Step 0 is unknown, so what changed before the first checkpoint cannot be seen."
        return unknown(name, question, missing, STEP_ZERO_ADVICE)
    if not is_scored(tables, "start"):
        return not_scored(name, question, "start")
    moved, held = moved_at_start(tables, limits)
    advice: dict[Status, str] = {
        "pass": "At these states the policy itself came closer to the teacher. Elsewhere it need not have: read the "
        "teacher's states too.",
        "warn": "Progress on own states, if any, comes mostly from visiting other states: read the rollouts.",
        "fail": "What the policy had in common with the teacher at the start's states is lost: read the rollouts.",
    }
    share = "" if math.isnan(held) else f" (policy change: {_percent(held)} of the fall of reverse KL on own states)"
    return _verdict(name, question, moved, limits, advice, share, _said_split(tables))


def alignment_at_teacher(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student comes to cover what the teacher writes: forward KL at the teacher's own states.

    Reverse KL there may rise in a healthy run that seeks modes; forward KL is what missing something costs.
    """
    name, question = "alignment_at_teacher", "Does the student come to cover what the teacher writes?"
    if not is_scored(tables, "teacher"):
        return not_scored(name, question, "teacher")
    kl = change(tables, "forward_kl", "teacher")
    if kl.thin(limits.prompts):
        return too_little(name, question, kl.n_prompts, limits, kl.n_checkpoints)
    fell = kl.direction(limits.forward_kl_change, limits.order) < 0
    rose = kl.direction(limits.forward_kl_change, -1.0) > 0  # harm at the end is harm, whatever came between
    status: Status = "pass" if fell else "fail" if rose else "warn"
    near = change(tables, "teacher_state_coverage", "on-policy")
    covered = "" if math.isnan(near.last) else f", {near.path}"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=kl.difference,
        ci_low=kl.ci_low,
        ci_high=kl.ci_high,
        threshold=-limits.forward_kl_change,
        evidence=f"At the teacher's states, {kl.path}{covered}; difference {kl.shift}, {kl.n_prompts} prompts.",
        advice={
            "pass": "What the teacher does becomes less surprising to the student.",
            "warn": "That the student comes nearer to what the teacher writes is not established.",
            "fail": "The student loses what the teacher does: read the rollouts, lower the learning rate.",
        }[status],
        reference="Coverage: arXiv 2002.09797. Forward and reverse KL: arXiv 2306.08543, section 2.1",
        within_floor=kl.within_floor,
    )


def _verdict(
    name: str,
    question: str,
    moved: Moved,
    limits: Thresholds,
    advice: dict[Status, str],
    share: str = "",
    split: str = "",
) -> Verdict:
    overlap, kl = moved.overlap, moved.kl
    if overlap.thin(limits.prompts):
        return too_little(name, question, overlap.n_prompts, limits, overlap.n_checkpoints)
    order = "" if math.isnan(kl.tau) else f", order of the KL means τ = {number(kl.tau, 1, signed=True)}"
    return Verdict(
        name=name,
        question=question,
        status=moved.status,
        value=kl.difference,
        ci_low=kl.ci_low,
        ci_high=kl.ci_high,
        threshold=-limits.reverse_kl_change,
        evidence=f"{_WHERE[moved.states]}, {moved.word}: {kl.path}, {overlap.path}{share}; differences {kl.shift} and "
        f"{overlap.shift}{split}, {overlap.n_prompts} prompts, {overlap.n_checkpoints} checkpoints{order}.",
        advice=advice[moved.status],
        reference=f"{PAPER}, section 4.1 (success: overlap ratio .72 → .91 over training)",
        within_floor=kl.within_floor,
    )


def _said_split(tables: Tables) -> str:
    """Say how the change of reverse KL on own states divides."""
    policy = split_change(tables, "reverse_kl", "policy_change")
    state = split_change(tables, "reverse_kl", "state_change")
    if math.isnan(policy.value):
        return ""
    return f"; of the change of reverse KL on own states, policy {policy.said} and states {state.said}"


def _percent(share: float) -> str:
    """Write a share, at least none and at most all."""
    return "all" if share >= 1 else "none" if share <= 0 else f"{share:.0%}"
