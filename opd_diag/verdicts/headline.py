"""One sentence for a tired reader, put together from the verdicts; never "it works" from own states alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opd_diag.records.verdict import Status, Verdict, alarms_first
from opd_diag.stats.rounding import number
from opd_diag.verdicts.titles import title_of
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE


@dataclass(frozen=True)
class Headline:
    """What a page says first."""

    status: Status
    title: str
    facts: tuple[str, ...]
    """What the verdicts behind it saw, without intervals and n: those stand in the verdicts themselves."""
    advice: str = ""
    """What to do; empty where nothing alarms."""


def headline(verdicts: Sequence[Verdict]) -> Headline:
    """Put the verdicts together.

    Misaligned inputs outweigh all else, then a false success, then responses that degenerate. Success needs three
    things at once: alike on own states, alike at the start's states, and better at the task; and no verdict that
    alarms.
    """
    named = {v.name: v for v in verdicts}
    for name, title in OUTWEIGHS.items():
        if named[name].status == "fail":
            behind = [named[name], *_why(named), *(named[n] for n in BEHIND)]
            return Headline("fail", title, _facts(behind), named[name].advice)
    status, title = _reading(named)
    if status == "pass" and named["healthy"].status in ("warn", "fail"):
        status, title = "warn", f"{title}, but {_alarms(verdicts)}"
    elif status == "pass" and named["healthy"].status == "unknown":
        status, title = "unknown", f"{title}, as far as could be asked"
    if status == "pass":
        return Headline(status, title, _facts([named[n] for n in BEHIND]))
    why = _why(named)
    return Headline(status, title, _facts([*why, *(named[n] for n in BEHIND)]), _advice(verdicts, why))


OUTWEIGHS = {
    "aligned_inputs": "Misaligned inputs: a self-test failed, and what rests on it cannot be believed",
    "false_success": "False success: the student got worse, and looks better at least partly because it went where "
    "agreeing is easy",
    "degeneration": "Degeneration: responses loop or run into the limit, and a low KL there is no success",
}
"""What is said before anything else, in this order."""

BEHIND = ("alignment_on_policy", "alignment_at_start", "alignment_at_teacher", "accuracy")
"""Verdicts whose evidence stands below the title."""

BEFORE = ("patterns_compatible", "indistinguishable_teacher", "new_capability")
"""Verdicts on the pair before training; where one of them warns, it may be why a run goes wrong."""

MOST_FAILS = 2
"""Verdicts that fail of which the advice stands under the title."""

INFINITE = number(math.inf, 0)
"""How evidence writes a mean that is infinite."""

_INTERVAL = re.compile(r" ~?\[[-+−\d.,e∞]+, [-+−\d.,e∞]+\]")

Reading = tuple[Status, str]


def _facts(behind: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(_short(verdict.evidence) for verdict in behind)


def _why(named: Mapping[str, Verdict]) -> list[Verdict]:
    """Give what was wrong with the pair before training; of one with nothing to give also that it is alike."""
    warned = [named[n] for n in BEFORE if named[n].status in ("warn", "fail")]
    alike = named["patterns_compatible"]
    return [alike, *warned] if warned and alike.status == "pass" else warned


def _advice(verdicts: Sequence[Verdict], why: Sequence[Verdict]) -> str:
    """Say what to do about what fails, and about the pair; where neither is so, about the first warning.

    Where nothing alarms and a server left the answer open: how to get it.
    """
    alarms = [v for v in alarms_first(verdicts) if v.status in ("fail", "warn") and v.name != "healthy"]
    first = [v for v in alarms if v.status == "fail"][:MOST_FAILS]
    bounded = [v for v in verdicts if v.name == BEHIND[0] and _left_open(v)]
    told = [*first, *(v for v in why if v in alarms)] or alarms[:1] or bounded
    return " ".join(dict.fromkeys(v.advice for v in told))


def _left_open(verdict: Verdict) -> bool:
    """Whether it is open because a teacher's server returned a part of its distributions."""
    return verdict.status == "unknown" and verdict.advice == BOUNDS_ADVICE


def _short(evidence: str) -> str:
    """Keep what happened, without intervals; differences and n follow the first semicolon and stand in the table."""
    return _INTERVAL.sub("", evidence.split("; ")[0]).rstrip(".") + "."


def _alarms(verdicts: Sequence[Verdict]) -> str:
    names = [v.name for v in verdicts if v.status in ("warn", "fail") and v.name != "healthy"]
    if names == ["false_success"]:
        return "something else gets worse"
    return f"see {', '.join(map(title_of, names))}"


def _reading(named: Mapping[str, Verdict]) -> Reading:
    own, start, task = (named[n] for n in ("alignment_on_policy", "alignment_at_start", "accuracy"))
    endless = own.status == "unknown" and INFINITE in own.evidence
    bounded = _left_open(own)
    if own.status == "unknown" and math.isnan(own.value) and not endless and not bounded:
        return "unknown", "Nothing to compare yet"
    if task.status == "fail":
        alike = " while it looks more aligned" if own.status == "pass" else ""
        return "fail", f"The student gets worse at the task{alike}"
    if bounded:
        return "unknown", "Alignment cannot be told: of the teacher only its most probable tokens came back"
    if endless:
        return "unknown", "Alignment cannot be told: reverse KL is infinite, as the teacher holds tokens impossible"
    if own.status == "fail":
        return "fail", "The student moves away from its teacher"
    if own.status == "pass":
        return _alike(named)
    if stands_still(own) or (own.status == "unknown" and stands_still(start)):
        return _stalled(named)
    if own.status == "warn":
        return "warn", "No steady course on own states"
    return _not_established(start.status, task.status)


def stands_still(verdict: Verdict) -> bool:
    """Whether no change is established as such: equivalent within δ."""
    return verdict.status == "warn" and abs(verdict.value) < abs(verdict.threshold)


def _alike(named: Mapping[str, Verdict]) -> Reading:
    start, task = named["alignment_at_start"].status, named["accuracy"].status
    if start == "pass":
        return _progressing(task)
    if start == "unknown":
        return "unknown", "More alike on own states; whether that is progress at equal states is not known"
    if start == "fail":
        return "fail", "More alike on own states, less at the start's: the student moved to where agreeing is easy"
    if task == "pass":
        return "warn", "Better at the task, and alike where the student goes now; at equal states in part at most"
    if not named["false_success"].ci_high < 0:  # the state change: that agreeing became easier is not established
        return "warn", "More alike on own states; at equal states no clear progress"
    if named["patterns_compatible"].status == "warn":
        return (
            "warn",
            "A teacher of another pattern: the student went where agreeing is easier; at equal states it came closer "
            "in part at most",
        )
    return "warn", "More alike where the student goes now, as agreeing is easier there; at equal states in part at most"


def _progressing(task: Status) -> Reading:
    if task == "pass":
        return "pass", "The student grows like its teacher, and better at the task"
    if task == "warn":
        return "warn", "More alike, and no better at the task"
    return "unknown", "More alike; whether anything was learned at the task is not known"


def _not_established(start: Status, task: Status) -> Reading:
    if start == "fail":
        return "fail", "At equal states the student moves away from its teacher"
    gain = "Better at the task" if task == "pass" else ""
    if start == "pass":
        said = "more alike at equal states; on own states no trend is established"
        return "unknown", f"{gain}, and {said}" if gain else said[0].upper() + said[1:]
    return "unknown", f"{gain}; no trend in alignment is established" if gain else "Nothing is established yet"


def _stalled(named: Mapping[str, Verdict]) -> Reading:
    if named["accuracy"].status == "pass":
        return "warn", "Better at the task, with no gain in alignment"
    if named["indistinguishable_teacher"].status == "warn":
        return "warn", "Nothing to learn: the teacher cannot be told from the initial student"
    if named["new_capability"].status == "warn":
        return "warn", "Nothing happens: the teacher has nothing new to give on these prompts"
    if named["patterns_compatible"].status == "pass":
        return "warn", "Alike from the start, and nothing is learned"
    return "warn", "Nothing happens: no gain in alignment, and none at the task is established"
