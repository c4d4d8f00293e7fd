"""Rules on chosen prompts: whether the choice holds beyond chance, keeps entropy, has something to learn."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.tables.prompts import Estimates
from opd_diag.tables.selection import Choice
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import plain, would_tell
from opd_diag.verdicts.prompt_sets import all_cut, said_of, signed
from opd_diag.verdicts.task import lead_found
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import too_little, unknown

CALLED = {
    "student_overlap_mass": "student overlap mass",
    "reverse_kl_of_response": "reverse KL of a response",
    "teacher_lead": "teacher's lead in accuracy",
}
"""Quantities that rank, inside a sentence."""

ONE_RESPONSE = (
    "There is one response to each prompt: what chose the prompts would also judge the choice, which would look good "
    "by chance alone."
)
LEAST_FAIR = 5
"""Chosen prompts that a group must be due, to be looked at."""
MOST_NAMED = 6
MORE_RESPONSES = "Give two or more with --rollouts-per-prompt."


def selection_alignment(held: Estimates, choice: Choice, limits: Thresholds) -> Verdict:
    """Whether the chosen prompts are ahead in what chose them, on responses that had no part in choosing."""
    name, question = "selection_alignment", f"Do the chosen prompts have a higher {CALLED[choice.by]} beyond chance?"
    others, chosen, difference = sides = held[choice.by]
    missing = _missing(name, question, held, chosen, limits) or _incomparable(name, question, sides, limits)
    if missing is not None:
        return missing
    status: Status = "pass" if difference.ci_low > 0 else "warn" if difference.ci_high <= 0 else "unknown"
    needed = f"; {would_tell(_more(difference))}" if status == "unknown" else ""
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=difference.value,
        ci_low=difference.ci_low,
        ci_high=difference.ci_high,
        threshold=0.0,
        evidence=f"{CALLED[choice.by].capitalize()} {said_of(chosen)} on the chosen prompts, {said_of(others)} on the "
        f"others: difference {signed(difference)}, on responses that had no part in choosing, "
        f"{_counted(chosen, others)}{needed}.",
        advice={
            "pass": "The ranking holds on new responses; whether it teaches more, no such number says.",
            "warn": "The ranking is chance: give more responses to each prompt, or choose at random.",
            "unknown": "Give more prompts, or more responses to each with --rollouts-per-prompt.",
        }[status],
        reference=f"{PAPER}, section 5.2 (prompts of the teacher's training: more student overlap mass, better result)",
        caution="Aligned is not apt: in that work aligned prompts had a lower overlap ratio and less entropy, and "
        "prompts on which both models agree have little to teach.",
    )


def selection_entropy(held: Estimates, choice: Choice, limits: Thresholds) -> Verdict:
    """Whether the chosen prompts leave the student as unsure as the others do, against entropy collapse."""
    name, question = "selection_entropy", "Is the student as unsure on the chosen prompts as on the others?"
    others, chosen, difference = sides = held["student_entropy"]
    missing = _missing(name, question, held, chosen, limits) or _incomparable(name, question, sides, limits)
    if missing is not None:
        return missing
    least = limits.selection_entropy_share * others.value
    lost = difference.ci_high < -least
    kept = difference.interval(0.9)[0] > -least
    status: Status = "warn" if lost else "pass" if kept else "unknown"
    how = {
        "warn": "less",
        "pass": "no loss",
        "unknown": f"inconclusive, {would_tell(_more(difference, least))}",
    }[status]
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=difference.value,
        ci_low=difference.ci_low,
        ci_high=difference.ci_high,
        threshold=-least,
        evidence=f"Student entropy {said_of(chosen)} nats on the chosen prompts, {said_of(others)} on the others: "
        f"{how} at δ = {plain(least)}; difference {signed(difference)}, {_counted(chosen, others)}, "
        f"{choice.n_drawn} of the {choice.select} drawn from the rest.",
        advice={
            "pass": "Go on; see unigram entropy and pass@k during training all the same.",
            "warn": "Raise --out-of-distribution or --min-entropy, or mix in other prompts.",
            "unknown": "Give more prompts or responses.",
        }[status],
        reference=f"{PAPER}, section 5.2 (aligned prompts: lower student entropy; mix in others)",
        caution="It is about the student before training; what training does to it, no number here says.",
    )


def selection_lead(held: Estimates, limits: Thresholds) -> Verdict:
    """Whether there is something to learn on the chosen prompts: the teacher's lead in accuracy there."""
    name, question = "selection_lead", "Can the teacher do more than the student on the chosen prompts?"
    others, lead, _ = held["teacher_lead"]
    ours, theirs = (held[of][1].value for of in ("accuracy", "teacher_accuracy"))
    kl = held["reverse_kl_of_response"][1]
    missing = _missing(name, question, held, lead, limits)
    if missing is not None:
        return missing
    if math.isnan(lead.value):
        shown = (
            "" if math.isnan(kl.value) else f"; reverse KL of a response on the chosen prompts is {said_of(kl)} nats"
        )
        said = f"No response was graded{shown}."
        return unknown(name, question, said, "Give 'answer' in the prompts file, so that responses can be graded.")
    if ours == theirs == 0:
        said = "Neither model solves any of the chosen prompts, so what the teacher can do there is not seen."
        return unknown(name, question, said, "Check the answers, allow longer responses, or give easier prompts.")
    if math.isnan(lead.ci_low):
        return too_little(name, question, lead.n_clusters, limits)
    status, how = lead_found(lead, limits)
    everywhere = f"; on the others {signed(others)}" if math.isfinite(others.value) else ""
    solved = "; both solve all of them" if ours == theirs == 1 else ""
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=lead.value,
        ci_low=lead.ci_low,
        ci_high=lead.ci_high,
        threshold=limits.capability_change,
        evidence=f"On the chosen prompts the student solves {ours:.2f}, the teacher {theirs:.2f}: {how}; lead "
        f"{signed(lead)}, {lead.n_clusters} prompts{everywhere}{solved}.",
        advice={
            "pass": "There is something to gain on them.",
            "warn": "They have little to teach: rank by another quantity with --by, or draw more from the rest.",
            "unknown": "Give more prompts or responses.",
        }[status],
        reference=f"{PAPER}, section 3.2 (a teacher must bring something new)",
        caution="A prompt that both solve may still teach how to write; a lead may be beyond the student's reach.",
    )


def selection_groups(prompts: pd.DataFrame, limits: Thresholds) -> Verdict | None:
    """Whether every kind of prompt keeps a part in the choice; None where fewer than two groups are named.

    Of groups that would have five chosen prompts or more if the choice took of all alike.

    Parameters
    ----------
    prompts
        Of :func:`~opd_diag.tables.prompts.prompt_table`, with `is_chosen`.
    limits
        Hold the least part of its share that a group keeps.
    """
    named = prompts[prompts["group"].notna()]
    sizes = named["group"].value_counts()
    fair = sizes * (prompts["is_chosen"].sum() / len(prompts))
    fair = fair[fair >= LEAST_FAIR]
    if len(sizes) < 2 or fair.empty:
        return None
    chosen = named[named["is_chosen"]]["group"].value_counts().reindex(fair.index, fill_value=0)
    kept = (chosen / fair).sort_index().sort_values(kind="stable")
    least, group = float(kept.iloc[0]), str(kept.index[0])
    status: Status = "warn" if least < limits.kept_group_share else "pass"
    counts = ", ".join(f"{name} {chosen[name]} of {sizes[name]}" for name in sorted(fair.index)[:MOST_NAMED])
    more = f" and {len(fair) - MOST_NAMED} more groups" if len(fair) > MOST_NAMED else ""
    return Verdict(
        name="selection_groups",
        question="Does every kind of prompt keep a part in the choice?",
        status=status,
        value=least,
        ci_low=math.nan,
        ci_high=math.nan,
        threshold=limits.kept_group_share,
        evidence=f"Least of all {group}, which keeps {least:.2f} of its share of the prompts; chosen of each: "
        f"{counts}{more}.",
        advice={
            "pass": "Go on.",
            "warn": "Raise --out-of-distribution, or choose from each group apart: what is not practised may be lost.",
        }[status],
        reference="Ours: python -m benchmarks.prompts (what was crowded out fell behind)",
        caution="Groups are what the prompts file says; kinds within one are not seen.",
    )


def _missing(name: str, question: str, held: Estimates, chosen: stats.Estimate, limits: Thresholds) -> Verdict | None:
    """Leave it open where all responses were cut, or nothing was held out."""
    cut = all_cut(name, question, held, (1,))
    if cut is not None:
        return cut
    if not held["student_overlap_mass"][1].n:
        return unknown(name, question, ONE_RESPONSE, MORE_RESPONSES)
    if chosen.n_clusters < limits.prompts and chosen.n:
        return too_little(name, question, chosen.n_clusters, limits)
    return None


def _incomparable(
    name: str, question: str, sides: tuple[stats.Estimate, stats.Estimate, stats.Estimate], limits: Thresholds
) -> Verdict | None:
    """Leave it open where chosen prompts and others cannot be held against each other."""
    others, chosen, difference = sides
    if not math.isfinite(difference.value):
        return unknown(name, question, "All prompts were chosen: there are no others to compare with.", "Select fewer.")
    if others.n_clusters < limits.prompts or math.isnan(difference.ci_low):
        return too_little(name, question, min(others.n_clusters, chosen.n_clusters), limits)
    return None


def _more(of: stats.Estimate, least: float = 0.0) -> float | None:
    """Give how many prompts would tell the value from -`least`, if it stayed what it is."""
    room, half = abs(of.value + least), (of.ci_high - of.ci_low) / 2
    return math.ceil(of.n_clusters * (half / room) ** 2) if room > 0 else None


def _counted(chosen: stats.Estimate, others: stats.Estimate) -> str:
    return f"{chosen.n_clusters} and {others.n_clusters} prompts"
