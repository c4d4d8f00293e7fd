"""From rows to means within bins of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.tables.bands import BAND_COLUMNS, ERROR_COLUMNS, with_bands
from opd_diag.tables.catalogue import METRIC_NAMES, PRIMARY_NAMES
from opd_diag.tables.ranges import within_range
from opd_diag.tables.rows import estimate_columns, groups_of, rollout_ids, sample_of
from opd_diag.tables.states import IDENTITY

DEPTH_COLUMNS = [
    *IDENTITY, "metric", "depth_low", "depth_high", "value", "ci_low", "ci_high", *BAND_COLUMNS,
    "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip

FEWEST_PROMPTS = 5
"""Cells that rest on fewer prompts are no level: they are few long responses."""


def depth_table(states: pd.DataFrame, edges: Sequence[int] | None = None) -> pd.DataFrame:
    """Average every metric within bins of positions.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`.
    edges
        Increasing bin edges; default: up to 8 bins of equal width over the positions that occur; those that occur on
        ``near-on-policy`` alone are one bin more.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`. Deep bins hold only the rollouts that reach them, so a trend over depth
        compares different rollouts; `n_rollouts` shows how many are left.
    """
    bins, numbers = binned(states, edges)
    inside = states.assign(depth=numbers)[numbers >= 0]
    inside = inside.assign(depth_low=bins[inside["depth"]])
    rows: list[dict[str, Any]] = []
    for identity, group in groups_of(inside, [*IDENTITY, "depth_low"]):
        values, prompts, weights = sample_of(group)
        estimates = stats.clustered_means(values, prompts, weights=weights)
        place = {"depth_high": int(bins[group["depth"].iloc[0] + 1])}
        counts = {"n_rollouts": len(np.unique(rollout_ids(group)))}
        for name, estimate in zip(METRIC_NAMES, estimates, strict=True):
            columns = estimate_columns(estimate) | {"metric": name, "n_states": estimate.n}
            rows.append(identity | place | counts | columns)
    estimated = pd.DataFrame(rows, columns=[*DEPTH_COLUMNS, *ERROR_COLUMNS])
    banded = within_range(with_bands(estimated, inside, ["label", "states"], ["depth_low"], PRIMARY_NAMES))
    table = banded[DEPTH_COLUMNS].astype({"step": "Int64"})
    order = {label: i for i, label in enumerate(dict.fromkeys(states["label"]))}
    return table.sort_values(
        ["states", "label", "metric", "depth_low"],
        key=lambda column: column.map(order) if column.name == "label" else column,
        ignore_index=True,
    )


def peak_cell(depth: pd.DataFrame, metric: str, states: str) -> pd.Series | None:
    """Give the row where a metric is highest on a state set, of cells that `FEWEST_PROMPTS` prompts reach.

    Of equal ones it is the first; None where no cell has a value.
    """
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states)]
    rows = rows[(rows["n_prompts"] >= FEWEST_PROMPTS) & rows["value"].notna()]
    return None if rows.empty else rows.iloc[int(rows["value"].to_numpy(float).argmax())]


def positions(cell: Mapping[Any, Any] | pd.Series) -> str:
    """Write the positions of a bin.

    Examples
    --------
    >>> positions(pd.Series({"depth_low": 8, "depth_high": 16})), positions({"depth_low": 8, "depth_high": 9})
    ('positions 8–15', 'position 8')
    """
    low, last = int(cell["depth_low"]), int(cell["depth_high"]) - 1
    return f"position {low}" if low == last else f"positions {low}–{last}"


def binned(
    states: pd.DataFrame, edges: Sequence[int] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the edges of the bins and the number of each state's bin, -1 outside of all."""
    bins = np.asarray(edges if edges is not None else _edges_of(states))
    numbers = np.searchsorted(bins, states["position"].to_numpy(), side="right") - 1
    return bins, np.where(numbers < len(bins) - 1, numbers, -1)


def _edges_of(states: pd.DataFrame) -> list[int]:
    """Give the edges for all state sets but the recorded one, whose deeper positions are one bin more."""
    recorded = (states["states"] == NEAR_ON_POLICY).to_numpy()
    if recorded.all():
        return _depth_edges(int(states["position"].max()))
    edges = _depth_edges(int(states["position"][~recorded].max()))
    end = int(states["position"].max()) + 1
    return [*edges, end] if end > edges[-1] else edges


def _depth_edges(last: int) -> list[int]:
    width = max(1, -(-(last + 1) // 8))
    return [*range(0, last + 1, width), -(-(last + 1) // width) * width]
