"""The rule on continuations: whether the teacher can still do better after what the student wrote."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from opd_diag import stats
from opd_diag.records.verdict import Status, Verdict
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables.continuations import (
    FILLER,
    NONE,
    STUDENT,
    THEIRS,
    advantage,
    advantage_difference,
    chosen,
    depths_of,
)
from opd_diag.verdicts.alignment import PAPER
from opd_diag.verdicts.established import plain, rise_excluded, would_tell
from opd_diag.verdicts.horizon import LEVEL
from opd_diag.verdicts.thresholds import Thresholds
from opd_diag.verdicts.unanswered import too_little, unknown

CONTINUING = "continuation_advantage", "Can the teacher still do better after what the student wrote?"


@dataclass(frozen=True)
class Lost:
    """Between which depths the teacher's advantage is lost."""

    before: int
    """Last depth that was tried, or 0, at which it stands."""
    at: int
    """First at which it does not."""

    @property
    def at_once(self) -> bool:
        """Whether it is lost at the first depth tried, so that how much of a response it outlives is not known."""
        return self.before == 0


def loss(continued: pd.DataFrame, depth: int, control: str = THEIRS) -> stats.Estimate:
    """Give how much less the teacher's advantage is after the student's prefixes than after those of a control."""
    found = advantage_difference(continued, STUDENT, control, depth)
    return replace(found, value=-found.value, ci_low=-found.ci_high, ci_high=-found.ci_low)


def lost_between(continued: pd.DataFrame, limits: Thresholds) -> Lost | None:
    """Find the first depth at which the advantage is lost beyond the teacher's own prefixes; all depths at 5 %."""
    depths = depths_of(continued)
    for before, depth in zip([0, *depths], depths, strict=False):
        found = loss(continued, depth)
        if math.isnan(found.ci_low) or found.n_clusters < limits.prompts:
            continue
        if found.interval(1 - LEVEL / len(depths))[0] > limits.continuation_change:
            return Lost(before, depth)
    return None


def continuation_advantage(continued: pd.DataFrame, limits: Thresholds) -> Verdict:
    """Whether the teacher's advantage in going on is lost with depth to what the student wrote.

    All prefixes of no token are the same one, so that a difference at a depth is how much more was lost by then. What
    is lost after the teacher's own prefixes too is lost because little is left to decide.

    Parameters
    ----------
    continued
        From :func:`~opd_diag.tables.continuations.continued_table`.
    limits
        Hold δ.
    """
    depths, least = depths_of(continued), limits.continuation_change
    lead = advantage(chosen(continued, NONE, 0))
    losses = {depth: loss(continued, depth) for depth in depths}
    prompts = min([lead.n_clusters, *(of.n_clusters for of in losses.values())])
    if not losses or prompts < limits.prompts or math.isnan(lead.ci_low):
        return too_little(*CONTINUING, prompts, limits)
    span = _with(lead)
    if not lead.ci_low > 0:
        return unknown(
            *CONTINUING,
            f"From the start of a response no lead of the teacher in accuracy is established ({span}), so that there "
            f"is none to lose{_mended(continued, depths[-1])}; {lead.n_clusters} prompts.",
            "Give more prompts, or ask an earlier checkpoint (--checkpoints).",
        )
    lost = lost_between(continued, limits)
    excluded = {depth: rise_excluded(of, least) for depth, of in losses.items()}
    status: Status = "warn" if lost else "pass" if all(is_out for is_out, _ in excluded.values()) else "unknown"
    depth = lost.at if lost else max(losses, key=lambda of: losses[of].interval(0.9)[1])
    shown, now = losses[depth], advantage(chosen(continued, STUDENT, depth))
    needed = f"; {would_tell(excluded[depth][1])}" if status == "unknown" else ""
    word = {"warn": "It is lost", "pass": "It lasts", "unknown": "Inconclusive"}[status]
    return Verdict(
        *CONTINUING,
        status,
        shown.value,
        shown.ci_low,
        shown.ci_high,
        least,
        evidence=f"{word} at δ = {plain(least)}: going on, the teacher is right more often than the student by {span} "
        f"from the start, by {_with(now)} after the student's own first {depth} tokens, which is {_with(shown)} less "
        f"than after its own first {depth}{_of_filler(continued, depth)}"
        f"{_mended(continued, depths[-1])}; {shown.n_clusters} prompts{needed}.",
        advice={
            "pass": "Where it falls, little is left to decide, whoever wrote the beginning.",
            "warn": f"Train on responses that end before{_earlier(lost)}, or let the teacher write the beginnings.",
            "unknown": "Give more prompts, or more --continuations of each prefix.",
            "fail": "",
        }[status],
        reference=f"{PAPER}, section 6.1 (advantage +.366 at 1K tokens, +.024 at 16K; without controls)",
        caution="A prefix that already gives the answer counts as it reads. Prompts with short responses alone have no "
        "prefixes.",
    )


def _earlier(lost: Lost | None) -> str:
    """Say what to do where it is lost at the first depth tried."""
    return f" (below {lost.at} tokens; try smaller --depths)" if lost is not None and lost.at_once else ""


def _of_filler(continued: pd.DataFrame, depth: int) -> str:
    """Say how much is lost beyond filler of equal length."""
    found = loss(continued, depth, FILLER)
    return "" if math.isnan(found.ci_low) else f" and {_with(found)} less than after filler as long"


def _mended(continued: pd.DataFrame, depth: int) -> str:
    """Say how often the teacher is right after the deepest prefixes."""
    shares = []
    for kind in (STUDENT, THEIRS):
        rows = chosen(continued, kind, depth)
        shares.append(rows.loc[rows["writer"] == THEIRS, "is_correct"].mean())
    return (
        f"; after {depth} tokens of the student's the teacher itself is right in {number(shares[0], 2)}, after its own "
        f"in {number(shares[1], 2)}"
    )


def _with(estimate: stats.Estimate) -> str:
    return with_interval(estimate.value, estimate.ci_low, estimate.ci_high, signed=True)
