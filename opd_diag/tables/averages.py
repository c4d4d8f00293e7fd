"""Three ways to average a metric, over tokens, over rollouts and over prompts: they differ where lengths matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.ranges import within_range
from opd_diag.tables.rows import Sample, estimate_columns, groups_of, rollout_ids, sample_of
from opd_diag.tables.states import IDENTITY

AVERAGES = ("token", "rollout", "prompt")
"""What counts alike in each of them."""

AVERAGE_COLUMNS = [
    *IDENTITY, "metric", "k", "average", "value", "ci_low", "ci_high", "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip


def average_table(states: pd.DataFrame) -> pd.DataFrame:
    """Average every metric of each (step, state set) over tokens, over rollouts and over prompts.

    Formula: ``token`` is the mean of the summary, over all states; ``rollout`` the mean over rollouts of each one's
    mean; ``prompt`` the mean over prompts of the mean over all states of each. Ratios of sums are ratios within each
    rollout or prompt.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`, of one or more steps and state sets.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; 95 % intervals clustered by prompt.

    Notes
    -----
    They answer different questions: what a token drawn from training sees, what a response sees, what a prompt sees.
    Where long responses differ from short ones the three differ, and none is wrong.
    """
    rows: list[dict[str, Any]] = []
    for identity, group in groups_of(states, IDENTITY):
        rows += [identity | row for row in _rows(group)]
    return within_range(pd.DataFrame(rows, columns=AVERAGE_COLUMNS)).astype({"step": "Int64", "k": "Int64"})


def samples_of(states: pd.DataFrame) -> dict[str, Sample]:
    """Give, by average, numbers, prompts and weights whose clustered mean it is."""
    values, prompts, weights = sample_of(states)
    found = {"token": (values, prompts, weights)}
    for average, groups in (("rollout", rollout_ids(states)), ("prompt", prompts)):
        means, first = _group_means(values, weights, groups)
        found[average] = (means, prompts[first], np.ones_like(means))
    return found


def _rows(group: pd.DataFrame) -> list[dict[str, Any]]:
    rollouts, rows = rollout_ids(group), []
    defined = group[list(METRIC_NAMES)].notna().to_numpy()
    estimates = {of: stats.clustered_means(v, p, weights=w) for of, (v, p, w) in samples_of(group).items()}
    for i, name in enumerate(METRIC_NAMES):
        about = {
            "metric": name,
            "k": group["k"].iloc[0] if BY_NAME[name].depends_on_k else pd.NA,
            "n_states": int(defined[:, i].sum()),
            "n_rollouts": len(np.unique(rollouts[defined[:, i]])),
        }
        rows += [about | estimate_columns(estimates[of][i]) | {"average": of} for of in AVERAGES]
    return rows


def _group_means(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Give the weighted mean of every column in every group, NaN where it has none, and a row of each group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=np.nan) != 0)
    counted = np.where(np.isnan(values), 0.0, weights)[order]
    tops = np.add.reduceat(np.where(counted > 0, values[order], 0.0) * counted, starts)
    totals = np.add.reduceat(counted, starts)
    return np.divide(tops, totals, out=np.full_like(tops, np.nan), where=totals > 0), order[starts]
