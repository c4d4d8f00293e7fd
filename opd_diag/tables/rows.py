"""What rows of several tables have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats


def groups_of(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Give the groups of equal `keys`, in the order they come, with the keys' values by name."""
    for values, group in table.groupby(keys, dropna=False, sort=False):
        yield dict(zip(keys, values, strict=True)), group


def rows_of(table: pd.DataFrame, label: str, state_set: str) -> pd.DataFrame:
    """Give the rows of one checkpoint on one state set."""
    return table[(table["label"] == label) & (table["states"] == state_set)]


def rollout_ids(states: pd.DataFrame) -> np.ndarray:
    """Give each state the number of its rollout."""
    width = int(states["rollout_index"].max()) + 1 if len(states) else 1
    return states["prompt_index"].to_numpy() * width + states["rollout_index"].to_numpy()


def estimate_columns(estimate: stats.Estimate) -> dict[str, Any]:
    """Give the columns that an estimate fills in every table."""
    return {
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n_prompts": estimate.n_clusters,
    }
