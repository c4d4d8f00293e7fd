"""Rules on how the pair moves: on own states, at the start's states, at the teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from opd_diag.records.verdict import Status, Verdict
from opd_diag.tables import Tables
from opd_diag.tables.curves import curve_of
from opd_diag.tables.split import PARTS
from opd_diag.verdicts.established import Outcome, caution, delta, open_advice, order_said, outcome, plain, told
from opd_diag.verdicts.evidence import OWN, START, TEACHER, Change, change, change_of_kl, is_scored, split_of_kl
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import STEP_ZERO_ADVICE, not_scored, too_little, unknown

PAPER = "arXiv 2604.13016"

AVERAGES = "token, rollout and prompt averages lead to different conclusions"

_MIXED = (("rise", "rise"), ("fall", "fall"), ("fall", "unordered fall"))
"""Outcomes of reverse KL and overlap ratio that contradict each other."""

_WHERE = {OWN: "On own states", START: "At the start's states"}


@dataclass(frozen=True)
class Moved:
    """How the pair moved on one state set."""

    states: str
    status: Status
    word: str
    overlap: Change
    kl: Change


def moved_on(tables: Tables, states: str, limits: Thresholds, *, ordered: bool = True) -> Moved:
    """Say how the pair moved: reverse KL decides, the overlap ratio supports or contradicts it.

    Alone it decides nothing against the pair: past the tokens that carry mass it compares noise with noise.
    """
    overlap, kl = change(tables, "overlap_ratio", states), change_of_kl(tables, states)
    shared = outcome(overlap, limits, direction=1, ordered=ordered)
    apart = outcome(kl, limits, direction=-1, ordered=ordered)
    status: Status
    if math.isnan(kl.ci_low) or (kl.bounds and apart == "inconclusive"):
        status, word = "unknown", told(kl, limits, apart)
    elif (apart.removeprefix("unordered "), shared) in _MIXED:
        status, word = "warn", "mixed"
    elif apart == "rise":
        status, word = "fail", "regress"
    elif apart == "fall" or shared == "rise":
        decides = kl if apart == "fall" else overlap
        status, word = ("unknown", f"progress, but {AVERAGES}") if decides.depends_on_average else ("pass", "progress")
    else:
        status, word = ("warn" if apart in ("equivalent", "unordered rise") else "unknown"), told(kl, limits, apart)
    return Moved(states, status, word, overlap, kl)


def moved_at_start(tables: Tables, limits: Thresholds, *, ordered: bool = True) -> tuple[Moved, float]:
    """Say how the pair moved at the start's states, and which share of the fall of reverse KL on own states it is.

    The share is that of the policy change; NaN where reverse KL does not fall on own states. Where it is small, and the
    state change is established, progress holds in part only.
    """
    moved, own = moved_on(tables, START, limits, ordered=ordered), moved_on(tables, OWN, limits, ordered=False)
    whole, policy, state = (split_of_kl(tables, part) for part in PARTS[:3])
    held = policy.value / whole.value if own.status == "pass" and whole.fell else math.nan
    if moved.status == "pass" and held < limits.held_share and state.fell:
        moved = replace(moved, status="warn", word="progress in part")
    return moved, held


def alignment_on_policy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether student and teacher grow alike on the states each checkpoint visits itself."""
    name, question = "alignment_on_policy", "Do student and teacher grow alike on the student's own states?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    advice: dict[Status, str] = {
        "pass": "Read it with the start's and teacher's states.",
        "warn": "See whether the pair was alike from the start (nothing to gain) or far apart (cold start, prompts).",
        "fail": "Read the rollouts; lower the learning rate, or start from a cold-started student.",
        "unknown": "Give more prompts or rollouts.",
    }
    warning = "No success by itself: a collapse looks the same here."
    moved = moved_on(tables, OWN, limits)
    return _verdict(name, question, moved, limits, advice, warning, still=_still(tables, moved.kl, OWN, limits))


def alignment_at_start(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether the same holds at the states of the initial student, which do not move."""
    name, question = "alignment_at_start", "Does it hold at equal states, those of the initial student?"
    if not step_zero_known:
        missing = "Step 0 is unknown, so what changed before the first checkpoint cannot be seen."
        return unknown(name, question, missing, STEP_ZERO_ADVICE)
    if not is_scored(tables, START):
        return not_scored(name, question, START)
    moved, held = moved_at_start(tables, limits)
    advice: dict[Status, str] = {
        "pass": "At these states the policy itself came closer to the teacher: read the teacher's states too.",
        "warn": _hardly_at_start(held, limits),
        "fail": "What the policy had in common with the teacher at the start's states is lost: read the rollouts.",
        "unknown": "Give more prompts or rollouts.",
    }
    share = "" if math.isnan(held) else f" (policy change: {_percent(held)} of the fall of reverse KL on own states)"
    warning = "A student that loses its certainty comes closer at its old states too."
    still = _still(tables, moved.kl, START, limits)
    return _verdict(name, question, moved, limits, advice, warning, share, _said_split(tables), still)


def _hardly_at_start(held: float, limits: Thresholds) -> str:
    """Say what to do where the start's states do not show clear progress; `held` is what the policy change explains."""
    if math.isnan(held):
        return "See whether the teacher has anything new to give."
    if held < limits.held_share:
        return "The progress on own states comes mostly from visiting other states: read the rollouts."
    return (
        "Reverse KL and overlap ratio disagree there: see in the concentration curves whether shared tokens lost mass."
    )


def alignment_at_teacher(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student comes to cover what the teacher writes: forward KL at the teacher's own states.

    Reverse KL there may rise in a healthy run that seeks modes; forward KL is what missing something costs.
    """
    name, question = "alignment_at_teacher", "Does the student come to cover what the teacher writes?"
    if not is_scored(tables, TEACHER):
        return not_scored(name, question, TEACHER)
    kl = change(tables, "forward_kl", TEACHER)
    if kl.thin(limits.prompts):
        return too_little(name, question, kl.n_prompts, limits, kl.n_checkpoints)
    found = outcome(kl, limits, direction=-1)
    status: Status = _STATUS[found]
    how = "" if found in ("rise", "unordered rise", "fall") else told(kl, limits, found)
    if status == "pass" and kl.depends_on_average:
        status, how = "unknown", AVERAGES
    near = change(tables, "teacher_state_coverage", OWN)
    covered = "" if math.isnan(near.last) else f", {near.path}"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=kl.difference,
        ci_low=kl.ci_low,
        ci_high=kl.ci_high,
        threshold=-delta(kl, limits),
        evidence=f"At the teacher's states, {kl.path}{covered}; difference {kl.shift}, {kl.n_prompts} prompts"
        f"{'; ' + how if how else ''}{_still(tables, kl, TEACHER, limits)}.",
        advice={
            "pass": "What the teacher does becomes less surprising to the student.",
            "warn": "The student does not come nearer to what the teacher writes: nothing may be left to cover.",
            "fail": "The student loses what the teacher does: read the rollouts, lower the learning rate.",
            "unknown": open_advice(kl, limits),
        }[status],
        reference="Coverage: arXiv 2002.09797. Forward and reverse KL: arXiv 2306.08543, section 2.1",
        within_floor=kl.within_floor,
        caution=caution(kl, "A few tokens that the student thinks impossible decide the mean of forward KL."),
    )


_STATUS: dict[Outcome, Status] = {
    "fall": "pass",
    "unordered fall": "unknown",
    "rise": "fail",
    "unordered rise": "fail",
    "equivalent": "warn",
    "inconclusive": "unknown",
}
"""What becomes of the forward KL: harm at the end is harm, whatever came between."""


def _verdict(
    name: str,
    question: str,
    moved: Moved,
    limits: Thresholds,
    advice: dict[Status, str],
    warning: str,
    share: str = "",
    split: str = "",
    still: str = "",
) -> Verdict:
    overlap, kl = moved.overlap, moved.kl
    if kl.thin(limits.prompts):
        return too_little(name, question, kl.n_prompts, limits, kl.n_checkpoints)
    ordered = order_said(kl, limits, -1)
    return Verdict(
        name=name,
        question=question,
        status=moved.status,
        value=kl.difference,
        ci_low=kl.ci_low,
        ci_high=kl.ci_high,
        threshold=-delta(kl, limits),
        evidence=f"{_WHERE[moved.states]}, {moved.word}: {kl.path}, {overlap.path}{share}; differences {kl.shift} and "
        f"{overlap.shift}{split}, {overlap.n_prompts} prompts, {overlap.n_checkpoints} checkpoints"
        f"{', ' + ordered if ordered else ''}{still}.",
        advice=open_advice(kl, limits) if moved.status == "unknown" else advice[moved.status],
        reference=f"{PAPER}, section 4.1 (success: overlap ratio .72 → .91 over training)",
        within_floor=kl.within_floor,
        caution=caution(kl, warning),
    )


def _said_split(tables: Tables) -> str:
    """Say how the change of reverse KL on own states divides."""
    policy, state = (split_of_kl(tables, part) for part in PARTS[1:3])
    if math.isnan(policy.value):
        return ""
    return f"; of the change of reverse KL on own states, policy {policy.said} and states {state.said}"


def _still(tables: Tables, seen: Change, states: str, limits: Thresholds) -> str:
    """Say since when a curve of four checkpoints or more stands still; nothing of one that did so all the time."""
    if seen.n_checkpoints < 4 or not {seen.metric, "prompt_index"} <= {*tables.states.columns}:
        return ""
    curve, least = curve_of(tables.states, seen.metric, states), delta(seen, limits)
    since = curve.level_since(least)
    if not since:
        return ""
    return f", and stands still since {curve.places[since]}, equivalent within δ = {plain(least)}"


def _percent(share: float) -> str:
    """Write a share, at least none and at most all."""
    return "all" if share >= 1 else "none" if share <= 0 else f"{share:.0%}"
