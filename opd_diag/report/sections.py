"""The tables and lists of the page, as plain data for the template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from opd_diag.plots.quantities import QUANTITIES, RESPONSE_QUANTITIES, quantity
from opd_diag.records.verdict import Verdict, alarms_first
from opd_diag.report.readings import ends_of, first_to_last, row_of, span
from opd_diag.report.wording import RESPONSES_NAMES, STATES_NAMES, is_set, p_text, told
from opd_diag.stats.rounding import decimals_for, known_between, number, with_interval
from opd_diag.tables.catalogue import BY_NAME, PRIMARY_NAMES
from opd_diag.tables.floors import floors_of, is_small, near

if TYPE_CHECKING:
    from opd_diag.report.content import Report


LEVEL = 0.05
"""A change of a primary metric is clear where its p-value, adjusted over all of them, is lower."""


@dataclass(frozen=True)
class Verdicts:
    """Verdicts by what a reader must do about them."""

    alarms: list[Verdict]
    """Fails, then warnings."""
    unknown: list[Verdict]
    passed: list[Verdict]


def sorted_verdicts(verdicts: Sequence[Verdict]) -> Verdicts:
    """Put alarms, what the data cannot tell, and what passes apart."""
    by_urgency = alarms_first(verdicts)
    return Verdicts(
        [v for v in by_urgency if v.status in ("fail", "warn")],
        [v for v in by_urgency if v.status == "unknown"],
        [v for v in by_urgency if v.status == "pass"],
    )


@dataclass(frozen=True)
class Change:
    """One quantity on one state set, at the first and the last checkpoint."""

    metric: str
    states: str
    first: str
    last: str
    values: str
    """Both values without their intervals."""
    difference: str
    """Paired difference with its interval; empty where there is none."""
    direction: str
    """``closer``, ``further``, ``no clear change``, or empty where neither way is better."""
    clear: bool
    """Whether the interval of the difference leaves out 0, its adjusted p-value, where there is one, is under `LEVEL`,
    and rounding cannot have made it."""
    size: float
    """The difference; NaN where there is none."""
    n_prompts: int
    note: str = ""
    """What else is known of the difference: its adjusted p-value, and whether it hangs on the average."""

    @property
    def states_name(self) -> str:
        """What pages call the state set."""
        return (RESPONSES_NAMES if self.metric in RESPONSE_QUANTITIES else STATES_NAMES)[self.states]


def checkpoint_span(report: Report) -> str:
    """Name the checkpoints that were measured."""
    return span(report.tables.summary)


def teacher_names(report: Report) -> str:
    """Name the teacher; several in a table made by hand."""
    return ", ".join(dict.fromkeys(report.tables.summary["teacher"].astype(str)))


def value_text(verdict: Verdict) -> str:
    """Write the value of a verdict with its interval; empty when it has none."""
    if math.isnan(verdict.value):
        return ""
    return with_interval(verdict.value, verdict.ci_low, verdict.ci_high, near=verdict.within_floor)


def changes(report: Report, metrics: Sequence[str] = tuple(QUANTITIES)) -> list[Change]:
    """Give the first and the last value and their paired difference of each metric on each state set."""
    summary, rows = report.tables.summary, []
    if summary.empty:
        return []
    for metric in metrics:
        for states in STATES_NAMES:
            row = _change(summary, report.tables.differences, metric, states)
            if row is not None:
                rows.append(row)
    return rows


def _change(summary: pd.DataFrame, differences: pd.DataFrame, metric: str, states: str) -> Change | None:
    first_label, last_label = ends_of(summary)
    first = row_of(summary, metric=metric, states=states, label=first_label)
    last = row_of(summary, metric=metric, states=states, label=last_label)
    if first is None or last is None or all(math.isnan(r["value"]) and not known_between(r) for r in (first, last)):
        return None
    row = row_of(differences, metric=metric, states=states, from_label=first_label, to_label=last_label)
    value, low, high = (math.nan,) * 3 if row is None else (row["value"], row["ci_low"], row["ci_high"])
    small = is_small(value, floors_of(summary).get(metric, math.nan))
    adjusted = math.nan if row is None else row.get("p_adjusted", math.nan)
    clear = bool(low > 0 or high < 0) and not small and (pd.isna(adjusted) or adjusted < LEVEL)
    return Change(
        metric=metric,
        states=states,
        first=told(first, near=near(first)),
        last=told(last, near=near(last)),
        values=first_to_last(first, last),
        difference=""
        if row is None or (math.isnan(value) and not known_between(row))
        else told(row, signed=True, near=small),
        direction=_direction(metric, value, low, clear=clear),
        clear=clear,
        size=float(value),
        n_prompts=int(last["n_prompts"] if row is None else row["n_prompts"]),
        note="" if row is None or math.isnan(value) else _note(row),
    )


def _note(row: pd.Series) -> str:
    p = p_text(row.get("p_adjusted", math.nan))
    depends = "depends on the average" if is_set(row.get("depends_on_average")) else ""
    return ", ".join(filter(None, (f"adjusted {p}" if p else "", depends)))


def _direction(metric: str, value: float, low: float, *, clear: bool) -> str:
    better = BY_NAME[metric].better if metric in BY_NAME else "none"
    if math.isnan(value) or math.isnan(low):
        return ""
    if not clear:
        return "no clear change"
    if better == "none":
        return "rose" if value > 0 else "fell"
    return "closer" if (value > 0) == (better == "up") else "further"


@dataclass(frozen=True)
class Part:
    """One part of the change of a quantity on own states."""

    difference: str
    """With its interval."""
    clear: bool
    """Whether the interval leaves out 0, and rounding cannot have made it."""
    direction: str = ""
    """Parts of a change are neither closer nor further by themselves."""
    note: str = ""
    """Adjusted p-value of a policy change; a state change has none."""


@dataclass(frozen=True)
class Split:
    """The change of one quantity on own states, its parts, and its change at the teacher's states."""

    metric: str
    own: Change | None
    policy: Part | None
    state: Part | None
    order: Part | None
    """What the two orders of splitting differ by; None where only one could be taken."""
    teacher: Change | None


MAIN_RESPONSES = ("accuracy", "truncation_rate", "response_length", "unigram_entropy", "repetition_rate")
"""What is said first of the responses."""


def is_main(metric: str) -> bool:
    """Whether a quantity stands in the table that is open; the others are folded."""
    return metric in (*MAIN_RESPONSES, *PRIMARY_NAMES)


def splits(report: Report) -> list[Split]:
    """Give, for each metric, its change from the first checkpoint to the last and what that splits into."""
    found: dict[str, dict[str, Change]] = {}
    for change in changes(report):
        found.setdefault(change.metric, {})[change.states] = change
    table, floors, rows = report.tables.split, floors_of(report.tables.summary), []
    for metric, sets in found.items():
        if "on-policy" in sets or "teacher" in sets:
            part = partial(_part, table[table["metric"] == metric], floor=floors.get(metric, math.nan))
            rows.append(
                Split(
                    metric=metric,
                    own=_on_equal_prompts(sets.get("on-policy"), part("on_policy_change")),
                    policy=_as_at_start(part("policy_change"), sets.get("start")),
                    state=part("state_change"),
                    order=part("order_difference"),
                    teacher=sets.get("teacher"),
                )
            )
    return rows


def _on_equal_prompts(own: Change | None, whole: Part | None) -> Change | None:
    """Take the change from the split where there is one, so that it is the sum of what stands beside it."""
    if own is None or whole is None:
        return own
    return replace(own, difference=whole.difference, clear=whole.clear and own.clear)


def _as_at_start(policy: Part | None, start: Change | None) -> Part | None:
    """Call a policy change clear only where the change at the start's states is: it is that change, and has its p."""
    if policy is None or start is None or not start.difference:
        return policy
    return replace(policy, clear=policy.clear and start.clear, note=start.note)


def _part(table: pd.DataFrame, part: str, *, floor: float) -> Part | None:
    rows = table[table["part"] == part]
    rows = rows[rows["orders"] == rows["orders"].max()]
    if rows.empty or math.isnan(rows.iloc[-1]["value"]):
        return None
    row = rows.iloc[-1]
    small = is_small(row["value"], floor)
    clear = bool(row["ci_low"] > 0 or row["ci_high"] < 0) and not small
    return Part(told(row, signed=True, near=small), clear)


def threshold_text(verdict: Verdict) -> str:
    """Write the threshold of a verdict; empty when it has none."""
    value = verdict.threshold
    return "" if math.isnan(value) else number(value, decimals_for(value, math.nan, math.nan))


def definitions() -> list[dict[str, Any]]:
    """Give every quantity with what it measures, its formula, its caution and its source."""
    found = []
    for what in (quantity(name) for name in QUANTITIES):
        metric = BY_NAME.get(what.name)
        better = {"up": "higher is more alike", "down": "lower is more alike", "none": "neither way is better"}
        found.append(
            {
                "name": what.name,
                "title": what.title,
                "unit": what.unit,
                "bounds": _bounds(what.low, what.high),
                "meaning": what.meaning,
                "caution": what.caution,
                "formula": what.formula,
                "better": better[metric.better] if metric else "",
                "reference": what.reference,
            }
        )
    return found


def _bounds(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "any value"
    if math.isinf(high):
        return f"{low:g} or more"
    return f"{high:g} or less" if math.isinf(low) else f"{low:g} to {high:g}"
