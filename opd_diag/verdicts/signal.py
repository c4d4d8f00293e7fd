"""Rules on the signal: how sure the student is, on how few tokens it rests, whether it lasts into the depth."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables import Tables
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.cohort import halves_of_run
from opd_diag.tables.curves import depth_curve_of
from opd_diag.tables.rows import few_drawn
from opd_diag.verdicts.established import FEW_DRAWN, ONE_RUN, plain, prompts_for, rise_excluded, side, would_tell
from opd_diag.verdicts.evidence import (
    OWN,
    START,
    TEACHER,
    called,
    change,
    is_partly_known,
    is_scored,
    row_at,
    said,
)
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import needs_whole, not_measured, not_scored, too_little, unknown


def sharpness(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether the student is over-sharp or over-flat: a temperature away from 1 takes much of the reverse KL away.

    p^(1/τ) is held against the teacher: τ above 1 flattens the student, which was too sharp. Own states decide, or
    else the start's: a student that is too flat soon writes what its teacher would not, and there temperature is the
    least of its differences.
    """
    name, question = "sharpness", "Is the student as sure as its teacher, temperature apart?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    sets = {states: _fits_on(tables.fits, states) for states in (OWN, START)}
    if sets[OWN].empty and is_partly_known(tables):
        return not_measured(name, question, ["the fitted temperature"], LOADED_ADVICE)
    if sets[OWN].empty:
        return not_measured(name, question, ["the fitted temperature"], f"Run report again. {LOADED_ADVICE}")
    where = next((states for states, fits in sets.items() if len(fits) and _sharp(_fit(fits.iloc[-1]), limits)), OWN)
    fits, whose = sets[where], "own" if where == OWN else "of the start's"
    last, first = _fit(fits.iloc[-1]), _fit(fits.iloc[0])
    if last["n_prompts"] < limits.prompts or math.isnan(last["ci_low"]):
        return too_little(name, question, int(last["n_prompts"]), limits)
    now, least = _sharp(last, limits), limits.temperature
    status: Status = "unknown" if now is None else "warn" if now else "pass"
    word = {"pass": "It is", "unknown": "Inconclusive", "warn": f"The student is {now}"}[status]
    before = _sharp(first, limits)
    start = f"; at {first['label']} τ* = {said(pd.Series(first))}" + (f", {before}" if before else "")
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=last["value"],
        ci_low=last["ci_low"],
        ci_high=last["ci_high"],
        threshold=1 + least if last["value"] >= 1 else 1 - least,
        evidence=f"{word}: at {last['label']} the temperature that fits best is τ* = {said(pd.Series(last))}, with "
        f"which {with_interval(*last['share'])} of a reverse KL of {number(last['kl'], 3)} nats goes away "
        f"({last['n_states']} {whose} states, {last['n_prompts']} prompts){start if len(fits) > 1 else ''}.",
        advice={
            "pass": "What is left of the KL is about which tokens, or is little.",
            "warn": "Check the temperatures of sampling, of the teacher and of the loss, and the learning rate.",
            "unknown": "Give more prompts or rollouts.",
            "fail": "",
        }[status],
        reference="Ours: τ* = argmin over τ of the mean KL(p^(1/τ) ‖ q); as in the calibration of classifiers "
        "(arXiv 1706.04599)",
        caution="One temperature for all states, on a sample of them: a student may be too sure in one place and not "
        "sure enough in another.",
    )


LOADED_ADVICE = "It takes a teacher whose folder is named with --teacher: servers do not give it."


def _fits_on(fits: pd.DataFrame, states: str) -> pd.DataFrame:
    """Give the rows of one state set; none where the last one has no fit."""
    chosen = fits[fits["states"] == states] if "states" in fits else fits.iloc[:0]
    return chosen.iloc[:0] if len(chosen) and pd.isna(chosen.iloc[-1]["fitted_temperature"]) else chosen


def _fit(row: pd.Series) -> dict[str, Any]:
    """Give what the rule reads of a row of fits."""
    names = ("fitted_temperature", "fitted_temperature_ci_low", "fitted_temperature_ci_high")
    value, low, high = (float(row[name]) for name in names)
    share = tuple(float(row[f"explained_share{end}"]) for end in ("", "_ci_low", "_ci_high"))
    kl, label = float(row["reverse_kl"]), str(row["label"])
    counts = {"n_states": int(row["n_states"]), "n_prompts": int(row["n_prompts"])}
    return {"value": value, "ci_low": low, "ci_high": high, "share": share, "kl": kl, "label": label} | counts


def _sharp(fit: dict[str, Any], limits: Thresholds) -> str | None:
    """Say over-sharp or over-flat; empty if it is neither, None if that cannot be told."""
    if fit["kl"] < limits.reverse_kl_change:
        return ""  # hardly anything is left to go away
    share, share_low, share_high = fit["share"]
    sharp, flat = fit["ci_low"] > 1 + limits.temperature, fit["ci_high"] < 1 - limits.temperature
    if (sharp or flat) and share_low > 0 and share >= limits.temperature_share:
        return "over-sharp" if sharp else "over-flat"
    within = fit["ci_low"] > 1 - limits.temperature and fit["ci_high"] < 1 + limits.temperature
    return "" if within or share_high < limits.temperature_share else None


def concentrated_signal(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether a few tokens hold nearly all of the sampled advantage, or nearly all tokens have none, at the start.

    At the first checkpoint: what training begins with. As a pair comes closer, fewer tokens hold what is left.
    """
    name, question = "concentrated_signal", "Is the signal spread over the tokens?"
    if not is_scored(tables, OWN):
        return not_scored(name, question, OWN)
    levels = {"top_advantage_share": limits.top_advantage_share, "near_zero_advantage_rate": limits.near_zero_advantage}
    rows = {metric: row_at(tables, metric, OWN, 0) for metric in levels}
    known = {metric: row for metric, row in rows.items() if row is not None}
    if not known:
        return not_measured(name, question, list(levels), "Sample at temperature 1 and top-p 1, without --rollouts.")
    prompts = min(int(row["n_prompts"]) for row in known.values())
    if prompts < limits.prompts:
        return too_little(name, question, prompts, limits)
    sides = {metric: side(row, levels[metric]) for metric, row in known.items()}
    bad = [metric for metric in known if sides[metric] == "above"]
    open_ = [metric for metric in known if sides[metric] == "unclear"]
    status: Status = "warn" if bad else "unknown" if open_ else "pass"
    metric = (bad or open_ or list(known))[0]
    shown = known[metric]
    word = {"warn": "In few tokens", "unknown": "Inconclusive", "pass": "It is"}[status]
    needed = f"; {would_tell(prompts_for(shown, levels[metric]))}" if status == "unknown" else ""
    told = ", ".join(f"{called(m)} {said(row)}{_later(tables, m)}" for m, row in known.items())
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=float(shown["value"]),
        ci_low=float(shown["ci_low"]),
        ci_high=float(shown["ci_high"]),
        threshold=levels[metric],
        evidence=f"{word}: {told}; at {shown['label']}, {int(shown['n_prompts'])} prompts{needed}.",
        advice={
            "pass": "See which tokens they are all the same.",
            "warn": "See which tokens these are: special or style tokens hint at a template mismatch; if the pair is "
            "close, little is left to learn.",
            "unknown": "Give more prompts or rollouts.",
            "fail": "",
        }[status],
        reference="arXiv 2603.25562; 2608.31046 (as reported: .52 of the tokens below 1e-4 in a run that worked)",
        caution="The closer a pair, the fewer tokens hold what is left: in healthy runs the share rises in training.",
    )


def _later(tables: Tables, metric: str) -> str:
    """Say what a metric is at the last checkpoint."""
    seen = change(tables, metric, OWN)
    return f" (at last {number(seen.last, 2)})" if seen.n_checkpoints > 1 else ""


def depth_decay(tables: Tables, limits: Thresholds) -> Verdict:
    """Whether reverse KL rises with depth within the same rollouts, more than on the teacher's own or at the start.

    The cohort: rollouts of the last checkpoint at least as long as the median one, cut at that length L; late half less
    early half, paired by prompt. The same of the teacher's rollouts is what content and position alone do; a student
    that breaks at a depth breaks there too, and gives itself away against the first checkpoint's own rollouts.
    """
    name, question = "depth_decay", "Does the signal last into the depth of responses?"
    for states in (OWN, TEACHER):
        if not is_scored(tables, states):
            return not_scored(name, question, states)
    metric = ESTIMATE if is_partly_known(tables) else "reverse_kl"
    own, theirs, before, length = halves_of_run(tables.states)
    if metric == ESTIMATE and any(map(len, theirs)) and all(part[metric].isna().all() for part in theirs):
        return needs_whole(name, question, "reverse KL by depth")
    rise = _contrast(metric, own, (-1.0, 1.0))
    beyond, than = _contrast(metric, [*own, *theirs], (-1.0, 1.0, 1.0, -1.0)), "on the teacher's own"
    if math.isnan(beyond.ci_low) or beyond.n_clusters < limits.prompts:
        n = beyond.n_clusters
        found = f"Only {n} {'prompt has' if n == 1 else 'prompts have'} responses of {length} tokens by both models"
        return unknown(name, question, f"{found}, too few to tell.", "Give more prompts, or more tokens.")
    least = limits.depth_change
    grown = _contrast(metric, [*own, *before], (-1.0, 1.0, 1.0, -1.0))
    if not beyond.ci_low > least and grown.n_clusters >= limits.prompts and min(grown.ci_low, rise.ci_low) > least:
        beyond, than = grown, "at the first checkpoint"
    excluded, prompts = rise_excluded(beyond, least)
    missed = excluded and metric == ESTIMATE and few_drawn(pd.concat(own), pd.concat(theirs))
    status: Status = "warn" if beyond.ci_low > least else "pass" if excluded and not missed else "unknown"
    needed = f"; {FEW_DRAWN if missed else would_tell(prompts)}" if status == "unknown" else ""
    word = {"warn": "It decays", "pass": "It lasts", "unknown": "Inconclusive"}[status]
    return Verdict(
        name=name,
        question=question,
        status=status,
        value=beyond.value,
        ci_low=beyond.ci_low,
        ci_high=beyond.ci_high,
        threshold=least,
        evidence=f"{word} at δ = {plain(least)}: from the early to the late half of the first {length} tokens of the "
        f"same rollouts {called(metric)} changes by {_with(rise)} nats, that is {_with(beyond)} more than {than}"
        f"{_break(tables, metric, status)}; {beyond.n_clusters} prompts{needed}.",
        advice={
            "pass": "Longer responses than these may behave otherwise.",
            "warn": "Train on shorter responses first, or weigh late tokens less.",
            "unknown": "Give more prompts or rollouts.",
            "fail": "",
        }[status],
        reference="arXiv 2604.13016, section 6.1 (3K to 7K tokens best; the teacher's lead over the student's "
        "continuation .37 at 1K, .02 at 16K)",
        caution=f"Rollouts that end before L are not seen, and late tokens differ in what they say. {ONE_RUN}",
    )


def _contrast(metric: str, parts: list[pd.DataFrame], weights: tuple[float, ...]) -> stats.Estimate:
    if any(part.empty for part in parts):
        return stats.Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    samples = [(part[[metric]].to_numpy(float), part["prompt_index"].to_numpy()) for part in parts]
    return stats.clustered_contrasts(samples, weights)[0]


def _break(tables: Tables, metric: str, status: Status) -> str:
    """Say where the curve over positions changes its level, if it decays and such a place is established."""
    if status != "warn":
        return ""
    curve = depth_curve_of(tables.states, metric, OWN, str(tables.states["label"].iloc[-1]))
    found = curve.change_point(shared_effects=False)
    if found.location is None or found.jump <= 0:
        return ", with no clear break"
    low, high = (curve.places[i] for i in (found.location_low or 0, found.location_high or 0))
    return f", with a break at position {curve.places[found.location]} [{low}, {high}]"


def _with(estimate: stats.Estimate) -> str:
    return with_interval(estimate.value, estimate.ci_low, estimate.ci_high, signed=True)
