"""What rows of several tables have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.tables.catalogue import CATALOGUE, ESTIMATE, METRIC_NAMES

FEWEST_DRAWN = 20
"""Drawn tokens expected where the teacher is not known, below which an estimate that rests on them is approximate: if
all its distance lies there, fewer leave it unseen, or its interval too narrow, more often than that says."""

Sample = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""(N, metrics) numbers, the (N,) prompts they come from, and (N, metrics) what each counts."""


def groups_of(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Give the groups of equal `keys`, in the order they come, with the keys' values by name."""
    for values, group in table.groupby(keys, dropna=False, sort=False):
        yield dict(zip(keys, values, strict=True)), group


def rows_of(table: pd.DataFrame, label: str, state_set: str) -> pd.DataFrame:
    """Give the rows of one checkpoint on one state set."""
    return table[(table["label"] == label) & (table["states"] == state_set)]


def rollout_ids(states: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Give each state the number of its rollout."""
    width = int(states["rollout_index"].max()) + 1 if len(states) else 1
    numbers: npt.NDArray[np.int64] = states["prompt_index"].to_numpy() * width + states["rollout_index"].to_numpy()
    return numbers


def sample_of(states: pd.DataFrame) -> Sample:
    """Give the metrics of some states, (N, metrics), the prompt of each state, and what each value counts.

    Metrics that are ratios of sums are weighted by the column they name; every other value counts 1. The three are
    what the functions of :mod:`opd_diag.stats` take.
    """
    values = states[list(METRIC_NAMES)].to_numpy(float)
    weights = np.ones_like(values)
    for i, metric in enumerate(CATALOGUE):
        if metric.weight is not None:
            # a weight that is not known has a value that is not known, which is left out
            weights[:, i] = np.nan_to_num(states[metric.weight].to_numpy(float), nan=1.0)
    return values, states["prompt_index"].to_numpy(), weights


def few_drawn(*parts: pd.DataFrame) -> bool:
    """Whether in some of these states too few drawn tokens lie where the teacher is not known to tell of rare ones.

    Expected are as many as the student's probability there adds up to.
    """
    return any(part.loc[part[ESTIMATE].notna(), "unknown_mass"].sum() < FEWEST_DRAWN for part in parts)


def estimate_columns(estimate: stats.Estimate) -> dict[str, Any]:
    """Give the columns that an estimate fills in tables; each table keeps those of its schema."""
    return {
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n_prompts": estimate.n_clusters,
        "n_effective": estimate.n_effective,
        "approximate": estimate.is_approximate,
        "p_value": estimate.p_value,
        "standard_error": estimate.standard_error,
        "degrees_of_freedom": estimate.degrees_of_freedom,
    }
