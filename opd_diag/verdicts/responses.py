"""Rules on the responses: whether they collapse by repetition or length, and whether both models stop alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number
from opd_diag.tables import Tables
from opd_diag.verdicts.established import (
    ONE_RUN,
    estimate_of,
    interval_as_estimate,
    outcome,
    plain,
    rise_excluded,
    would_tell,
)
from opd_diag.verdicts.evidence import OWN, TEACHER, Change, called, change, change_of_kl, is_scored, row_at, said
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.titles import title_of
from opd_diag.verdicts.unanswered import not_measured, not_scored, too_little

SIGNS = ("repetition_rate", "compression_ratio", "truncation_rate")
"""What rises where responses collapse by repetition or length."""


@dataclass(frozen=True)
class Excess:
    """One sign of a collapse, at the last checkpoint."""

    seen: Change
    theirs: pd.Series | None
    """The teacher's own responses."""
    rose: bool
    exceeds: bool
    """Whether it is clearly above the teacher's; True where the teacher's is not known."""
    is_harmless: bool
    """Whether a rise beyond δ, or as large an excess over the teacher's, can be excluded."""
    prompts_needed: int | None
    """How many prompts would decide that; None where it is decided or no practical number would."""
    least: float
    """Its δ."""

    @property
    def said(self) -> str:
        """Where it went, beside the teacher's."""
        against = "" if self.theirs is None else f" (the teacher's {number(self.theirs['value'], 2)})"
        return f"{self.seen.path}{against}"


def degeneration(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether responses come to loop or to run into the limit, clearly more than the teacher's do.

    It fails where a sign rises beyond its δ and ends clearly above the teacher's; it warns where it is above and no
    rise is established, as where it was so from the start; it passes where of every sign the rise, or the excess over
    the teacher's, lies under δ (one-sided, 5 %). A reverse KL that falls meanwhile is said to be no success.
    """
    name, question = "degeneration", "Do responses collapse by repetition or length?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    found = [excess for sign in SIGNS if (excess := _excess(tables, sign, limits)) is not None]
    if not found:
        return not_measured(name, question, SIGNS)
    if found[0].seen.n_prompts < limits.prompts:
        return too_little(name, question, found[0].seen.n_prompts, limits)
    grown = [sign for sign in found if sign.rose and sign.exceeds]
    known = [sign for sign in found if sign.exceeds and sign.theirs is not None]
    bad, unclear = grown or known, [sign for sign in found if not sign.is_harmless]
    status: Status = "fail" if grown else "warn" if known else "unknown" if unclear else "pass"
    kl = change_of_kl(tables, OWN)
    falls = outcome(kl, limits, direction=-1, ordered=False) == "fall"
    low = f", while reverse KL falls {kl.ends}: a low KL that is no success" if bad and falls else ""
    shown = (bad or unclear or found)[0]
    word = {"fail": "They do", "warn": "They do, with no rise established", "pass": "No sign of it"}.get(status)
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=shown.seen.last,
        ci_low=math.nan,
        ci_high=math.nan,
        threshold=limits.effect(shown.seen.metric) + (0.0 if shown.theirs is None else float(shown.theirs["value"])),
        evidence=f"{word or 'Inconclusive'}: {', '.join(sign.said for sign in bad or unclear or found)}{low}; "
        f"{shown.seen.n_prompts} prompts{'' if word else _needed(unclear)}.",
        advice={
            "pass": "Read a few responses all the same.",
            "warn": "Cold-start the student, or give it more tokens; see whether it ever stops.",
            "fail": "Read the rollouts; go back to an earlier checkpoint, and lower the learning rate or the length.",
            "unknown": "Give more prompts or rollouts.",
        }[status],
        reference="arXiv 2604.08527 (as reported): truncation and repetition rise together where a run collapses",
        caution="Loops are counted where they are exact: a narrow text that never repeats is no loop, see "
        f"{title_of('false_success')}. {ONE_RUN}",
    )


def _excess(tables: Tables, metric: str, limits: Thresholds) -> Excess | None:
    """Read one sign; None where it is not known."""
    ours, theirs = (row_at(tables, metric, states, -1) for states in (OWN, TEACHER))
    if ours is None:
        return None
    seen, least = change(tables, metric, OWN), limits.effect(metric)
    if theirs is None and seen.n_checkpoints > 1 and math.isnan(seen.difference):
        return None  # the first responses were too short to tell: there is nothing to hold it against
    exceeds = theirs is None or bool(ours["value"] - theirs["value"] >= least and ours["ci_low"] > theirs["ci_high"])
    asked = [rise_excluded(e, least) for e in (estimate_of(seen), _above(ours, theirs)) if e is not None]
    needed = [prompts for _, prompts in asked if prompts is not None]
    return Excess(
        seen=seen,
        theirs=theirs,
        rose=outcome(seen, limits, ordered=False) == "rise",
        exceeds=exceeds,
        is_harmless=any(excluded for excluded, _ in asked),
        prompts_needed=min(needed, default=None),
        least=least,
    )


def _above(ours: pd.Series, theirs: pd.Series | None) -> stats.Estimate | None:
    """Give how far the last checkpoint lies above the teacher, its error as if the two were independent.

    They share prompts, which most often makes the error smaller: what is excluded stays so.
    """
    if theirs is None:
        return None
    half = math.hypot(ours["ci_high"] - ours["value"], theirs["value"] - theirs["ci_low"])
    value, prompts = float(ours["value"] - theirs["value"]), min(int(of["n_prompts"]) for of in (ours, theirs))
    return interval_as_estimate(value, value - half, value + half, prompts)


def _needed(unclear: list[Excess]) -> str:
    """Say what would decide; the most that any sign takes."""
    limits = ", ".join(f"{plain(sign.least)} ({called(sign.seen.metric)})" for sign in unclear)
    known = [sign.prompts_needed for sign in unclear]
    most = None if None in known else max(n for n in known if n is not None)
    return f"; no rise of δ = {limits} can be excluded, {would_tell(most)}"


def termination(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether each model would stop where the other does, at the last checkpoint; and the teacher where it was cut."""
    name, question = "termination", "Do both models stop at the same places?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    at_own = row_at(tables, "teacher_stop_probability_at_stops", OWN, -1)
    at_theirs = row_at(tables, "student_stop_probability_at_stops", TEACHER, -1)
    at_cuts = row_at(tables, "teacher_stop_probability_at_truncation", OWN, -1)
    known = [row for row in (at_own, at_theirs, at_cuts) if row is not None]
    rows = [row for row in known if row["n_prompts"] >= limits.prompts]
    if not known:
        return not_measured(name, question, ["stop probabilities"], "Give responses more tokens, so that some end.")
    if not rows:
        return too_little(name, question, max(int(row["n_prompts"]) for row in known), limits)
    faults = [
        (at_own, _never(at_own, limits), "the teacher would not stop where the student does"),
        (at_theirs, _never(at_theirs, limits), "the student would not stop where the teacher does"),
        (at_cuts, _wants(at_cuts, limits), "the teacher would stop where the student runs on"),
    ]
    bad = [(row, words) for row, is_bad, words in faults if is_bad and row is not None]
    doubtful = [row for row in rows if row is not at_cuts and row["ci_low"] < limits.stop_never]
    status: Status = "fail" if bad else "unknown" if doubtful else "pass"
    shown = bad[0][0] if bad else doubtful[0] if doubtful else rows[0]
    word = ", and ".join(words for _, words in bad) or ("They stop alike" if status == "pass" else "It is not clear")
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=float(shown["value"]),
        ci_low=float(shown["ci_low"]),
        ci_high=float(shown["ci_high"]),
        threshold=limits.stop_likely if shown is at_cuts else limits.stop_never,
        evidence=f"{word[0].upper()}{word[1:]}: {', '.join(map(_told, rows))}; at {shown['label']}, "
        f"{int(shown['n_prompts'])} prompts.",
        advice={
            "pass": "Read it with the share of truncated responses.",
            "fail": "Compare stop tokens and chat templates of both models; count both models' stop tokens as one.",
            "unknown": "Give more prompts, or more tokens so that more responses end.",
            "warn": "",
        }[status],
        reference="arXiv 2609.20511 and 2609.37326 (as reported); the probability of the union of both models' stops",
        caution="The teacher's signal to stop exists only where the student stops already: one that never does is not "
        "taught to stop by distillation alone.",
    )


def _never(row: pd.Series | None, limits: Thresholds) -> bool:
    return row is not None and row["n_prompts"] >= limits.prompts and bool(row["ci_high"] < limits.stop_never)


def _wants(row: pd.Series | None, limits: Thresholds) -> bool:
    return row is not None and row["n_prompts"] >= limits.prompts and bool(row["ci_low"] > limits.stop_likely)


def _told(row: pd.Series) -> str:
    where = "" if row["states"] == OWN or "truncation" in row["metric"] else " of the teacher"
    return f"{called(row['metric'])}{where} {said(row)}"
