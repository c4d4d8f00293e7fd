"""Beginnings of responses, continued by teacher and student: how often either is right, and the teacher's advantage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.tables.rows import estimate_columns

STUDENT, THEIRS, FILLER = "student", "teacher", "filler"
"""Whose tokens a prefix has: the student's own, the teacher's own, and those of the student's to other prompts, drawn
one by one."""

RIGHT, WRONG = "student, correct", "student, wrong"
"""The student's own, by whether the response that the prefix is of is correct."""

NONE = "none"
"""The empty prefix: whole responses."""

PREFIXES = (NONE, STUDENT, RIGHT, WRONG, THEIRS, FILLER)

ATTEMPT_COLUMNS = [
    "prefix", "depth", "writer", "prompt_index", "of_rollout", "is_correct", "of_correct", "is_answered",
]  # fmt: skip
CONTINUATION_COLUMNS = [
    "prefix", "depth", "metric", "value", "ci_low", "ci_high", "approximate", "n_prompts", "n_prefixes", "n_rollouts",
    "answered",
]  # fmt: skip
ADVANTAGE = "continuation_advantage"


@dataclass(frozen=True)
class Continuation:
    """A prefix and how a model went on."""

    prefix: str
    """One of ``student``, ``teacher``, ``filler``, ``none``."""
    depth: int
    """Tokens of the prefix."""
    writer: str
    """Who went on: ``student`` or ``teacher``."""
    rollout: Rollout
    """Prefix and continuation as one response; graded as such."""
    of_rollout: int = 0
    """Which of the responses to the prompt the prefix is of."""
    of_correct: bool | None = None
    """Whether that one is correct."""
    is_answered: bool | None = None
    """Whether the prefix alone reads as the right answer."""


def continued_table(continuations: Iterable[Continuation]) -> pd.DataFrame:
    """Give those that could be graded, one row each; flags as 1, 0 and NaN for unknown."""
    rows = [
        (
            of.prefix,
            of.depth,
            of.writer,
            of.rollout.prompt_index,
            of.of_rollout,
            float(of.rollout.is_correct),
            _flag(of.of_correct),
            _flag(of.is_answered),
        )
        for of in continuations
        if of.rollout.is_correct is not None
    ]
    return pd.DataFrame(rows, columns=ATTEMPT_COLUMNS)


def _flag(value: bool | None) -> float:
    return float("nan") if value is None else float(value)


def chosen(continued: pd.DataFrame, prefix: str, depth: int) -> pd.DataFrame:
    """Give the rows of one kind of prefix, of :data:`PREFIXES`, at one depth."""
    kind = STUDENT if prefix in (RIGHT, WRONG) else prefix
    rows = continued[(continued["prefix"] == kind) & (continued["depth"] == depth)]
    if prefix in (RIGHT, WRONG):
        rows = rows[rows["of_correct"] == float(prefix == RIGHT)]
    return rows


def advantage(rows: pd.DataFrame) -> stats.Estimate:
    """Give how much more often the teacher's continuations are correct than the student's, paired by prompt.

    Formula: mean over the teacher's continuations less mean over the student's, of the prompts that have both.
    """
    one, two = (rows[rows["writer"] == writer] for writer in (STUDENT, THEIRS))
    found = stats.clustered_mean_difference(
        one["is_correct"], one["prompt_index"], two["is_correct"], two["prompt_index"]
    )
    return _opened(found, one, two)


def advantage_difference(continued: pd.DataFrame, first: str, second: str, depth: int) -> stats.Estimate:
    """Give the teacher's advantage after one kind of prefix less that after another, paired by prompt."""
    samples = [
        (of[["is_correct"]].to_numpy(float), of["prompt_index"].to_numpy())
        for rows in (chosen(continued, first, depth), chosen(continued, second, depth))
        for writer in (THEIRS, STUDENT)
        for of in [rows[rows["writer"] == writer]]
    ]
    if any(len(of) == 0 for of, _ in samples):
        nan = float("nan")
        return stats.Estimate(nan, nan, nan, nan, 0, 0, 0)
    found = stats.clustered_contrasts(samples, (1.0, -1.0, -1.0, 1.0))[0]
    means = pd.concat([pd.Series(of[:, 0]).groupby(prompts).mean() for of, prompts in samples], axis=1, join="inner")
    changes = means.to_numpy(float) @ [1.0, -1.0, -1.0, 1.0]
    return stats.paired_share_difference(found, np.zeros(len(changes)), changes) if len(changes) else found


def depths_of(continued: pd.DataFrame) -> list[int]:
    """Give the depths of the prefixes, the empty one left out."""
    return sorted({int(depth) for depth in continued["depth"]} - {0})


def continuation_table(continued: pd.DataFrame) -> pd.DataFrame:
    """Average by kind of prefix and depth.

    Parameters
    ----------
    continued
        From :func:`continued_table`.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`.
    """
    rows: list[dict[str, Any]] = []
    for prefix in PREFIXES:
        for depth in [0] if prefix == NONE else depths_of(continued):
            of = chosen(continued, prefix, depth)
            if of.empty:
                continue
            n_prefixes = len(of.drop_duplicates(["prompt_index", "of_rollout"]))
            about = {"prefix": prefix, "depth": depth, "n_prefixes": n_prefixes, "answered": _share(of)}
            for metric, estimate in _estimates(of).items():
                rows.append(about | estimate_columns(estimate) | {"metric": metric, "n_rollouts": len(of)})
    return pd.DataFrame(rows, columns=CONTINUATION_COLUMNS)


def _estimates(rows: pd.DataFrame) -> dict[str, stats.Estimate]:
    estimates = {}
    for writer in (THEIRS, STUDENT):
        of = rows[rows["writer"] == writer]
        shares = of.groupby("prompt_index")["is_correct"].mean().to_numpy()
        mean = stats.clustered_mean(of["is_correct"], of["prompt_index"])
        opened = stats.open_share(mean, shares) if len(of) else mean
        ends = np.clip([opened.ci_low, opened.ci_high], 0.0, 1.0)
        estimates[f"{writer}_accuracy"] = replace(opened, ci_low=float(ends[0]), ci_high=float(ends[1]))
    return estimates | {ADVANTAGE: advantage(rows)}


def _share(rows: pd.DataFrame) -> float:
    answered = rows["is_answered"].to_numpy(float)
    return float(np.nanmean(answered)) if np.isfinite(answered).any() else float("nan")


def _opened(found: stats.Estimate, one: pd.DataFrame, two: pd.DataFrame) -> stats.Estimate:
    """Give the interval what so few prompts that differ leave open."""
    shares = [of.groupby("prompt_index")["is_correct"].mean() for of in (one, two)]
    both = pd.concat(shares, axis=1, join="inner").to_numpy(float)
    return stats.paired_share_difference(found, both[:, 0], both[:, 1]) if len(both) else found
