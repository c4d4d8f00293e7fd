"""Rules on the outcome of a run at its task: what many tries solve, what is forgotten, what of the lead arrived."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import with_interval
from opd_diag.tables.outcomes import gap_recovery, most_tries, on_shared_prompts, pass_difference
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.thresholds import Thresholds

LEVEL = 0.05
"""Of the tests of prompts that change."""


def pass_at_k(attempts: pd.DataFrame, first: str, last: str, limits: Thresholds) -> Verdict:
    """Whether it solves with many tries what it solved before: a student may get surer and no abler."""
    both = on_shared_prompts(attempts, (first, last))
    k = most_tries(both)
    found = pass_difference(both, first, last, k)
    held = stats.equivalence(found, limits.pass_at_k_change) if not math.isnan(found.ci_low) else None
    status: Status = "unknown"
    if held is not None:
        lost = found.ci_high < 0 and held.outcome != "equivalent"
        status = "fail" if lost else "pass" if found.ci_low > 0 or held.low > -limits.pass_at_k_change else "unknown"
    values = {label: _value(both, label, k) for label in (first, last)}
    return Verdict(
        name="pass_at_k",
        question=f"Does it still solve, with {k} {'try' if k == 1 else 'tries'}, what it solved before?",
        status=status,
        value=found.value,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        threshold=limits.pass_at_k_change,
        evidence=f"pass@{k} {values[first]:.2f} at {first}, {values[last]:.2f} at {last}; difference "
        f"{with_interval(found.value, found.ci_low, found.ci_high, signed=True)}, {found.n_clusters} prompts.",
        advice={
            "pass": "Look at pass@1 beside it: where that rose and this did not, it got surer and not abler.",
            "fail": "It lost what it could do with more tries: see the forgotten prompts, and lower the learning rate.",
            "unknown": "Give more prompts, or more responses to each (--rollouts-per-prompt).",
        }[status],
        reference="arXiv 2107.03374, Eq. 1 (unbiased pass@k)",
        caution="At small k it says little more than accuracy; a loss at large k may hide behind a gain at k = 1.",
    )


def _value(attempts: pd.DataFrame, label: str, k: int) -> float:
    of = attempts[attempts["label"] == label]
    return float(stats.pass_at_k(of["n_correct"].to_numpy(), of["n_rollouts"].to_numpy(), k).mean())


def forgetting(items: pd.DataFrame, first: str, last: str, limits: Thresholds) -> Verdict:
    """Whether prompts are forgotten, more than others are newly solved or one by one beyond chance.

    Sides are compared where both have as many responses: of one, half are correct less often than of two.
    """
    alike = items[items["first_rollouts"] == items["last_rollouts"]]
    gained, lost = (int((alike["outcome"] == name).sum()) for name in ("solved", "forgotten"))
    p, n = stats.mcnemar(gained, lost), len(alike)
    shares = [(alike["outcome"].isin([name, "kept"])).to_numpy(float) for name in ("forgotten", "solved")]
    net = stats.clustered_mean_difference(shares[0], alike["prompt_index"], shares[1], alike["prompt_index"])
    net = stats.paired_share_difference(net, shares[0], shares[1])
    fell = items["last_correct"] / items["last_rollouts"] < items["first_correct"] / items["first_rollouts"]
    surely = int((fell & (items["p_adjusted"] < LEVEL)).sum())
    status: Status = "unknown"
    if p < LEVEL and lost > gained:
        status = "fail"
    elif surely:
        status = "warn"
    elif (p < LEVEL and gained > lost) or net.interval(0.9)[0] > -limits.pass_at_k_change:
        status = "pass"
    more = f", and {surely} fell beyond chance one by one" if surely else ""
    counted = f"{n} prompts" if n == len(items) else f"{n} prompts with as many responses from both"
    return Verdict(
        name="forgetting",
        question="Does it forget what it could?",
        status=status,
        value=net.value,
        ci_low=net.ci_low,
        ci_high=net.ci_high,
        threshold=limits.pass_at_k_change,
        evidence=f"Of {counted} {gained} are newly solved and {lost} forgotten from {first} to {last}{more}; solved "
        f"is at least half of the responses correct, and chance alone would part as far with p = {p:.2g}.",
        advice={
            "pass": "On the whole nothing is lost; items.csv has the prompts that change sides all the same.",
            "warn": "Read the responses to the prompts that fell; items.csv has all of them.",
            "fail": "Lower the learning rate, or mix in prompts of the kind that was forgotten.",
            "unknown": "Give more prompts, or more responses to each (--rollouts-per-prompt).",
        }[status],
        reference="McNemar's exact test over prompts; Fisher's, held together, of each",
        caution="With few responses to each, prompts change sides by chance alone, about as often both ways; with "
        "three or fewer no prompt by itself can show that it fell, and a few forgotten ones hide behind many new ones.",
    )


def gap_recovered(attempts: pd.DataFrame, first: str, last: str, teacher: str) -> Verdict:
    """How much of the teacher's lead arrived; nothing is said where no lead is established."""
    nan = math.nan
    theirs = teacher in set(attempts["label"])
    shared = on_shared_prompts(attempts, (first, last, teacher))
    lead = pass_difference(shared, first, teacher, 1) if theirs else None
    found = stats.Estimate(nan, nan, nan, nan, 0, 0, 0)
    if lead is None:
        evidence = "The teacher's responses were not graded, so its lead is not known."
    elif not lead.ci_low > 0:
        span = with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)
        evidence = f"No lead of the teacher is established ({span} in accuracy), so what of it arrived is not known."
    else:
        found = gap_recovery(shared, first, last, teacher)
        span = with_interval(lead.value, lead.ci_low, lead.ci_high, signed=True)
        evidence = (
            f"Of the teacher's lead in accuracy, {span}, {with_interval(found.value, found.ci_low, found.ci_high)} "
            f"arrived by {last}, {found.n_clusters} prompts."
        )
    status: Status = "pass" if found.ci_low > 0 else "fail" if found.ci_high < 0 else "unknown"
    return Verdict(
        name="gap_recovery",
        question="How much of the teacher's lead arrived?",
        status=status,
        value=found.value,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        threshold=0.0,
        evidence=evidence,
        advice={
            "pass": "Train on while it rises; the rest may need a cold start or other prompts.",
            "fail": "The student moved away from what its teacher can: see false_success in the report.",
            "unknown": "Give more prompts or responses, or a teacher that leads on them.",
        }[status],
        reference=f"{PAPER}, section 3.2 (gap recovery 5–16 % without, 17–59 % with new knowledge)",
        caution="A ratio over a small lead is large by chance; it may leave [0, 1].",
    )
