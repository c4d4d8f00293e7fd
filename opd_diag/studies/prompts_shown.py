"""What the page of the prompts study says in words and small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Verdict, alarms_first
from opd_diag.stats.rounding import number, with_interval
from opd_diag.studies.study import Shown
from opd_diag.tables.prompts import Estimates
from opd_diag.tables.selection import Choice
from opd_diag.verdicts.prompts import CALLED

Found = tuple[str, str, Estimates, bool]
"""Set in use, the other one, what was compared, and whether prompt by prompt."""

TITLES = {
    "student_overlap_mass": "Student overlap mass",
    "teacher_overlap_mass": "Teacher overlap mass",
    "overlap_ratio": "Overlap ratio",
    "teachable_mass": "Teachable mass",
    "reverse_kl": "Reverse KL, nats a token",
    "reverse_kl_of_response": "Reverse KL, nats a response",
    "student_entropy": "Student entropy, nats",
    "teacher_entropy": "Teacher entropy, nats",
    "response_length": "Length of responses, tokens",
    "truncation_rate": "Responses cut at the limit",
    "accuracy": "Student solves",
    "teacher_accuracy": "Teacher solves",
    "teacher_lead": "Teacher's lead",
}
"""Quantities as the page lists them."""

COSTS = {
    "selection_lead": "little to learn on them",
    "selection_entropy": "less student entropy",
    "selection_groups": "one kind crowds out another",
}
"""What a choice costs, by the verdict that warns of it."""

MOST_LISTED = 8
MOST_GROUPS = 10

CANNOT_TELL = (
    "Whether the chosen prompts teach more: no number here is an outcome. In our own tiny distillations no ranking "
    "beat random prompts over all skills; the teacher's lead taught the missing skill faster and let others slip, and "
    "student overlap mass taught less. In the paper (arXiv 2604.13016, section 5.2) prompts of the teacher's own "
    "training, which had more of that mass and a lower overlap ratio, taught more.",
    "What the student would be like on these prompts later in training.",
    "Whether prompts are doubles of each other, or of an evaluation: look for that before.",
)


def chosen_shown(held: Estimates, choice: Choice) -> Shown:
    """Show the chosen prompts beside the others, on responses that had no part in choosing."""
    return Shown(
        "Chosen prompts and the others",
        f"Chosen by {CALLED[choice.by]} on one half of the responses, shown on the other half. Differences are chosen "
        "less others, with 95 % intervals over prompts.",
        ["", "chosen", "others", "difference"],
        [_row(name, two, one, difference) for name, (one, two, difference) in held.items() if two.n],
    )


def groups_shown(table: pd.DataFrame) -> Shown:
    """Show how many prompts of each group were chosen, the largest groups first."""
    named = table.assign(group=[_group(of, "no group") for of in table["group"]])
    rows = []
    for group, of in sorted(named.groupby("group"), key=lambda item: -len(item[1]))[:MOST_GROUPS]:
        counts = [int((of["outcome"] == outcome).sum()) for outcome in ("top", "drawn", "low entropy")]
        rows.append([str(group), f"{len(of):,}", *(f"{count:,}" for count in counts)])
    return Shown(
        "What was chosen of each group",
        "A group that is crowded out is not practised: in our own distillations it fell behind.",
        ["", "prompts", "first in rank", "from the rest", "below the entropy floor"],
        rows,
    )


def first_shown(table: pd.DataFrame, choice: Choice) -> Shown:
    """Show the first prompts of the ranking, and some that were drawn or left out, with the reasons."""
    ranked = table[table["rank"].notna()].sort_values("rank")
    first = ranked.head(MOST_LISTED)
    more = pd.concat([ranked[ranked["outcome"] == outcome].head(2) for outcome in ("drawn", "low entropy", "lower")])
    listed = pd.concat([first, more]).drop_duplicates("prompt_index")
    rows = [
        [str(of["prompt_id"]), _group(of["group"], "–"), number(of["student_entropy"], 3), str(of["reason"])]
        for of in listed.to_dict("records")
    ]
    return Shown(
        "Why a prompt is in or out",
        f"The first {len(first)} by {CALLED[choice.by]}, then some of each other kind; prompts.csv has them all.",
        ["prompt", "group", "student entropy", "why"],
        rows,
    )


def sets_shown(found: Sequence[Found]) -> Shown:
    """Show every set beside the one in use, with the differences from it."""
    first = found[0][0]
    columns = ["", first, *(part for _, name, _, _ in found for part in (name, "difference"))]
    rows = []
    for quantity in found[0][2]:
        cells = [_said(found[0][2][quantity][0])]
        for _, _, of, _ in found:
            cells += [_said(of[quantity][1]), _said(of[quantity][2], signed=True)]
        if any(cell != "–" for cell in cells):
            rows.append([TITLES[quantity], *cells])
    how = "prompt by prompt" if all(paired for *_, paired in found) else "as sets, or prompt by prompt where ids agree"
    return Shown(
        "Side by side",
        f"Compared {how}; differences from {first}, with 95 % intervals over prompts.",
        columns,
        rows,
    )


def headline(verdicts: Sequence[Verdict], choice: Choice | None, n: int, found: Sequence[Found]) -> str:
    """Give the answer in one line."""
    status = {verdict.name: verdict.status for verdict in verdicts}
    if choice is None:
        worst = alarms_first(verdicts)[0].status
        closer = [
            (name, of["teacher_lead"][2].ci_low < of["teacher_lead"][2].ci_high < 0)
            for (_, name, of, _), v in zip(found, verdicts, strict=True)
            if v.status == "warn"
        ]
        if closer:
            said = f"Student and teacher are closer with {' and '.join(name for name, _ in closer)}"
            less = [name for name, is_less in closer if is_less]
            return f"{said}, but the teacher leads by less" if less == [name for name, _ in closer] else said
        return "Nothing is closer than what is in use" if worst == "pass" else "Which is closer is not established yet"
    said = f"{choice.select} of {n} prompts chosen by {CALLED[choice.by]}"
    if status["selection_alignment"] == "unknown":
        return f"{said}: whether they differ beyond chance is not established"
    if status["selection_alignment"] == "warn":
        return f"{said}: on new responses they are no better than the others"
    costs = [word for name, word in COSTS.items() if status.get(name) == "warn"]
    return f"{said}: {'but ' + ', '.join(costs) if costs else 'the ranking holds on new responses'}"


def selection_reading(table: pd.DataFrame, choice: Choice, floor: float) -> str:
    """Say what the picture of the selection shows."""
    counts = table["outcome"].value_counts()
    top, drawn, low = (int(counts.get(name, 0)) for name in ("top", "drawn", "low entropy"))
    return (
        f"Of {len(table)} prompts {top} are first by {CALLED[choice.by]}, {drawn} drawn from the rest, and {low} lie "
        f"below the floor of {number(floor, 3)} nats."
    )


def set_reading(sets: Mapping[str, pd.DataFrame], name: str) -> str:
    """Say where the middle prompt of each set lies."""
    medians = [f"{label} {number(float(of[name].median()), 3)}" for label, of in sets.items()]
    return f"The middle prompt: {', '.join(medians)}."


def _group(group: Any, otherwise: str) -> str:
    return otherwise if pd.isna(group) else str(group)


def _row(name: str, one: stats.Estimate, two: stats.Estimate, difference: stats.Estimate) -> list[str]:
    return [TITLES[name], _said(one), _said(two), _said(difference, signed=True)]


def _said(of: stats.Estimate, *, signed: bool = False) -> str:
    return with_interval(of.value, of.ci_low, of.ci_high, signed=signed)
