"""Rules on teachers side by side: whether two are one to the student, and whether one would pull it back."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.equivalences import Likeness
from opd_diag.stats.rounding import between, number, with_interval
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import interval_as_estimate, plain, would_tell
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import unknown

HERE_ADVICE = "Read both numbers, or load both teachers here: then the KL between them is known."
"""What to do where two teachers were not held against each other, as one stands behind a server."""


def likeness(row: pd.Series, limits: Thresholds) -> tuple[stats.Equivalence, Likeness]:
    """Hold two teachers of :func:`~opd_diag.tables.teachers.distance_table` against δ, with three answers.

    They are equivalent where they are within δ of the student's own distance from them; different where they are beyond
    it, and beyond what counts as no difference at all. Where that distance is not known well, as of teachers that are
    as good as the student, within no difference at all is equivalent too.
    """
    if row["n_prompts"] < limits.prompts:
        return stats.equivalence(_estimate(row, "relative"), limits.teachers_alike, one_sided=True), "inconclusive"
    relative = stats.equivalence(_estimate(row, "relative"), limits.teachers_alike, one_sided=True)
    absolute = stats.equivalence(_estimate(row, "symmetric_kl"), limits.indistinguishable_kl, one_sided=True)
    if relative.outcome == "equivalent" or (relative.outcome, absolute.outcome) == ("inconclusive", "equivalent"):
        return relative, "equivalent"
    both = relative.outcome == absolute.outcome == "different"
    return relative, "different" if both else "inconclusive"


def not_held(row: pd.Series) -> bool:
    """Whether two teachers were not held against each other, so that the KL between them is not known."""
    return bool(math.isnan(row["symmetric_kl"])) and int(row["n_states"]) > 0


def teachers_alike(row: pd.Series, limits: Thresholds) -> Verdict:
    """Whether two teachers can be told apart at the student's states: equivalent, different, or not enough is known."""
    first, second = str(row["first"]), str(row["second"])
    name, question = "teachers_alike", f"Can the student tell {first} from {second}?"
    n = int(row["n_prompts"])
    if not_held(row):
        return unknown(
            name,
            question,
            f"Not known: a teacher behind a server is not held against another one in full. At the student's states "
            f"the top tokens of {first} and {second} overlap by {_said(row, 'overlap_ratio')}, and what they would "
            f"reward correlates by {_said(row, 'advantage_correlation')} ({int(row['n_states'])} states, {n} prompts).",
            HERE_ADVICE,
        )
    relative, found = likeness(row, limits)
    least = plain(limits.teachers_alike)
    statuses: dict[Likeness, Status] = {"different": "pass", "equivalent": "warn", "inconclusive": "unknown"}
    status = statuses[found]
    word = {
        "different": f"They differ at δ = {least}",
        "equivalent": f"They are equivalent at δ = {least}",
        "inconclusive": f"Inconclusive at δ = {least}",
    }[found]
    needed = ""
    if found == "inconclusive":
        few = f"{n} {'prompt is' if n == 1 else 'prompts are'} too few, at least {limits.prompts:g} are needed"
        tiny = f"all of it is within {plain(limits.indistinguishable_kl)} nats or so, which counts as no difference"
        needed = tiny if relative.outcome == "different" else would_tell(relative.clusters_needed)
        needed = f"; {few if n < limits.prompts or math.isnan(row['relative_ci_low']) else needed}"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=float(row["relative"]),
        ci_low=float(row["relative_ci_low"]),
        ci_high=float(row["relative_ci_high"]),
        threshold=limits.teachers_alike,
        evidence=f"{word}: at the student's states the KL between {first} and {second}, {_said(row, 'symmetric_kl')} "
        f"nats, is {_said(row, 'relative')} of their mean distance from the student, and what they would reward "
        f"correlates by {_said(row, 'advantage_correlation')} ({int(row['n_states'])} states, {n} prompts){needed}.",
        advice={
            "pass": "They teach different things; the table says which of them brings something new.",
            "warn": "They would teach the same here: take the one that costs less, or look for another.",
            "unknown": "Give more prompts (--max-prompts).",
            "fail": "",
        }[status],
        reference=f"{PAPER}, section 3.3 (a 1.5B and a 7B teacher of one family gave the same curves)",
        caution="It is about the states the student visits now: on other prompts, or later, they may part.",
    )


def pulled_back(
    teacher: str, before: str, rows: pd.DataFrame, lead: stats.Estimate | None, limits: Thresholds
) -> Verdict:
    """Whether distilling from a teacher would take the student back to what it was before.

    Parameters
    ----------
    teacher, before
        Names; `before` is the student's own past, and may be the teacher itself.
    rows
        From :func:`~opd_diag.tables.teachers.distance_table`.
    lead
        Accuracy of the teacher less the student's, on the same prompts; None without answers.
    limits
        What the rule holds values against.
    """
    name, question = "pulled_back", f"Would {teacher} pull the student back to {before}?"
    moved = rows[rows["second"] == before].iloc[0]
    least = int(min(moved["n_prompts"], moved["n_prompts"] if lead is None else lead.n_clusters))
    if least < limits.prompts:
        few = f"{least} {'prompt is' if least == 1 else 'prompts are'} too few; at least {limits.prompts:g} are needed."
        return unknown(name, question, few, "Give more prompts (--max-prompts).")
    if not moved["symmetric_kl_ci_low"] > limits.indistinguishable_kl:
        evidence = (
            f"The student and {before} are not established to differ (KL {_said(moved, 'symmetric_kl')} nats, "
            f"{int(moved['n_prompts'])} prompts), so there is no way back to speak of."
        )
        return unknown(name, question, evidence, "Give more prompts, or name what the student was before.")
    pair = None if teacher == before else _between(rows, teacher, before)
    alike = "equivalent" if pair is None else likeness(pair, limits)[1]
    worse, better = _signs(lead)
    status: Status = "unknown"
    if (alike == "equivalent" and not better) or worse:
        status = "fail"
    elif alike == "different" and better:
        status = "pass"
    how = [f"the student's own past is {_said(moved, 'symmetric_kl')} nats away from it"]
    if pair is not None and not_held(pair):
        how.append(
            f"{teacher} is not held against {before} in full, as one of them stands behind a server (their top tokens "
            f"overlap by {_said(pair, 'overlap_ratio')}, rewards correlate by {_said(pair, 'advantage_correlation')})"
        )
    elif pair is not None:
        said = {"equivalent": "cannot be told from", "different": "differs from", "inconclusive": "may be like"}[alike]
        how.append(
            f"{teacher} {said} {before} here, at {_said(pair, 'relative')} of their distance from the student "
            f"(rewards correlate by {_said(pair, 'advantage_correlation')})"
        )
    if lead is None:
        how.append("without answers it is not known which of them can do more")
    else:
        span = with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)
        how.append(f"{teacher}'s accuracy less the student's is {span}")
    word = {"fail": "It would", "pass": "It would not", "unknown": "Not established"}[status]
    apart = moved if pair is None or not_held(pair) else pair
    shown = lead if lead is not None else _estimate(apart, "symmetric_kl")
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=shown.value,
        ci_low=shown.ci_low,
        ci_high=shown.ci_high,
        threshold=0.0 if lead is not None else limits.indistinguishable_kl,
        evidence=f"{word}: {'; '.join(how)}; {int(moved['n_prompts'])} prompts.",
        advice={
            "fail": "Do not distil from it on these prompts: what the student learned since would go.",
            "pass": "It leads the student and is not its past; see whether its pattern is compatible.",
            "unknown": HERE_ADVICE
            if pair is not None and not_held(pair) and lead is not None
            else "Give answers in the prompts file, more prompts, or more responses.",
            "warn": "",
        }[status],
        reference=f"{PAPER}, section 3.3 (reverse distillation: back to the level before RL from both teachers)",
        caution="Before training nothing says how far it would go: distillation may be stopped, or mixed with other "
        "objectives.",
    )


def _signs(lead: stats.Estimate | None) -> tuple[bool, bool]:
    """Whether a lead is established to be below 0, and above."""
    return (False, False) if lead is None else (lead.ci_high < 0, lead.ci_low > 0)


def _between(rows: pd.DataFrame, one: str, other: str) -> pd.Series:
    pairs = [(one, other), (other, one)]
    chosen = [(first, second) in pairs for first, second in zip(rows["first"], rows["second"], strict=True)]
    return rows[chosen].iloc[0]


def _estimate(row: pd.Series, name: str) -> stats.Estimate:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_ci_low", "_ci_high"))
    if math.isnan(low):
        return stats.Estimate(value, low, high, math.nan, 0, int(row["n_prompts"]), 0)
    return interval_as_estimate(value, low, high, int(row["n_prompts"]))


def _said(row: pd.Series, name: str) -> str:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_ci_low", "_ci_high"))
    if math.isnan(value) and name == "symmetric_kl" and not math.isnan(row["bound_low"]):
        return between(row["bound_low"], row["bound_high"])
    if math.isnan(value):
        return "nothing known"
    return number(value, 3) if math.isnan(low) else with_interval(value, low, high)
