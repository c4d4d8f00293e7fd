"""Our value on a recorded batch, under the weights before the update, against the loss the trainer logged for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.tables.logged import logged_curve

RECONCILIATION_COLUMNS = [
    "step", "label", "metric", "value", "logged", "logged_step", "difference", "outcome",
    "n_states", "n_rollouts", "n_recorded", "updates",
]  # fmt: skip

TOLERANCE = 1e-3
"""Nats by which the two may differ where they agree."""

_LOSSES = ("reverse_kl", "forward_kl", "jensen_shannon")
"""What a loss can be: of TRL at beta 1, 0 and 0.5. Means over the tokens of a batch, of the whole vocabulary."""

_LOSS = "loss"
"""What TRL calls it."""


def reconciliation_table(
    scored: Iterable[tuple[pd.DataFrame, Sequence[Rollout]]], recorded: Mapping[str, int], logged: pd.DataFrame
) -> pd.DataFrame:
    """Compare our mean over each recorded batch with the loss of the update that it served.

    The responses that weights of step c wrote make the batch of update c + 1, whose loss is computed with these
    weights before they are changed. So the mean divergence over them at checkpoint c, at the temperature of training
    and without dropout, is that loss.

    Parameters
    ----------
    scored
        Rows of :func:`~opd_diag.tables.states.measure` and what was scored, one pair a (step, state set); pairs of
        other sets than ``near-on-policy`` are passed over.
    recorded
        How many responses were recorded of each checkpoint's very weights, by label.
    logged
        From :func:`~opd_diag.tables.logged.logged_table`.

    Returns
    -------
    DataFrame
        One row a checkpoint with such responses, where the trainer's loss is a divergence that we measure; columns as
        in :mod:`opd_diag.tables`. `outcome` is ``agree`` (to 1e-3 nats), ``differ``, or why they cannot be compared:
        ``partial batch`` (not all responses were scored), ``mean over updates`` (the log has no number for this update
        alone), ``not logged``.
    """
    metric = next((name for name in _LOSSES if _is_loss(logged, name)), None)
    rows = [] if metric is None else list(_rows(scored, recorded, metric, logged_curve(logged, metric)))
    types = {"step": "Int64", "logged_step": "Int64", "updates": "Int64"}
    return pd.DataFrame(rows, columns=RECONCILIATION_COLUMNS).astype(types)


def _is_loss(logged: pd.DataFrame, metric: str) -> bool:
    curve = logged_curve(logged, metric)
    return len(curve) > 0 and set(curve["trainer_key"]) == {_LOSS}


def _rows(
    scored: Iterable[tuple[pd.DataFrame, Sequence[Rollout]]],
    recorded: Mapping[str, int],
    metric: str,
    curve: pd.DataFrame,
) -> Iterable[dict[str, Any]]:
    for states, rollouts in scored:
        if states.empty or states["states"].iloc[0] != NEAR_ON_POLICY or states["step"].isna().any():
            continue
        step, label = int(states["step"].iloc[0]), str(states["label"].iloc[0])
        fresh = {
            (r.prompt_index, r.rollout_index)
            for r in rollouts
            if r.provenance.step == step and r.exactness == "ids" and r.provenance.origin == "recorded"
        }
        inside = [place in fresh for place in zip(states["prompt_index"], states["rollout_index"], strict=True)]
        values = states.loc[inside, metric].dropna()
        if fresh and len(values):
            row = {"step": step, "label": label, "metric": metric, "value": float(values.mean())}
            row |= {"n_states": len(values), "n_rollouts": len(fresh), "n_recorded": recorded.get(label, len(fresh))}
            yield row | _against(row, curve)


def _against(row: dict[str, Any], curve: pd.DataFrame) -> dict[str, Any]:
    """Find the loss of the update that a batch served, and say how it compares."""
    step = row["step"]
    later = curve[curve["step"] > step]
    found: dict[str, Any] = {"logged": np.nan, "logged_step": pd.NA, "difference": np.nan, "updates": pd.NA}
    if later.empty:
        return found | {"outcome": "not logged"}
    at, logged = int(later["step"].iloc[0]), float(later["value"].iloc[0])
    before = curve[curve["step"] <= step]["step"]
    updates = at - (int(before.iloc[-1]) if len(before) else 0)
    found |= {"logged": logged, "logged_step": at, "updates": updates}
    if at != step + 1 or updates != 1:
        return found | {"outcome": "mean over updates"}
    if row["n_rollouts"] < row["n_recorded"]:
        return found | {"outcome": "partial batch"}
    difference = row["value"] - logged
    return found | {"difference": difference, "outcome": "agree" if abs(difference) <= TOLERANCE else "differ"}
