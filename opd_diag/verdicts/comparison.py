"""The rule on two runs: whether they end differently in one number."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import between, known_between, with_interval
from opd_diag.tables.comparison import ACCURACY, direction_of
from opd_diag.verdicts.established import ERROR, interval_as_estimate, plain, would_tell
from opd_diag.verdicts.evidence import called
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE

WHERE = {"on-policy": "own states", "start": "the start's states", "teacher": "the teacher's states"}


def settled(row: pd.Series, limits: Thresholds, p_adjusted: float = math.nan) -> tuple[Status, str]:
    """Say whether it is settled how two runs differ, and how.

    A difference is established where its interval leaves out 0 and its p-value, adjusted over all that is asked of
    these runs (NaN: nothing else is), is at most 5 %.
    """
    metric, first, second = str(row["metric"]), str(row["first"]), str(row["second"])
    low, high, n = float(row["ci_low"]), float(row["ci_high"]), int(row["n_prompts"])
    fewer = min(int(row[of]) for of in ("n_prompts", "first_prompts", "second_prompts"))
    least = limits.effect(metric)
    if math.isnan(low) or fewer < limits.prompts:
        few = f"{fewer} {'prompt is' if fewer == 1 else 'prompts are'} too few, at least {limits.prompts:g} are needed"
        return "unknown", few
    if known_between(row):
        return _settled_between(row, least, p_adjusted)
    found = stats.equivalence(interval_as_estimate(float(row["value"]), low, high, n), least)
    sign = (low > 0) - (high < 0)
    if found.outcome == "equivalent":
        return "pass", f"no difference, equivalent within δ = {plain(least)}"
    if sign and not p_adjusted > ERROR:
        return "pass", _better(metric, sign, first, second)
    if sign:
        return "unknown", _one_of_several(p_adjusted)
    return "unknown", f"inconclusive at δ = {plain(least)}, {would_tell(found.clusters_needed)}"


def _one_of_several(p_adjusted: float) -> str:
    return f"inconclusive as one of several asked (p = {p_adjusted:.2g}), more prompts would tell"


def _settled_between(row: pd.Series, least: float, p_adjusted: float) -> tuple[Status, str]:
    """Say what holds wherever between its bounds the difference lies."""
    low, high = float(row["ci_low"]), float(row["ci_high"])
    if -least < low and high < least:
        return "pass", f"no difference, equivalent within δ = {plain(least)}"
    sign = (low > 0) - (high < 0)
    if sign and p_adjusted > ERROR:
        return "unknown", _one_of_several(p_adjusted)
    if sign:
        return "pass", _better(str(row["metric"]), sign, str(row["first"]), str(row["second"]))
    sure = row["bound_low"] > 0 or row["bound_high"] < 0 or -least < row["bound_low"] <= row["bound_high"] < least
    return "unknown", "inconclusive, more prompts would tell" if sure else "bounds leave it open"


def runs_differ(row: pd.Series, limits: Thresholds, p_adjusted: float = math.nan) -> Verdict:
    """Whether the second run ends above or below the first in one metric: different, equivalent, or not established.

    ``pass`` says that the question is answered, either way; which run is better stands in the evidence.
    """
    metric, first, second = str(row["metric"]), str(row["first"]), str(row["second"])
    low, high, n = float(row["ci_low"]), float(row["ci_high"]), int(row["n_prompts"])
    least = limits.effect(metric)
    status, how = settled(row, limits, p_adjusted)
    where = "" if metric == ACCURACY else f" on {WHERE[str(row['states'])]}"
    name = called(metric)
    if known_between(row):
        said = f"difference {between(row['bound_low'], row['bound_high'], signed=True)}"
        by_bounds = how == "bounds leave it open"
    else:
        span, by_bounds = with_interval(row["value"], low, high, signed=True), False
        said = f"{first} {row['first_value']:.3f}, {second} {row['second_value']:.3f}, difference {span}"
    kind = "shared prompts" if row["paired"] else "prompts, none shared"
    return Verdict(
        name="runs_differ",
        question=f"Do {first} and {second} end with another {name}{where}?",
        status=status,
        value=float(row["value"]),
        ci_low=low,
        ci_high=high,
        threshold=least,
        evidence=f"{name[0].upper()}{name[1:]}{where}: {said}, {n} {kind}: {how}.",
        advice={
            "pass": "Read the other metrics with it: no single one tells which run is the better one.",
            "unknown": BOUNDS_ADVICE if by_bounds else "Report on more prompts, the same ones for both.",
            "warn": "",
            "fail": "",
        }[status],
        reference="Ours: difference of two runs at their last checkpoints, paired by prompt",
        caution="It is about these two runs: another seed of either would differ, by how much one run cannot tell.",
    )


def _better(metric: str, sign: int, first: str, second: str) -> str:
    """Say which run is ahead; of a metric that is better neither way, which is higher."""
    way = direction_of(metric) * sign
    if way == 0:
        return f"{second if sign > 0 else first} is higher"
    return f"{second if way > 0 else first} is ahead"
