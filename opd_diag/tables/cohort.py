"""Cohorts: rollouts that reach a length, cut there, so that every depth tells of the same ones."""

from __future__ import annotations

import pandas as pd

from opd_diag.tables.rows import rows_of

OWN, THEIRS = "on-policy", "teacher"

Halves = list[pd.DataFrame]
"""States before and after the middle of a length."""


def typical_length(rollouts: pd.DataFrame) -> int:
    """Give the median length of some rollouts, of which half are as long; 0 without any.

    Parameters
    ----------
    rollouts
        States of one checkpoint on one state set, from :func:`~opd_diag.tables.measure`.
    """
    lengths = lengths_of(rollouts).groupby([rollouts["prompt_index"], rollouts["rollout_index"]]).first()
    return int(lengths.median()) if len(lengths) else 0


def lengths_of(rollouts: pd.DataFrame) -> pd.Series:
    """(N,) length of the rollout that each state of one checkpoint on one state set is of."""
    return rollouts.groupby(["prompt_index", "rollout_index"])["position"].transform("max") + 1


def cohort(rollouts: pd.DataFrame, length: int) -> pd.DataFrame:
    """Give the first `length` states of the rollouts that have so many, of one checkpoint on one state set."""
    return rollouts[(lengths_of(rollouts) >= length) & (rollouts["position"] < length)]


def cohorts(states: pd.DataFrame, length: int) -> pd.DataFrame:
    """Give the cohort of every checkpoint on every state set."""
    keys = ["label", "states", "prompt_index", "rollout_index"]
    lengths = states.groupby(keys)["position"].transform("max") + 1
    return states[(lengths >= length) & (states["position"] < length)]


def depth_edges(length: int, most: int) -> list[int]:
    """Give edges of at most so many bins of equal width over a length; the last may be narrower.

    Examples
    --------
    >>> depth_edges(18, 8), depth_edges(3, 8)
    ([0, 3, 6, 9, 12, 15, 18], [0, 1, 2, 3])
    """
    width = -(-length // most)
    return [*range(0, length, width), length]


def halves(rollouts: pd.DataFrame, length: int) -> Halves:
    """Give early and late states of the rollouts that reach a length."""
    reach = cohort(rollouts, length)
    return [reach[reach["position"] < length // 2], reach[reach["position"] >= length // 2]]


def halves_of_run(states: pd.DataFrame) -> tuple[Halves, Halves, Halves, int]:
    """Give early and late states of rollouts that reach the typical length of the last checkpoint's, and that length.

    Of the last checkpoint's, of the teacher's (which it scores), and of the first checkpoint's.
    """
    if states.empty:
        return [states] * 2, [states] * 2, [states] * 2, 0
    first, last = (str(states["label"].iloc[at]) for at in (0, -1))
    parts = [rows_of(states, label, name) for label, name in ((last, OWN), (last, THEIRS), (first, OWN))]
    length = typical_length(parts[0])
    own, theirs, before = (halves(part, length) for part in parts)
    return own, theirs, before, length
