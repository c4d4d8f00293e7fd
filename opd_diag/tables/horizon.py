"""Metrics by depth on the same rollouts at every depth, how many get that far, and entropies by depth and step."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from opd_diag.tables.cohort import cohorts, depth_edges
from opd_diag.tables.depth import DEPTH_COLUMNS, depth_table
from opd_diag.tables.rows import groups_of, rollout_ids

COHORT_BINS, HEAT_BINS = 8, 24
"""Most bins of positions: of the table of every metric, and of heat maps."""

ENTROPIES = ("student_entropy", "teacher_entropy", "entropy_gap")
SURVIVOR_COLUMNS = ["step", "label", "states", "depth", "n_rollouts", "n_prompts", "survivors"]


def survivor_table(states: pd.DataFrame, depths: Sequence[int]) -> pd.DataFrame:
    """Count the rollouts that have a state at or beyond each depth.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`.
    depths
        Positions.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; `survivors` is the share of the rollouts, in [0, 1].
    """
    rows = []
    for identity, group in groups_of(states, ["step", "label", "states"]):
        rollouts = pd.DataFrame({"of": rollout_ids(group), "prompt": group["prompt_index"].to_numpy()})
        ends = rollouts.assign(end=group["position"].to_numpy()).groupby("of").agg({"prompt": "first", "end": "max"})
        for depth in depths:
            left = ends[ends["end"] >= depth]
            counts = {"n_rollouts": len(left), "n_prompts": left["prompt"].nunique()}
            rows.append(identity | {"depth": depth, "survivors": len(left) / len(ends)} | counts)
    return pd.DataFrame(rows, columns=SURVIVOR_COLUMNS).astype({"step": "Int64"})


def cohort_table(states: pd.DataFrame, length: int) -> pd.DataFrame:
    """Average every metric by depth over the rollouts that reach a length, the same ones at every depth.

    Returns
    -------
    DataFrame
        The depth table of the cohorts, and `survivors`, the share of all rollouts that reach each bin; columns as in
        :mod:`opd_diag.tables`.
    """
    edges = depth_edges(length, COHORT_BINS)
    table = depth_table(cohorts(states, length), edges)
    left = survivor_table(states, edges[:-1]).rename(columns={"depth": "depth_low"})
    left = left[["label", "states", "depth_low", "survivors"]]
    return table.merge(left, on=["label", "states", "depth_low"], how="left")[[*DEPTH_COLUMNS, "survivors"]]


def entropy_table(states: pd.DataFrame) -> pd.DataFrame:
    """Average both entropies and their gap by depth on own states, over all that get there.

    Returns
    -------
    DataFrame
        Rows of the depth table, at most `HEAT_BINS` bins.
    """
    own = states[states["states"] == "on-policy"]
    if own.empty:
        return pd.DataFrame(columns=DEPTH_COLUMNS)
    table = depth_table(own, depth_edges(int(own["position"].max()) + 1, HEAT_BINS))
    return table[table["metric"].isin(ENTROPIES)].reset_index(drop=True)
