"""What of a change or a level is established: beyond δ and in order, equivalent within δ, or neither yet."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import pandas as pd
from scipy.special import stdtrit

from opd_diag import stats
from opd_diag.stats.rounding import number
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.floors import SPAN
from opd_diag.verdicts.evidence import Change
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE

Outcome = Literal["rise", "fall", "unordered rise", "unordered fall", "equivalent", "inconclusive"]
Side = Literal["above", "below", "unclear"]

ONE_RUN = "It describes these checkpoints of this run, not another seed."
"""Caution of every verdict about a change: checkpoints of one run share its seed, prompts and data order."""

APPROXIMATE = "The interval is approximate: few prompts, or few of them decide."

FEW_DRAWN = "as few drawn tokens lie where the teacher is not known"
"""Why an estimate does not establish that there is nothing."""

ERROR = 0.05
"""Level of every decision."""


def delta(seen: Change, limits: Thresholds) -> float:
    """Give the least change that counts: the documented effect, or twice the precision floor if that is larger."""
    return max(limits.effect(seen.metric), 0.0 if math.isnan(seen.floor) else SPAN * seen.floor)


def outcome(seen: Change, limits: Thresholds, *, direction: int = 0, ordered: bool = True) -> Outcome:
    """Say what is established of a change.

    Parameters
    ----------
    seen
        From :func:`~opd_diag.verdicts.evidence.change`.
    limits
        Hold its δ.
    direction
        1 or -1 where a rise or a fall is asked for.
    ordered
        Whether, from three checkpoints on, their order must go the same way (:func:`opd_diag.stats.trend`).

    Returns
    -------
    Outcome
        ``rise``, ``fall``: the interval lies beyond δ, the p-value adjusted for all primary metrics (where there is
        one) is small, and the order agrees. ``unordered …``: all but the order. ``equivalent``: two one-sided tests put
        the change within δ. ``inconclusive``: neither, or nothing is known.
    """
    least, estimate = delta(seen, limits), estimate_of(seen)
    if seen.bounds:
        return _between_bounds(seen, least, ordered=ordered)
    found = stats.trend(seen.values, estimate, delta=least, direction=direction)
    sign = (seen.ci_low > least) - (seen.ci_high < -least)
    if sign and not seen.p_adjusted > ERROR:  # NaN: of no family
        way: Literal["rise", "fall"] = "rise" if sign > 0 else "fall"
        return way if found.sign == sign or not ordered else "unordered rise" if sign > 0 else "unordered fall"
    alike = stats.equivalence(estimate, least).outcome == "equivalent" and not may_miss(seen)
    return "equivalent" if alike else "inconclusive"


def may_miss(seen: Change) -> bool:
    """Whether a small value may be one that was not seen: an estimate that rests on few drawn tokens or prompts."""
    return seen.metric == ESTIMATE and seen.approximate


def _between_bounds(seen: Change, least: float, *, ordered: bool) -> Outcome:
    """Say what holds wherever between its bounds a change lies."""
    sign = (seen.ci_low > least) - (seen.ci_high < -least)
    if not sign or seen.p_adjusted > ERROR:
        return "equivalent" if -least < seen.ci_low and seen.ci_high < least else "inconclusive"
    way: Literal["rise", "fall"] = "rise" if sign > 0 else "fall"
    steps = _steps(seen)
    in_order = all(step == sign for step in steps)
    return way if in_order or not ordered or len(steps) < 2 else "unordered rise" if sign > 0 else "unordered fall"


def _steps(seen: Change) -> list[int]:
    """Give the sign of each step between checkpoints, wherever between its bounds it lies; 0 where they leave it."""
    pairs = itertools.pairwise(seen.bounds[:-1])
    return [(later[0] > earlier[1]) - (later[1] < earlier[0]) for earlier, later in pairs]


def _order_is_open(seen: Change, found: Outcome) -> bool:
    """Whether only bounds keep a change from being in order: no step goes the other way for certain."""
    sign = {"unordered rise": 1, "unordered fall": -1}.get(found, 0)
    return bool(seen.bounds) and sign != 0 and -sign not in _steps(seen)


def estimate_of(seen: Change) -> stats.Estimate:
    """Make an estimate of a row again; with as many degrees of freedom as prompts allow, so never too sure of likeness.

    An interval of fewer degrees of freedom than that is wider, and so becomes what is derived from it.
    """
    return interval_as_estimate(seen.difference, seen.ci_low, seen.ci_high, seen.n_prompts)


def interval_as_estimate(value: float, low: float, high: float, prompts: int) -> stats.Estimate:
    """Make an estimate of a value and its interval, as :func:`estimate_of`."""
    freedom = max(prompts - 1, 1)
    error = (high - low) / 2 / float(stdtrit(freedom, 1 - ERROR / 2))
    return stats.Estimate(value, low, high, error, prompts, prompts, 0, degrees_of_freedom=freedom)


def told(seen: Change, limits: Thresholds, found: Outcome) -> str:
    """Say of an outcome that is no rise and no fall what it rests on, or how many prompts would tell."""
    if found.startswith("unordered"):
        how = "in an order that bounds leave open" if _order_is_open(seen, found) else "but no steady one"
        return f"a {found.removeprefix('unordered ')}, {how}"
    least = delta(seen, limits)
    if found == "equivalent":
        return f"no change, equivalent within δ = {plain(least)}"
    if seen.bounds:
        by_bounds = f"between bounds that leave a change of δ = {plain(least)} open"
        return (
            by_bounds if bounds_decide(seen, least) else f"inconclusive at δ = {plain(least)}, more prompts would tell"
        )
    if math.isnan(seen.ci_low):
        return "without an interval"
    likeness = stats.equivalence(estimate_of(seen), least)
    if likeness.outcome == "equivalent":
        return f"inconclusive at δ = {plain(least)}, {FEW_DRAWN}"
    if likeness.outcome == "different":
        return f"inconclusive at δ = {plain(least)}, as one of many primary metrics; more prompts would tell"
    return f"inconclusive at δ = {plain(least)}, {would_tell(likeness.clusters_needed)}"


def bounds_decide(seen: Change, least: float) -> bool:
    """Whether a change is left open by its bounds, and not by chance alone: they do not lie on one side of δ."""
    if not seen.bounds:
        return False
    low, high = seen.bounds[-1]
    return not (low > least or high < -least or (-least < low and high < least))


def open_advice(seen: Change, limits: Thresholds) -> str:
    """Say what would answer a question that a change leaves open."""
    least = delta(seen, limits)
    by_bounds = bounds_decide(seen, least) or _order_is_open(seen, outcome(seen, limits))
    return BOUNDS_ADVICE if by_bounds else "Give more prompts or rollouts."


def caution(seen: Change, *words: str) -> str:
    """Put cautions together with those that every change has."""
    return " ".join((*words, ONE_RUN, *([APPROXIMATE] if seen.approximate else [])))


def order_said(seen: Change, limits: Thresholds, direction: int) -> str:
    """Say how far the checkpoints lie in order; empty with fewer than three."""
    found = stats.trend(seen.values, estimate_of(seen), delta=delta(seen, limits), direction=direction)
    if math.isnan(found.tau):
        return ""
    tested = f" (p = {number(found.p_value, 2)})" if found.order_is_tested else ""
    return f"order of the {found.n_checkpoints} means τ = {number(found.tau, 1, signed=True)}{tested}"


def rise_excluded(estimate: stats.Estimate, least: float) -> tuple[bool, int | None]:
    """Whether a rise of `least` is excluded (one-sided, 5 %), and how many prompts would decide it if not."""
    found = stats.equivalence(estimate, least, one_sided=True)
    # one side may be decided at 5 % where a rise, which is established at 2.5 %, is not yet
    needed = found.clusters_needed or stats.equivalence(estimate, least).clusters_needed
    return found.high < least, None if found.high < least else needed


def would_tell(prompts: float | None) -> str:
    """Say how many prompts it would take.

    Examples
    --------
    >>> would_tell(312), would_tell(None)
    ('some 320 prompts would tell', 'more prompts than are practical would be needed')
    """
    if prompts is None or not prompts <= 100_000:
        return "more prompts than are practical would be needed"
    digits = 10 ** max(0, len(str(int(prompts))) - 2)
    return f"some {int(math.ceil(prompts / digits) * digits):,} prompts would tell"


def side(row: pd.Series, threshold: float) -> Side:
    """Say on which side of a threshold the interval of a row lies."""
    if row["ci_low"] >= threshold:
        return "above"
    return "below" if row["ci_high"] < threshold else "unclear"


def prompts_for(row: pd.Series, threshold: float) -> float | None:
    """Give how many prompts would tell on which side a row lies, if its value stayed what it is."""
    room, half = abs(row["value"] - threshold), (row["ci_high"] - row["ci_low"]) / 2
    return math.ceil(row["n_prompts"] * (half / room) ** 2) if room > 0 and math.isfinite(half) else None


def plain(least: float) -> str:
    """Write a threshold with as many digits as it has, at most four.

    Examples
    --------
    >>> plain(0.02), plain(0.1), plain(0.0004), plain(1.0)
    ('0.02', '0.1', '0.0004', '1')
    """
    return f"{least:.4f}".rstrip("0").rstrip(".")
