"""One sentence for a tired reader, put together from the verdicts; never "it works" from own states alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd_diag.records.verdict import Status, Verdict


@dataclass(frozen=True)
class Headline:
    """What a page says first."""

    status: Status
    title: str
    facts: tuple[str, ...]
    """What the verdicts behind it saw, without intervals and n: those stand in the verdicts themselves."""


def headline(verdicts: Sequence[Verdict]) -> Headline:
    """Put the verdicts together.

    Success needs three things at once: alike on own states, alike at the start's states, and better at the task; and
    nothing that gets worse meanwhile. A false success outweighs all else.
    """
    by_name = {v.name: v for v in verdicts}
    own, start, task, before = (by_name[n] for n in ("alignment_on_policy", "alignment_at_start", "accuracy", BEFORE))
    status, title = _reading(own.status, start.status, task.status, before.status)
    deceives = by_name["false_success"].status
    if deceives == "fail":
        status, title = "fail", FALSE_SUCCESS
    elif deceives == "warn" and status == "pass":
        status, title = "warn", f"{title}, but something else gets worse"
    seen = (own, start, by_name["alignment_at_teacher"], task)
    return Headline(status, title, tuple(_short(v.evidence) for v in seen))


def _short(evidence: str) -> str:
    """Keep what happened; differences, intervals and n follow the first semicolon and stand in the table below."""
    return evidence.split("; ")[0].rstrip(".") + "."


BEFORE = "patterns_compatible"

FALSE_SUCCESS = (
    "False success: the student got worse, and looks better at least partly because it went where agreeing is easy"
)

Reading = tuple[Status, str]


def _reading(own: Status, start: Status, task: Status, before: Status) -> Reading:
    if own == "unknown":
        return "unknown", "Nothing to compare yet"
    if task == "fail":
        return "fail", "The student gets worse at the task" + (" while it looks more aligned" if own == "pass" else "")
    if own == "fail":
        return "fail", "The student moves away from its teacher"
    if own == "warn":
        return _stalled(task, before)
    if start == "pass":
        return _progressing(task)
    if start == "unknown":
        return "unknown", "More alike on own states; without step 0 nobody knows whether that is progress"
    if start == "fail":
        return "fail", "More alike on own states, less at the start's: the student moved to where agreeing is easy"
    return _moved_elsewhere(task)


def _progressing(task: Status) -> Reading:
    if task == "pass":
        return "pass", "The student grows like its teacher, and better at the task"
    if task == "warn":
        return "warn", "More alike, but no gain at the task is established"
    return "unknown", "More alike; whether anything was learned is unknown without answers"


def _moved_elsewhere(task: Status) -> Reading:
    if task == "pass":
        return "warn", "Better at the task, and alike where the student goes now; at equal states in part at most"
    return "warn", "More alike where the student goes now; at equal states that holds in part at most"


def _stalled(task: Status, before: Status) -> Reading:
    if task == "pass":
        return "warn", "Better at the task, with no gain in alignment"
    if before == "pass":
        return "warn", "Alike from the start, and nothing is learned"
    return "warn", "Nothing happens: no gain in alignment is established, nor at the task"
