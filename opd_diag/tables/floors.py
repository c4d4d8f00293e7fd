"""The precision floor beside each value, and which values lie so near to agreement that rounding may be all of it.

The floor of a metric is its mean distance, over the states, from what it is between equal models, when a model is
scored against itself: in two precisions, and in two batch shapes. Twice that is taken as what rounding can do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.tables.catalogue import BY_NAME

SPAN = 2.0
"""A value counts as told from rounding from so many floors on. Ours."""

RESOLUTION = 2.0**-23
"""Scores hold float32: no value near 1 is finer than this, whatever was measured."""

FLOOR_COLUMNS = ["floor", "within_floor"]


def with_floors(
    summary: pd.DataFrame, floors: Mapping[str, float] | None, concentration: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Put beside each value the floor of its metric, and whether the value lies within twice of it.

    Parameters
    ----------
    summary
        From :func:`~opd_diag.tables.summarize`.
    floors
        Floor of each metric; None where none was measured.
    concentration
        From :func:`~opd_diag.tables.concentration_table`; what overlap masses are between equal models stands there.
        Without it they are not marked.

    Returns
    -------
    DataFrame
        `summary` with `floor` (NaN: not measured) and `within_floor` (missing: no floor, no value, or a quantity of one
        model alone, which is nowhere near any agreement).
    """
    known = floors or {}
    marks = [_within(row, known, concentration) for row in summary.to_dict("records")]
    return summary.assign(
        floor=[float(known.get(metric, math.nan)) for metric in summary["metric"]],
        within_floor=pd.array(marks, dtype="boolean"),
    )


def floors_of(summary: pd.DataFrame) -> dict[str, float]:
    """Give the floor of each metric that has one.

    Examples
    --------
    >>> floors_of(pd.DataFrame({"metric": ["reverse_kl", "accuracy"], "floor": [1e-7, float("nan")]}))
    {'reverse_kl': 1e-07}
    """
    if "floor" not in summary:  # a table made by hand
        return {}
    known = summary.loc[summary["floor"].notna(), ["metric", "floor"]].drop_duplicates("metric")
    return {str(name): float(floor) for name, floor in known.itertuples(index=False)}


def is_near(value: float, aligned: float, floor: float) -> bool:
    """Whether a value lies within twice its floor of what it is between equal models.

    Examples
    --------
    >>> is_near(3e-7, 0.0, floor=2e-7), is_near(0.93, 1.0, floor=0.01), is_near(0.0, 0.0, floor=float("nan"))
    (True, False, False)
    """
    return abs(value - aligned) <= SPAN * max(floor, RESOLUTION * abs(aligned)) if floor == floor else False


def is_small(difference: float, floor: float) -> bool:
    """Whether a difference of two values is within what rounding can do to them: each to its floor, so twice that.

    A difference of exactly 0 is none: equal inputs were scored.

    Examples
    --------
    >>> is_small(-3e-7, floor=2e-7), is_small(0.02, floor=2e-7), is_small(0.0, floor=2e-7)
    (True, False, False)
    """
    return 0 < abs(difference) <= SPAN * floor


def near(row: Mapping[str, Any] | pd.Series) -> bool:
    """Whether a row of a summary is marked as within twice its floor.

    Examples
    --------
    >>> near({"within_floor": True}), near({"within_floor": pd.NA}), near({"value": 0.0})
    (True, False, False)
    """
    marked = row.get("within_floor", pd.NA)
    return not pd.isna(marked) and bool(marked)


def aligned_number(metric: str) -> float:
    """Give what a metric is between equal models, where that is one number; NaN elsewhere.

    Examples
    --------
    >>> aligned_number("top1_agreement"), aligned_number("student_entropy"), aligned_number("accuracy")
    (1.0, nan, nan)
    """
    aligned = BY_NAME[metric].aligned if metric in BY_NAME else math.nan
    return math.nan if isinstance(aligned, str) else float(aligned)


def _within(row: Mapping[Any, Any], floors: Mapping[str, float], concentration: pd.DataFrame | None) -> Any:
    metric, value = str(row["metric"]), float(row["value"])
    floor, aligned = floors.get(metric, math.nan), aligned_number(metric)
    if math.isnan(floor) or (metric in BY_NAME and BY_NAME[metric].of_one_model):
        return pd.NA
    if metric in BY_NAME and BY_NAME[metric].aligned == "student_topk_mass":
        aligned = _topk_mass(row, concentration)
    return pd.NA if math.isnan(aligned) or math.isnan(value) else is_near(value, aligned, floor)


def _topk_mass(row: Mapping[Any, Any], concentration: pd.DataFrame | None) -> float:
    """Find the student's mass on its own top-k; NaN where k is not on the grid of the curve."""
    if concentration is None:
        return math.nan
    alike = np.logical_and.reduce([(concentration[name] == row[name]).to_numpy() for name in ("label", "states", "k")])
    found = concentration.loc[alike, "student_topk_mass"]
    return float(found.iloc[0]) if len(found) else math.nan
