"""Rules on depth: how far the dense signal reaches, and whether instability starts at the end and moves forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables.continuations import THEIRS
from opd_diag.tables.excess import Break, Excess
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import ONE_RUN, plain, rise_excluded, would_tell
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import too_little, unknown

LEVEL = 0.05
"""Of all questions of a verdict together."""

MORE = "Give more prompts or rollouts."
SIGNAL = "depth_signal", "How far into a response does the dense signal reach?"
COURSE = "instability", "Does instability start at the end of responses and move forward?"


def signal_break(excesses: Sequence[Excess], limits: Thresholds) -> tuple[Break, Excess] | None:
    """Find the break of the dense signal beyond the first control that shows one.

    Beyond another checkpoint's own responses the metric itself must rise there too: where that one had much to learn
    early and this one has learned it, the late tokens look worse by comparison alone. Controls on too few prompts are
    not asked.
    """
    asked = [excess for excess in excesses if excess.n_prompts >= limits.prompts]
    for excess in asked:
        found = excess.breaks(limits.depth_change, LEVEL / len(asked))
        if found is None:
            continue
        if excess.control == THEIRS or excess.own_rise(found.position).ci_low > limits.depth_change:
            return found, excess
    return None


def depth_signal(excesses: Sequence[Excess], length: int, limits: Thresholds) -> Verdict:
    """Whether reverse KL rises from a place on in the same rollouts, more than on the teacher's own or at the start.

    Parameters
    ----------
    excesses
        Of reverse KL of the last checkpoint: over the teacher's own responses first, then, where there is another
        checkpoint, over the first one's own.
    length
        Tokens of the cohort.
    limits
        Hold δ.
    """
    control = next((excess for excess in excesses if excess.control == THEIRS), None)
    if control is None or control.n_prompts < limits.prompts:
        return unknown(*SIGNAL, _too_few(control, length, limits), "Give more prompts, or more tokens.")
    found, rise = signal_break(excesses, limits), _Rise.of(control, limits.depth_change)
    place = None if found is None else found[0]
    if found is not None:
        than = "on the teacher's own" if found[1].control == THEIRS else f"in those of {found[1].control}"
        evidence = (
            f"It breaks at token {said(found[0])} of the first {length}: from there reverse KL is "
            f"{number(found[0].jump, 2)} nats higher than before, beyond that {than}"
        )
    elif rise.excluded:
        evidence = (
            f"None seen in the first {length} tokens: reverse KL rises nowhere beyond that on the teacher's own; the "
            f"rise least excluded is {rise.said}"
        )
    else:
        evidence = (
            f"Inconclusive: no break is established in the first {length} tokens, but reverse KL may rise beyond that "
            f"on the teacher's own, by {rise.said}"
        )
    status: Status = "warn" if place else "pass" if rise.excluded else "unknown"
    needed = f"; {would_tell(rise.prompts)}" if status == "unknown" else ""
    counted = f"{control.n_prompts} prompts, {control.n_rollouts[0]} responses of {control.label} that get there"
    return Verdict(
        *SIGNAL,
        status,
        *_position(place),
        threshold=math.nan,
        evidence=f"{evidence} (δ = {plain(limits.depth_change)} nats); {counted}{needed}.",
        advice={
            "pass": "Longer responses than these may behave otherwise.",
            "warn": "Train on responses that end there first, or weigh the tokens after less.",
            "unknown": MORE,
            "fail": "",
        }[status],
        reference=f"{PAPER}, section 6.1 (responses of 3K to 7K tokens best)",
        caution="It looks for one step: a slow decline is put in its middle. A rise in the outer eighths is not "
        f"excluded. {ONE_RUN}",
    )


def onsets(excesses: Sequence[Excess], limits: Thresholds) -> list[tuple[Excess, Break]]:
    """Give the checkpoints at which the student's entropy rises from a place on, all of them held together at 5 %."""
    asked = [excess for excess in excesses if excess.n_prompts >= limits.prompts]
    found = [(excess, excess.breaks(limits.entropy_depth_change, LEVEL / len(asked))) for excess in asked]
    return [(excess, place) for excess, place in found if place is not None]


def instability(excesses: Sequence[Excess], labels: Sequence[str], length: int, limits: Thresholds) -> Verdict:
    """Whether the student's entropy blows up from a place on, and whether that place moves to the front.

    Parameters
    ----------
    excesses
        Of student entropy, over the teacher's own responses, checkpoint by checkpoint in their order; those without a
        response so long are left out.
    labels
        Of all checkpoints, in their order.
    length
        Tokens of the cohort.
    limits
        Hold δ.
    """
    last, seen = labels[-1], onsets(excesses, limits)
    at_last = next((excess for excess in excesses if excess.label == last), None)
    if at_last is None or at_last.n_prompts < limits.prompts:
        return unknown(*COURSE, _too_few(at_last, length, limits), "Give more prompts, or more tokens.")
    if len(labels) < 2 and not seen:
        return too_little(*COURSE, at_last.n_prompts, limits, len(labels))
    rise = _Rise.of(at_last, limits.entropy_depth_change)
    place = seen[-1][1] if seen and seen[-1][0].label == last else None
    status: Status = "warn" if place else "pass" if rise.excluded else "unknown"
    now = (
        f"at {last} the student's entropy rises along its responses nowhere beyond that along the teacher's; the rise "
        f"least excluded is {rise.said}"
        if rise.excluded
        else f"at {last} no rise of the student's entropy beyond that along the teacher's is established, but it may "
        f"be {rise.said}"
    )
    if place is not None:
        evidence = _course(seen, length)
    else:
        evidence = f"{_course(seen, length)}; {now}" if seen else f"No blow-up seen: {now}"
    needed = f"; {would_tell(rise.prompts)}" if status == "unknown" else ""
    return Verdict(
        *COURSE,
        status,
        *_position(place),
        threshold=math.nan,
        evidence=f"{evidence} (δ = {plain(limits.entropy_depth_change)} nats); {at_last.n_prompts} prompts{needed}.",
        advice={
            "pass": "Look at the heat maps where responses are longer than these.",
            "warn": "Train on shorter responses, or stop before that checkpoint; read the tokens there.",
            "unknown": MORE,
            "fail": "",
        }[status],
        reference=f"{PAPER}, section 6.1 (instability begins at late tokens and moves to earlier ones)",
        caution=f"Checkpoints whose responses are shorter than the cohort are not asked. {ONE_RUN}",
    )


def _course(seen: Sequence[tuple[Excess, Break]], length: int) -> str:
    """Say where instability is first seen, and whether it moved."""
    (first, begun), (now, place) = seen[0], seen[-1]
    half = "late" if begun.position >= length / 2 else "early"
    start = f"Entropy blows up at {first.label} from token {said(begun)} of {length} on, in the {half} half"
    if first is now:
        return f"{start}; it is seen at one checkpoint, so whether it moves is not known"
    moved = "is not seen to move"
    if place.high < begun.low:
        moved = "moved forward"
    elif place.low > begun.high:
        moved = "moved back"
    return f"{start}, and by {now.label} from token {said(place)} on: it {moved}"


@dataclass(frozen=True)
class _Rise:
    """The rise of an excess at the place where it is least excluded."""

    excluded: bool
    prompts: int | None
    """How many would decide it."""
    said: str

    @classmethod
    def of(cls, excess: Excess, least: float) -> _Rise:
        found = excess.largest_rise()
        if found is None:
            return cls(False, None, "an unknown amount, as there are too few tokens to look for a place")
        position, rise = found
        span = with_interval(rise.value, rise.ci_low, rise.ci_high, signed=True)
        return cls(*rise_excluded(rise, least), f"{span} nats, from token {position} on")


def said(place: Break) -> str:
    """Write a position with its interval."""
    return f"{place.position} [{place.low}, {place.high}]"


def _position(place: Break | None) -> tuple[float, float, float]:
    nan = math.nan
    return (nan, nan, nan) if place is None else (float(place.position), float(place.low), float(place.high))


def _too_few(excess: Excess | None, length: int, limits: Thresholds) -> str:
    n = 0 if excess is None else excess.n_prompts
    return (
        f"{n} {'prompt has' if n == 1 else 'prompts have'} responses of {length} tokens by both models, too few to "
        f"tell; at least {max(limits.prompts, stats.MIN_CLUSTERS):g} are needed."
    )
