"""What a study of depth shows: its headline, tables, pictures, and what follows for the length of responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Rollout
from opd_diag.records.verdict import Verdict
from opd_diag.replay import ReplayPlan
from opd_diag.stats.rounding import number, with_interval
from opd_diag.studies.horizon_pictures import pictures
from opd_diag.studies.served import of_server
from opd_diag.studies.study import Shown, Study
from opd_diag.tables.cohort import depth_edges
from opd_diag.tables.continuations import ADVANTAGE
from opd_diag.tables.excess import CURVE_BINS, EXCESS_COLUMNS, Excess
from opd_diag.tables.horizon import cohort_table, entropy_table, survivor_table
from opd_diag.verdicts.continuing import CONTINUING, Lost
from opd_diag.verdicts.horizon import SIGNAL, depth_signal, instability
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import needs_whole

OF_WHOLE = "reverse KL by depth, and with it the dense signal, and the teacher's entropy"
"""What is not known of a teacher whose server returned its top K alone."""


@dataclass(frozen=True)
class Seen:
    """What a replay shows of depth."""

    plan: ReplayPlan
    student: Checkpoint
    """The last checkpoint."""
    states: pd.DataFrame
    labels: list[str]
    """Of the checkpoints, in their order."""
    length: int
    """Tokens of the cohort."""
    signal: list[Excess]
    """Reverse KL of the last checkpoint over each control, the teacher's own first."""
    entropies: list[Excess]
    """Student entropy of each checkpoint over the teacher's own."""
    own: tuple[Rollout, ...]
    """Responses of the last checkpoint."""
    theirs: tuple[Rollout, ...]
    """Responses of the teacher."""
    partly: bool = False
    """Whether the teacher's server returned its top K alone, so that reverse KL by depth is not known."""

    @property
    def last(self) -> str:
        """Label of the last checkpoint."""
        return self.labels[-1]


@dataclass(frozen=True)
class WentOn:
    """What came of continuing prefixes."""

    verdict: Verdict
    table: pd.DataFrame
    lost: Lost | None = None
    """Where the teacher's advantage is lost."""
    told: tuple[str, ...] = ()
    """What was continued, one sentence each."""


def study_of(seen: Seen, went_on: WentOn, limits: Thresholds) -> Study:
    """Put verdicts, tables and pictures together."""
    verdicts = [
        needs_whole(*SIGNAL, "reverse KL by depth") if seen.partly else depth_signal(seen.signal, seen.length, limits),
        instability(seen.entropies, seen.labels, seen.length, limits),
        went_on.verdict,
    ]
    places = _places(verdicts, went_on.lost)
    marks = {name: None if at is None else (at.position, at.low, at.high) for name, at in _known(places).items()}
    tables = _tables(seen, went_on)
    return Study(
        name="horizon",
        question="How long may responses be?",
        headline=_headline(verdicts, places, seen),
        subject=seen.plan.run,
        verdicts=verdicts,
        tables=tables,
        pictures=pictures(tables, seen.last, marks, partly=seen.partly),
        measured=_measured(seen, went_on),
        cannot_tell=(
            "The cohort are the rollouts that reach its length: what is true of short ones is not seen.",
            "Nothing is known beyond the longest responses: none seen means none in these tokens.",
            "Late tokens differ from early ones in what they say. The teacher's own responses control for that as far "
            "as they say the same things at the same depths.",
            "A suggested length is where the signal is lost in this run; that shorter responses train better has to be "
            "tried.",
            "Answers are read off the responses: a prefix that already gives the answer counts as it reads.",
        ),
        shown=[_shown(verdicts, places), *([_shown_continuations(went_on.table)] if len(went_on.table) else [])],
    )


@dataclass(frozen=True)
class Limit:
    """A place beyond which something is lost."""

    position: int
    """Tokens before it; 0 where it is lost at the first depth tried, so that the place is below `high`."""
    low: int
    """95 % interval, or the depths tried on both sides."""
    high: int


Places = dict[str, Limit | None]


def _places(verdicts: Sequence[Verdict], lost: Lost | None) -> Places:
    """Give by verdict the position beyond which something is lost."""
    places: Places = {}
    for verdict in verdicts:
        at = (verdict.value, verdict.ci_low, verdict.ci_high)
        if verdict.name == CONTINUING[0] and lost is not None:
            at = (lost.before, lost.before, lost.at)
        is_lost = verdict.status == "warn"
        places[verdict.name] = Limit(*map(int, at)) if is_lost else None
    return places


def _known(places: Places) -> Places:
    """Give the places without those that are only known to lie below the first depth tried."""
    return {name: place if place is not None and place.position > 0 else None for name, place in places.items()}


def _below(places: Places) -> tuple[str, Limit] | None:
    """Give the place that is only known to lie below the first depth tried, and the verdict that it is of."""
    return next(((name, at) for name, at in places.items() if at is not None and at.position == 0), None)


def _suggested(places: Places) -> tuple[str, Limit] | None:
    """Give the earliest of the known places, and the verdict that it is of."""
    known = [(name, place) for name, place in _known(places).items() if place is not None]
    return min(known, key=lambda of: of[1].position, default=None)


def _headline(verdicts: Sequence[Verdict], places: Places, seen: Seen) -> str:
    suggested, below = _suggested(places), _below(places)
    if suggested is not None:
        name, place = suggested
        also = "" if below is None else f"; {_ROWS[below[0]]}: lost {_said_below(below[1])}"
        return f"Keep responses to about {place.position} tokens: {_LOST[name]}{also}"
    if below is not None:
        return f"Keep responses {_said_below(below[1], _LOST[below[0]])}"
    all_cut = bool(seen.own) and all(rollout.truncated for rollout in seen.own)
    cut = ", at which every response was cut" if all_cut else ""
    if verdicts[0].status == "pass":
        open_ = [_ROWS[verdict.name] for verdict in verdicts if verdict.status == "unknown"]
        where, rest = (" in the dense signal", f"; not known: {' and '.join(open_)}") if open_ else ("", "")
        return f"No limit seen{where}: the signal lasts through the first {seen.length} tokens{cut}{rest}"
    why = "; a top K does not tell of the dense signal" if seen.partly else ""
    return f"Not known yet: no limit is seen in the first {seen.length} tokens{cut}, but none is excluded{why}"


def _said_below(place: Limit, why: str = "") -> str:
    return f"below {place.high} tokens{': ' if why else ''}{why}; try smaller --depths"


_LOST = {
    "depth_signal": "from there the dense signal breaks",
    "instability": "from there the student's entropy blows up",
    "continuation_advantage": "after more of its own words the teacher cannot mend them",
}

_ROWS = {
    "depth_signal": "dense signal (reverse KL beyond its controls)",
    "instability": "instability (student entropy beyond the teacher's own)",
    "continuation_advantage": "teacher's advantage in going on",
}


def _shown(verdicts: Sequence[Verdict], places: Places) -> Shown:
    rows = []
    for verdict in verdicts:
        place = places[verdict.name]
        none = "not known" if verdict.status == "unknown" else "none seen"
        rows.append((_ROWS[verdict.name], *((none, "–") if place is None else _cells(place))))
    suggested = _suggested(places) or _below(places)
    if suggested is not None:
        last = _cells(suggested[1])
    elif verdicts[0].status == "pass":
        is_open = any(verdict.status == "unknown" for verdict in verdicts)
        last = ("none seen in the dense signal" if is_open else "none seen", "–")
    else:
        last = ("not known", "–")
    return Shown(
        "Suggested maximum length of responses",
        "The earliest place beyond which something is lost. Of the teacher's advantage it is the last depth tried at "
        "which it still stands, with the first at which it does not; where it is lost at the first one tried, smaller "
        "--depths would tell.",
        ("What is lost beyond", "tokens", "95 %"),
        [*rows, ("suggested maximum", *last)],
    )


def _cells(place: Limit) -> tuple[str, str]:
    return str(place.position) if place.position > 0 else f"below {place.high}", f"{place.low} to {place.high}"


_CONTINUED = (
    "tokens", "advantage: student's", "teacher's", "filler", "teacher right: student's", "teacher's", "answered",
)  # fmt: skip


def _shown_continuations(table: pd.DataFrame) -> Shown:
    by = table.set_index(["prefix", "depth", "metric"])[["value", "ci_low", "ci_high", "answered"]].astype(float)
    cells = dict(zip(by.index, by.to_numpy().tolist(), strict=True))

    def cell(prefix: str, depth: int, metric: str) -> str:
        of = cells.get(("none" if depth == 0 else prefix, depth, metric))
        return "–" if of is None else with_interval(*of[:3], signed=metric == ADVANTAGE)

    rows = []
    for depth in sorted(set(table["depth"])):
        advantages = [cell(prefix, depth, ADVANTAGE) for prefix in ("student", "teacher", "filler")]
        right = [cell(prefix, depth, "teacher_accuracy") for prefix in ("student", "teacher")]
        answered = cells.get(("student", depth, ADVANTAGE), [math.nan])[-1]
        told = number(answered, 2)
        rows.append((str(depth), *advantages, *right, told))
    return Shown(
        "Continued by teacher and student",
        "Left: how much more often the teacher is right, 95 % over prompts, after so many tokens of the student's own, "
        "of its own, of filler. Then: how often it is right itself, and how many of the student's prefixes read as the "
        "right answer already. Those of correct and of wrong responses are in continuations.csv.",
        _CONTINUED,
        rows,
    )


def _tables(seen: Seen, went_on: WentOn) -> dict[str, pd.DataFrame]:
    excess = [of.table() for of in (*seen.signal, *seen.entropies)]
    return {
        "cohort": cohort_table(seen.states, seen.length),
        "survivors": survivor_table(seen.states, _depths(seen.states)),
        "excess": pd.concat(excess, ignore_index=True) if excess else pd.DataFrame(columns=EXCESS_COLUMNS),
        "entropies": entropy_table(seen.states),
        "continuations": went_on.table,
    }


def _depths(states: pd.DataFrame) -> list[int]:
    return depth_edges(int(states["position"].max()) + 1, CURVE_BINS)[:-1] if len(states) else []


def _measured(seen: Seen, went_on: WentOn) -> tuple[str, ...]:
    of_last = [*seen.signal, *(excess for excess in seen.entropies if excess.label == seen.last)]
    reach = of_last[0].n_rollouts if of_last else (0, 0)
    cut = sum(rollout.truncated for rollout in seen.own)
    room = seen.plan.settings.max_new_tokens
    lines = [
        f"The cohort: responses of at least {seen.length} tokens, cut there; {reach[0]} of {len(seen.own)} of "
        f"{seen.last} and {reach[1]} of {len(seen.theirs)} of the teacher's, on prompts that both have.",
        f"{'All' if cut == len(seen.own) else cut} of the {len(seen.own)} responses of {seen.last} were cut at {room} "
        "tokens, so that what comes after is not seen."
        if cut
        else f"No response of {seen.last} was cut at {room} tokens.",
        *went_on.told,
        *([of_server(seen.plan.served, whole=OF_WHOLE)] if seen.plan.served else []),
        "Intervals are 95 %, over prompts.",
    ]
    if not seen.plan.step_zero_known:
        lines.append(f"Step 0 is not known; {seen.labels[0]} stands for the start. Name it with --student.")
    if len(seen.labels) == 1:
        lines.append("There is one checkpoint, so nothing is said of the course of training.")
    return tuple(lines)
