"""The rule that own states alone can never give: whether a run only looks like a success."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number
from opd_diag.tables import Tables
from opd_diag.tables.split import PARTS
from opd_diag.verdicts.alignment import PAPER, moved_at_start, moved_on
from opd_diag.verdicts.established import ONE_RUN, outcome
from opd_diag.verdicts.evidence import OWN, START, TEACHER, Change, change, change_of_kl, is_scored, row_at, split_of_kl
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import STEP_ZERO_ADVICE, needs_whole, not_scored, too_little, unknown

NAME = "false_success"
QUESTION = "Can the curves on own states be believed?"


@dataclass(frozen=True)
class Sign:
    """Something that gets worse while own states look better."""

    said: str
    known: bool
    """Whether it could be looked at."""
    worse: bool


def false_success(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether progress on own states is false: it holds at the start's in part at most, and something gets worse.

    What may get worse: the forward KL on the teacher's states rises; the responses lose diversity, and have less of it
    than the teacher's; accuracy falls. Each with an interval that leaves out 0.
    """
    if not step_zero_known:
        return unknown(NAME, QUESTION, "Step 0 is unknown, and only its states could tell.", STEP_ZERO_ADVICE)
    for states in (OWN, START):
        if not is_scored(tables, states):
            return not_scored(NAME, QUESTION, states)
    # where the curves went on their way does not matter here: a run that bounces deceives as well, or holds as well
    own = moved_on(tables, OWN, limits, ordered=False)
    if own.kl.thin(limits.prompts):
        return too_little(NAME, QUESTION, own.kl.n_prompts, limits, own.kl.n_checkpoints)
    if own.kl.bounds and own.status in ("unknown", "pass"):  # progress is held against parts of it, which have none
        return needs_whole(NAME, QUESTION, f"reverse KL on own states ({own.kl.ends})")
    start = change_of_kl(tables, START)
    if own.status == "pass" and start.bounds:  # where it holds is not known
        return needs_whole(NAME, QUESTION, f"reverse KL at the start's states ({start.ends})")
    if math.isnan(own.kl.ci_low):
        missing = f"There is no interval of reverse KL on own states ({own.kl.ends})."
        return unknown(NAME, QUESTION, missing, "See which tokens one model holds impossible, as for masked ids.")
    signs = [teacher_left(tables, limits), diversity_lost(tables, limits), accuracy_lost(tables, limits)]
    worse = [sign for sign in signs if sign.worse]
    status: Status
    if own.status != "pass":
        status, reading = "pass", "No progress on own states is established that could deceive"
    elif worse:
        status, reading = _with_harm(tables, limits)
    else:
        status, reading = _without_harm(tables, limits, signs)
    said = "; ".join(sign.said for sign in (worse or signs) if sign.known)
    state = split_of_kl(tables, "state_change")
    so = f"state change of reverse KL {state.said}, {own.kl.n_prompts} prompts"
    return Verdict(
        name=NAME,
        question=QUESTION,
        status=status,
        value=state.value,
        ci_low=state.ci_low,
        ci_high=state.ci_high,
        threshold=math.nan,
        evidence=f"{reading}: {own.kl.path} on own states, {start.ends} at the start's"
        f"{'; ' + said if said else ''}; {so}.",
        advice=_ADVICE[status],
        reference=f"Ours; the curves it contradicts: {PAPER}, section 4.1",
        within_floor=state.within_floor,
        caution="A collapse that comes just as close at the start's states is a warning here, and no failure. "
        f"{ONE_RUN}",
    )


def _with_harm(tables: Tables, limits: Thresholds) -> tuple[Status, str]:
    kept = moved_at_start(tables, limits, ordered=False)[0].status == "pass"
    if kept and not moved_elsewhere(tables, limits):
        return "warn", "The progress on own states holds at the start's, but something gets worse"
    return "fail", f"The progress on own states {_extent(tables)} at the start's, and something gets worse"


def _without_harm(tables: Tables, limits: Thresholds, signs: list[Sign]) -> tuple[Status, str]:
    teacher_seen, seen = signs[0].known, any(sign.known for sign in signs)
    kept = moved_at_start(tables, limits, ordered=False)[0].status == "pass"
    if kept and (teacher_seen or not moved_elsewhere(tables, limits)):
        besides = ", and nothing is seen to get worse" if seen else ""
        return "pass", f"The progress on own states holds at the start's{besides}"
    besides = "though nothing is seen to get worse" if seen else "and nothing that might get worse could be looked at"
    return ("warn" if teacher_seen else "unknown"), (
        f"The progress on own states {_extent(tables)} at the start's, {besides}"
    )


def _extent(tables: Tables) -> str:
    return "holds in part" if change_of_kl(tables, START).difference < 0 else "does not hold"


def moved_elsewhere(tables: Tables, limits: Thresholds) -> bool:
    """Whether a good part of the progress on own states comes, beyond doubt, from visiting other states."""
    whole, _, state = (split_of_kl(tables, part) for part in PARTS[:3])
    return state.value < limits.state_share * whole.value < 0 and state.fell


def teacher_left(tables: Tables, limits: Thresholds) -> Sign:
    """Whether the teacher's own responses become more surprising to the student."""
    kl = change(tables, "forward_kl", TEACHER)
    return _sign(kl, outcome(kl, limits, ordered=False) == "rise", " on the teacher's states")


def diversity_lost(tables: Tables, limits: Thresholds) -> Sign:
    """Whether the responses lose diversity, and end with less of it than the teacher's have, their intervals apart.

    A student that comes to write as uniformly as its teacher does what it is taught.
    """
    entropy = change(tables, "unigram_entropy", OWN)
    ours, theirs = (row_at(tables, "unigram_entropy", states, -1) for states in (OWN, TEACHER))
    worse, against = outcome(entropy, limits, ordered=False) == "fall", ""
    if theirs is not None and ours is not None:
        below = ours["value"] <= theirs["value"] - limits.unigram_entropy_change
        worse = worse and bool(below and ours["ci_high"] < theirs["ci_low"])
        against = f" (the teacher's {number(theirs['value'], 2)})"
    return _sign(entropy, worse, f" of the responses{against}")


def accuracy_lost(tables: Tables, limits: Thresholds) -> Sign:
    """Whether the student gets worse at the task."""
    seen = change(tables, "accuracy", OWN)
    return _sign(seen, outcome(seen, limits, ordered=False) == "fall", "")


def _sign(seen: Change, worse: bool, where: str) -> Sign:
    return Sign(f"{seen.path}{where}, {seen.shift}", not math.isnan(seen.difference), worse)


_ADVICE: dict[Status, str] = {
    "pass": "Believe the curves on own states as far as these prompts go.",
    "warn": "Read the rollouts before you believe the curves on own states.",
    "fail": "Do not believe the curves on own states: the student went to where agreeing is easy. Go back to an "
    "earlier checkpoint, lower the learning rate, or start from a cold-started student.",
    "unknown": "Run report with teacher in --states.",
}
