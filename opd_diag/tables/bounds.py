"""What of a metric is known where a teacher behind a server returned its most probable ids alone.

The student is known in full, of the teacher the log-probabilities at some ids, and that no other id is more probable
than the last of its top K. Overlaps, and masses on what both top-k share, are exact for every k up to K. What hangs on
the rest lies between two bounds; the metric itself is NaN there, and nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag.records.scores import OF_WHOLE, Scores
from opd_diag.stats import Estimate
from opd_diag.tables.catalogue import METRIC_NAMES, Metric, Values

Ends = npt.NDArray[np.float64]

_CROSSED = "teacher_at_student_topk_logprobs"


def low_of(name: str) -> str:
    """Name the column of a metric's lower bounds."""
    return f"{name}_low"


def high_of(name: str) -> str:
    """Name the column of a metric's upper bounds."""
    return f"{name}_high"


def metric_columns(metric: Metric, scores: Scores, k: int) -> dict[str, Values]:
    """Compute a metric, and its bounds where it is not known at every state.

    Parameters
    ----------
    metric
        An entry of the catalogue.
    scores
        N states.
    k
        Tokens compared.

    Returns
    -------
    dict
        (N,) values under the name of the metric, NaN where they are undefined. If the teacher's part in some is not
        known: NaN at every state, as a mean over those that are known would be of a chosen few; and ``<name>_low``
        and ``<name>_high``, both equal to the value where it is known.
    """
    if not scores.bounds:
        return {metric.name: metric.function(scores, k)}
    read = _Read(_filled(scores))
    values = np.array(metric.function(cast(Scores, read), k), dtype=np.float64)
    unknown = _unknown(metric, scores, k, read.fields)
    if not unknown.any():
        return {metric.name: values}
    if metric.bounds is None:
        ends: tuple[Values, Values] = np.full(len(values), metric.low), np.full(len(values), metric.high)
    else:
        ends = metric.bounds(scores, k)
    low, high = (np.where(unknown, end, values) for end in ends)
    return {metric.name: np.full(len(values), np.nan), low_of(metric.name): low, high_of(metric.name): high}


def bounded_metrics(*states: pd.DataFrame) -> tuple[str, ...]:
    """Name the metrics that some of these tables know between bounds alone."""
    return tuple(
        name for name in METRIC_NAMES if any(low_of(name) in of and of[low_of(name)].notna().any() for of in states)
    )


def ends_of_states(states: pd.DataFrame, names: Sequence[str]) -> tuple[Ends, Ends]:
    """Give the lower and the upper bounds of some metrics, (N, metrics) each; the value itself where it is known."""
    values = states[list(names)].to_numpy(float)
    low, high = (states.reindex(columns=[of(name) for name in names]).to_numpy(float) for of in (low_of, high_of))
    return np.where(np.isnan(low), values, low), np.where(np.isnan(high), values, high)


def outer(low: Estimate, high: Estimate) -> dict[str, float]:
    """Give the columns of what lies between two estimates: bounds, and an interval that holds both of their own.

    An interval that covers either bound as often as it says covers what lies between them at least as often (Imbens and
    Manski, 2004).
    """
    return {
        "value": math.nan,
        "bound_low": low.value,
        "bound_high": high.value,
        "ci_low": low.value if math.isinf(low.value) else low.ci_low,
        "ci_high": high.value if math.isinf(high.value) else high.ci_high,
        "approximate": low.is_approximate or high.is_approximate,
        "p_value": _p_between(low, high),
    }


def _p_between(low: Estimate, high: Estimate) -> float:
    """Give the p-value of 0 lying between two estimates: that of the bound next to it; NaN where one is endless."""
    if math.isinf(low.value) or math.isinf(high.value):
        return math.nan
    return low.p_value if low.value > 0 else high.p_value if high.value < 0 else 1.0


class _Read:
    """Scores that note which of their fields are read."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self.fields: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.fields.add(name)
        return getattr(self._scores, name)


def _filled(scores: Scores) -> Scores:
    """Put a number where the teacher is not known at the student's ids.

    It reaches no value: metrics that do not depend on these ids mask them, which NaN would outlive, and those that do
    are not known there.
    """
    at = scores.teacher_at_student_topk_logprobs
    return replace(
        scores, teacher_at_student_topk_logprobs=np.where(np.isnan(at), scores.teacher_topk_logprobs[:, -1:], at)
    )


def _unknown(metric: Metric, scores: Scores, k: int, read: set[str]) -> npt.NDArray[np.bool_]:
    """Tell at which states something that the metric depends on is not known."""
    unknown = np.zeros(len(scores), dtype=bool)
    if "crossed probabilities" in metric.depends_on and _CROSSED in read:
        unknown |= np.isnan(scores.teacher_at_student_topk_logprobs[:, :k]).any(axis=-1)
    for name in {*read, *((metric.weight,) if metric.weight else ())} & {*OF_WHOLE}:
        unknown |= np.isnan(np.asarray(getattr(scores, name)))
    return unknown
