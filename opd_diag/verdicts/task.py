"""Rules on the task: whether the student got better at it, and whether the teacher has anything to give."""

from __future__ import annotations

import math

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import with_interval
from opd_diag.tables import Tables
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import caution, delta, outcome, plain, told, would_tell
from opd_diag.verdicts.evidence import OWN, TEACHER, change, is_scored, rows_of
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.titles import title_of
from opd_diag.verdicts.unanswered import STEP_ZERO_ADVICE, not_scored, too_little, unknown

NO_ANSWERS = "The prompts have no reference answers"
NO_CORRECT = "No response of student or teacher is correct, so this task tells nothing"
CORRECT_ADVICE = (
    "See whether responses are cut before their answer (--max-new-tokens), and whether answers are understood."
)
ANSWERS_ADVICE = "Give answers in the prompts file: more alike is not the same as better."


def accuracy(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student got better at the task; the order of the checkpoints does not matter, as it may recover."""
    name, question = "accuracy", "Did the student get better at the task?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    seen = change(tables, name, OWN)
    if math.isnan(seen.last):
        evidence = f"{NO_ANSWERS}, so alignment is all that can be seen."
        return unknown(name, question, evidence, ANSWERS_ADVICE)
    if seen.thin(limits.prompts):
        return too_little(name, question, seen.n_prompts, limits, seen.n_checkpoints)
    if not any(v > 0 for v in (*seen.values, change(tables, name, TEACHER).last)):
        return unknown(name, question, f"{NO_CORRECT}.", CORRECT_ADVICE)
    found = outcome(seen, limits, ordered=False)
    by_outcome: dict[str, Status] = {"rise": "pass", "fall": "fail", "equivalent": "warn"}
    status = by_outcome.get(found, "unknown")
    how = "" if found in ("rise", "fall") else f"; {told(seen, limits, found)}"
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=seen.difference,
        ci_low=seen.ci_low,
        ci_high=seen.ci_high,
        threshold=delta(seen, limits),
        evidence=f"At the task: {seen.path} of sampled responses{_theirs(tables)}{_low_between(tables)}; difference "
        f"{seen.shift}, {seen.n_prompts} prompts{how}.",
        advice={
            "pass": "The teacher brings something the student lacked, and it arrives.",
            "warn": f"The teacher may bring nothing new, or nothing of it arrives: see {title_of('new_capability')}.",
            "fail": "The student loses what it could: lower the learning rate, and compare with the start's states.",
            "unknown": "Give more prompts or rollouts.",
        }[status],
        reference=f"{PAPER}, sections 3.2 and 4.1 (a teacher must bring new capabilities)",
        caution=caution(seen, "Answers are read off the responses: a format that is not understood counts as wrong."),
    )


def _low_between(tables: Tables) -> str:
    """Say where accuracy was lowest on the way, if that is below both ends, and the intervals lie apart."""
    rows = rows_of(tables, "accuracy", OWN)
    between, ends = rows.iloc[1:-1], rows.iloc[[0, -1]]
    if between.empty or rows["value"].isna().any():
        return ""
    low = between.iloc[int(between["value"].to_numpy(float).argmin())]
    apart = low["ci_high"] < ends["ci_low"].min()
    return f", but {low['value']:.2f} at {low['label']} on the way" if apart else ""


def _theirs(tables: Tables) -> str:
    """Say the teacher's accuracy, where it is known."""
    last = change(tables, "accuracy", TEACHER).last
    return "" if math.isnan(last) else f" (the teacher's {last:.2f})"


def lead_found(lead: stats.Estimate, limits: Thresholds) -> tuple[Status, str]:
    """Say whether a lead of the teacher in accuracy counts, and how sure that is."""
    least, found = limits.capability_change, stats.equivalence(lead, limits.capability_change)
    if lead.ci_low > least:
        return "pass", f"a lead of more than δ = {plain(least)}"
    if found.high < least:
        return "warn", f"no lead of δ = {plain(least)}"
    return "unknown", f"inconclusive at δ = {plain(least)}, {would_tell(found.clusters_needed)}"


def new_capability(tables: Tables, limits: Thresholds, step_zero_known: bool) -> Verdict:
    """Whether the teacher can do more than the initial student: accuracy of both on the same prompts, paired."""
    name, question = "new_capability", "Can the teacher do what the initial student cannot?"
    if not step_zero_known:
        return unknown(name, question, "Step 0 is unknown.", STEP_ZERO_ADVICE)
    for states in (OWN, TEACHER):
        if not is_scored(tables, states):
            return not_scored(name, question, states)
    lead, (before, theirs) = _lead(tables)
    if math.isnan(lead.value):
        return unknown(name, question, f"{NO_ANSWERS}, so what the teacher can do is not seen.", ANSWERS_ADVICE)
    if math.isnan(lead.ci_low) or lead.n_clusters < limits.prompts:
        return too_little(name, question, lead.n_clusters, limits)
    if before == theirs == 0:
        return unknown(name, question, f"{NO_CORRECT}.", CORRECT_ADVICE)
    status, how = lead_found(lead, limits)
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=lead.value,
        ci_low=lead.ci_low,
        ci_high=lead.ci_high,
        threshold=limits.capability_change,
        evidence=f"Accuracy of the initial student {before:.2f}, of the teacher {theirs:.2f}: {how}; lead "
        f"{with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)}, {lead.n_clusters} prompts.",
        advice={
            "pass": "There is something to gain; see whether it arrives.",
            "warn": "On these prompts the teacher has nothing new to give: choose another teacher, or other prompts.",
            "unknown": "Give more prompts or rollouts.",
        }[status],
        reference=f"{PAPER}, section 3.2 (new knowledge: gap recovery 5–16 % without, 17–59 % with it)",
        caution="A lead in accuracy does not predict by itself how much of it arrives, and a teacher may know what "
        "these prompts do not ask.",
    )


def _lead(tables: Tables) -> tuple[stats.Estimate, tuple[float, float]]:
    """Give the teacher's accuracy less that of step 0, paired by prompt, and both."""
    rollouts = tables.rollouts
    nan = math.nan
    if rollouts.empty or "is_correct" not in rollouts:
        return stats.Estimate(nan, nan, nan, nan, 0, 0, 0), (nan, nan)
    first = rollouts[rollouts["label"] == rollouts["label"].iloc[0]]
    ours, theirs = (first[first["states"] == states] for states in (OWN, TEACHER))
    right = [of["is_correct"].astype("Float64").to_numpy(float, na_value=nan) for of in (ours, theirs)]
    prompts = [of["prompt_index"].to_numpy() for of in (ours, theirs)]
    lead = stats.clustered_mean_difference(right[0], prompts[0], right[1], prompts[1])
    means = [float(r[~(r != r)].mean()) if (r == r).any() else nan for r in right]
    return lead, (means[0], means[1])
