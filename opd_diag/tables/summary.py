"""From rows to one number a step, with an interval clustered by prompt; and the difference between two steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.states import IDENTITY

SUMMARY_COLUMNS = [
    *IDENTITY, "metric", "k", "aggregation", "value", "ci_low", "ci_high", "bound_low", "bound_high",
    "n_states", "n_rollouts", "n_prompts", "n_undefined",
]  # fmt: skip
DIFFERENCE_COLUMNS = [
    "from_step", "from_label", "to_step", "to_label", "teacher", "states", "metric", "k",
    "value", "ci_low", "ci_high", "n_prompts",
]  # fmt: skip
DEPTH_COLUMNS = [
    *IDENTITY, "metric", "depth_low", "depth_high", "value", "ci_low", "ci_high", "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip

OUTCOMES = ("accuracy", "truncation_rate", "response_length")
"""What is known of a rollout as a whole; averaged over rollouts, of a checkpoint's own rollouts only."""

OWN_STATES = "on-policy"
"""The state set whose rollouts the scoring checkpoint wrote itself."""


def summarize(states: pd.DataFrame, rollouts: pd.DataFrame | None = None) -> pd.DataFrame:
    """Average every metric over the states of each (step, state set).

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`, of one or more steps and state sets.
    rollouts
        From :func:`~opd_diag.tables.rollout_table`; adds accuracy, truncation rate and response length.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`. Values are token means over all defined states, outcomes are rollout
        means; intervals are 95 %, clustered by prompt.
    """
    rows: list[dict[str, Any]] = []
    for identity, group in _groups(states, IDENTITY):
        estimates = stats.clustered_means(group[list(METRIC_NAMES)].to_numpy(float), group["prompt_index"].to_numpy())
        rollout_ids = _rollout_ids(group)
        for name, estimate in zip(METRIC_NAMES, estimates, strict=True):
            defined = group[name].notna().to_numpy()
            row = _estimate_columns(estimate) | {
                "metric": name,
                "k": group["k"].iloc[0] if BY_NAME[name].depends_on_k else pd.NA,
                "aggregation": BY_NAME[name].aggregation,
                "n_states": estimate.n,
                "n_rollouts": len(np.unique(rollout_ids[defined])),
                "n_undefined": estimate.n_undefined,
            }
            rows.append(identity | row)
        rows += _outcome_rows(identity, rollouts)
    table = pd.DataFrame(rows).assign(bound_low=np.nan, bound_high=np.nan)
    return table[SUMMARY_COLUMNS].astype({"step": "Int64", "k": "Int64"})


def difference_table(
    states: pd.DataFrame, rollouts: pd.DataFrame, pairs: Sequence[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Difference of every metric between two checkpoints on the same state set, later minus earlier, paired by prompt.

    Parameters
    ----------
    states, rollouts
        From :func:`~opd_diag.tables.measure` and :func:`~opd_diag.tables.rollout_table`.
    pairs
        Labels (earlier, later); default: every checkpoint against the first.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; empty where there is one checkpoint.

    Raises
    ------
    ValueError
        A label is not in the table.
    """
    labels = list(dict.fromkeys(states["label"]))
    chosen = [(labels[0], later) for later in labels[1:]] if pairs is None else list(pairs)
    unknown = sorted({label for pair in chosen for label in pair} - set(labels))
    if unknown:
        raise ValueError(f"No checkpoint {', '.join(unknown)}; there are {', '.join(labels)}.")
    rows: list[dict[str, Any]] = []
    for first, second in chosen:
        for state_set in dict.fromkeys(states["states"]):
            rows += _difference_rows(_only(states, first, state_set), _only(states, second, state_set), METRIC_NAMES)
        earlier, later = _only(rollouts, first, OWN_STATES), _only(rollouts, second, OWN_STATES)
        rows += _difference_rows(_outcomes(earlier), _outcomes(later), OUTCOMES)
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).astype(
        {"from_step": "Int64", "to_step": "Int64", "k": "Int64"}
    )


def depth_table(states: pd.DataFrame, edges: Sequence[int] | None = None) -> pd.DataFrame:
    """Average every metric within bins of positions.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`.
    edges
        Increasing bin edges; default: up to 8 bins of equal width over the positions that occur.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`. Deep bins hold only the rollouts that reach them, so a trend over depth
        compares different rollouts; `n_rollouts` shows how many are left.
    """
    bins = np.asarray(edges if edges is not None else _depth_edges(int(states["position"].max())))
    binned = states.assign(depth=np.searchsorted(bins, states["position"].to_numpy(), side="right") - 1)
    rows: list[dict[str, Any]] = []
    for identity, group in _groups(binned, [*IDENTITY, "depth"]):
        low = int(identity.pop("depth"))
        if not 0 <= low < len(bins) - 1:
            continue
        estimates = stats.clustered_means(group[list(METRIC_NAMES)].to_numpy(float), group["prompt_index"].to_numpy())
        place = {"depth_low": int(bins[low]), "depth_high": int(bins[low + 1])}
        counts = {"n_rollouts": len(np.unique(_rollout_ids(group)))}
        for name, estimate in zip(METRIC_NAMES, estimates, strict=True):
            columns = _estimate_columns(estimate) | {"metric": name, "n_states": estimate.n}
            rows.append(identity | place | counts | columns)
    table = pd.DataFrame(rows, columns=DEPTH_COLUMNS).astype({"step": "Int64"})
    order = {label: i for i, label in enumerate(dict.fromkeys(states["label"]))}
    return table.sort_values(
        ["states", "label", "metric", "depth_low"],
        key=lambda column: column.map(order) if column.name == "label" else column,
        ignore_index=True,
    )


def _depth_edges(last: int) -> list[int]:
    width = max(1, -(-(last + 1) // 8))
    return [*range(0, last + 1, width), -(-(last + 1) // width) * width]


def _groups(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    for values, group in table.groupby(keys, dropna=False, sort=False):
        yield dict(zip(keys, values, strict=True)), group


def _rollout_ids(states: pd.DataFrame) -> np.ndarray:
    width = int(states["rollout_index"].max()) + 1
    return states["prompt_index"].to_numpy() * width + states["rollout_index"].to_numpy()


def _estimate_columns(estimate: stats.Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n_prompts": estimate.n_clusters,
    }


def _outcomes(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Give the outcome columns as floats, NaN where unknown."""
    return rollouts.assign(
        accuracy=rollouts["is_correct"].astype("Float64").to_numpy(float, na_value=np.nan),
        truncation_rate=np.where(
            rollouts["stop_reason"] == "unknown", np.nan, (rollouts["stop_reason"] == "length").astype(float)
        ),
        response_length=rollouts["n_states"].astype(float),
    )


def _outcome_rows(identity: dict[str, Any], rollouts: pd.DataFrame | None) -> list[dict[str, Any]]:
    if rollouts is None or identity["states"] != OWN_STATES:
        return []
    group = _outcomes(_only(rollouts, identity["label"], identity["states"]))
    clusters, rows = group["prompt_index"].to_numpy(), []
    for name in OUTCOMES:
        estimate = stats.clustered_mean(group[name].to_numpy(float), clusters)
        row = _estimate_columns(estimate) | {
            "metric": name,
            "k": pd.NA,
            "aggregation": "rollout mean",
            "n_states": int(group["n_states"][group[name].notna()].sum()),
            "n_rollouts": estimate.n,
            "n_undefined": estimate.n_undefined,
        }
        rows.append(identity | row)
    return rows


def _only(table: pd.DataFrame, label: str, state_set: str) -> pd.DataFrame:
    return table[(table["label"] == label) & (table["states"] == state_set)]


def _difference_rows(first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    if first.empty or second.empty:
        return []
    estimates = stats.clustered_mean_differences(
        first[list(names)].to_numpy(float),
        first["prompt_index"].to_numpy(),
        second[list(names)].to_numpy(float),
        second["prompt_index"].to_numpy(),
    )
    pair = {
        "from_step": first["step"].iloc[0],
        "from_label": first["label"].iloc[0],
        "to_step": second["step"].iloc[0],
        "to_label": second["label"].iloc[0],
        "teacher": second["teacher"].iloc[0],
        "states": second["states"].iloc[0],
    }
    depends = {name: name in BY_NAME and BY_NAME[name].depends_on_k for name in names}
    return [
        pair | _estimate_columns(e) | {"metric": name, "k": second["k"].iloc[0] if depends[name] else pd.NA}
        for name, e in zip(names, estimates, strict=True)
    ]
