"""Rules on a cold start: whether the pair needs one, what one did, and whether there is anything to teach."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables import Tables
from opd_diag.tables.sft import OTHER_TEXT, OTHER_TOKENS, REASONS
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import caution, delta, open_advice, outcome, told
from opd_diag.verdicts.evidence import OWN, START, TEACHER, change, is_scored, row_at, said
from opd_diag.verdicts.pair import MASSES, mass_at_step_zero, shared_mass
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.titles import title_of
from opd_diag.verdicts.unanswered import not_measured, not_scored, too_little

COLD_START = f"{PAPER}, section 5.1 and appendix C.2"


def cold_start_needed(tables: Tables, limits: Thresholds, *, again: bool = False) -> Verdict:
    """Whether OPD should begin with supervised fine-tuning on the teacher's responses.

    It warns, which is a yes, where the shared tokens hold clearly too little of either model's mass at the student's
    own states; it passes, a no, where they clearly hold enough.

    Parameters
    ----------
    tables
        Of the student before a cold start, or before and after one.
    limits
        Hold the least shared mass.
    again
        Ask of the last student instead of the first: whether it needs more.
    """
    name, question = "cold_start_needed", "Does this pair need a cold start before on-policy distillation?"
    if again:
        question = "Does this pair need more of a cold start before on-policy distillation?"
    for states in (OWN, TEACHER):
        if not is_scored(tables, states):
            return not_scored(name, question, states)
    seen = shared_mass(tables, limits) if again else mass_at_step_zero(tables, limits)
    if math.isnan(seen.value):
        return replace(seen, name=name, question=question)
    word = {"warn": "Yes", "pass": "No"}.get(seen.status, "Inconclusive")
    kl = row_at(tables, "forward_kl", TEACHER, -1 if again else 0)
    far = "" if kl is None else f"; at the teacher's states forward KL {said(kl)} nats a token"
    evidence = f"{word}: {seen.evidence[0].lower()}{seen.evidence[1:].removesuffix('.')}{far}."
    advice = {
        "warn": "Fine-tune the student on the data set written here, then ask again with --after.",
        "pass": "Distil from here; more of it would only bring the student to where it can go by itself.",
    }
    return replace(
        seen,
        name=name,
        question=question,
        evidence=evidence,
        advice=advice.get(seen.status, seen.advice),
        reference=f"{COLD_START} (lower and unstable mass on shared tokens where the student was not cold-started)",
        caution="Shared mass alone decides it; overlap-token advantage alone misleads here, and mass depends on k and "
        "on how sure both models are. A pair far apart may still get there by OPD alone, more slowly.",
    )


def cold_start_effect(tables: Tables, limits: Thresholds, closed: stats.Estimate) -> Verdict:
    """Whether a cold start brought the student nearer: forward KL at the teacher's states, then mass on shared tokens.

    It passes where the forward KL fell and the shared mass fell on no state set; it warns where nothing changed, or the
    mass fell somewhere; it fails where the forward KL rose.

    Parameters
    ----------
    tables
        Of the student before and after.
    limits
        What changes are held against.
    closed
        From :func:`~opd_diag.tables.distance.closed_share`.
    """
    name, question = "cold_start_effect", "Did the cold start bring the student nearer to its teacher?"
    if not is_scored(tables, TEACHER):
        return not_scored(name, question, TEACHER)
    seen = change(tables, "forward_kl", TEACHER)
    if math.isnan(seen.last) and not seen.bounds:
        return not_measured(name, question, ["the forward KL at the teacher's states"])
    if seen.thin(limits.prompts):
        return too_little(name, question, seen.n_prompts, limits, seen.n_checkpoints)
    found = outcome(seen, limits, direction=-1, ordered=False)
    masses = {
        where: [change(tables, metric, states) for metric in MASSES]
        for states, where in ((START, "at the start's states"), (OWN, "on own states"))
    }
    lost = [where for where, of in masses.items() if any(m.ci_high < -limits.overlap_mass_change for m in of)]
    by_outcome: dict[str, Status] = {"fall": "warn" if lost else "pass", "rise": "fail", "equivalent": "warn"}
    status = by_outcome.get(found, "unknown")
    how = "" if found in ("fall", "rise") else f"; {told(seen, limits, found)}"
    share = with_interval(closed.value, closed.ci_low, closed.ci_high)
    of_it = "" if math.isnan(closed.value) else f", {share} of the distance closed"
    shown = [f"{where} {of[0].ends} and {of[1].ends}" for where, of in masses.items() if not math.isnan(of[0].last)]
    mass = f"; the student's and the teacher's mass on shared tokens {', '.join(shown)}" if shown else ""
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=seen.difference,
        ci_low=seen.ci_low,
        ci_high=seen.ci_high,
        threshold=-delta(seen, limits),
        evidence=f"At the teacher's states {seen.path} nats a token; difference {seen.shift}, {seen.n_prompts} prompts"
        f"{of_it if found == 'fall' else ''}{how}{mass}.",
        advice={
            "pass": f"Distil from here; {title_of('cold_start_needed')} says whether more of it is worth its price.",
            "warn": f"Shared mass fell {lost[0]}: read responses, and look for what was forgotten."
            if lost
            else "It changed nothing: train longer or at a higher rate, and see that the template is the same.",
            "fail": "It went the other way: compare chat template and stop token of the training with these.",
            "unknown": open_advice(seen, limits),
        }[status],
        reference=COLD_START,
        within_floor=seen.within_floor,
        caution=caution(seen, "Nearer at the teacher's states is not nearer on its own: read both."),
    )


def sft_data(table: pd.DataFrame, limits: Thresholds) -> Verdict:
    """Whether the teacher's responses give a data set: how many are kept, and what a trainer makes of them.

    Parameters
    ----------
    table
        From :func:`~opd_diag.tables.sft.sft_table`, at least one row.
    limits
        Hold the least share that must be kept.
    """
    n, kept = len(table), table[table["kept"]]
    share = len(kept) / n
    shares = stats.clustered_mean(table["kept"].to_numpy(float), table["prompt_index"].to_numpy())
    found = stats.open_share(shares, table["kept"].to_numpy(float))
    counts = table.loc[~table["kept"], "reason"].value_counts()
    left = ", ".join(f"{int(counts[reason])} {reason}" for reason in REASONS if reason in counts)
    other = kept["taught"].value_counts()
    changed, tokens = (int(other.get(word, 0)) for word in (OTHER_TEXT, OTHER_TOKENS))
    endless = int((~kept["stop_taught"].astype(bool)).sum()) if len(kept) else 0
    status: Status = "pass"
    if not len(kept):
        status = "fail"
    elif share < limits.kept_share or changed or 2 * endless > len(kept):
        status = "warn"
    remarks = [
        f"{tokens} read back as other tokens of the same text" if tokens else "",
        f"{changed} are changed by the student's chat template" if changed else "",
        f"{endless} end without a stop token under it" if endless else "",
    ]
    head = f"Of {n} teacher responses {len(kept)} are kept{f' ({left} left out)' if left else ''}"
    nothing = f"Of {n} teacher responses none can be taught: {left}; nothing was written"
    return Verdict(
        name="sft_data",
        question="Do the teacher's responses give data for a cold start?",
        status=status,
        value=share,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        threshold=limits.kept_share,
        evidence=f"{'; '.join(filter(None, [head, *remarks])) if len(kept) else nothing}.",
        advice=_advice(counts, status, changed=changed, endless=endless, kept=len(kept)),
        reference=f"{COLD_START} (responses that were cut or degenerate are left out)",
        caution="Long responses are cut most often, so that what is kept is shorter than what the teacher writes; "
        f"{number(share, 2)} of the responses stand for all of them.",
    )


def _advice(counts: pd.Series, status: Status, *, changed: int, endless: int, kept: int) -> str:
    if changed:
        return "Train with a template that keeps the whole response; see 'taught' in sft_responses.csv."
    if kept and 2 * endless > kept:
        return "Train with a template that ends the assistant's message, or the student will not learn to stop."
    most = "" if counts.empty or status == "pass" else str(counts.idxmax())
    return {
        "": "Train on it: plain supervised fine-tuning on the completions, one epoch or a few.",
        "truncated": "Give the teacher more tokens with --max-new-tokens.",
        "degenerate": "The teacher loops: see that it is shown its own chat template, and sample below --top-p 1.",
        "repeated": "The teacher says the same again: give more prompts rather than more responses to each.",
        "not correct": "The teacher is often wrong here: choose another one, or leave --only-correct out.",
    }.get(most, "Read the responses; sft_responses.csv says why each was left out.")
