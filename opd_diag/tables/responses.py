"""What is known of the responses of a state set as a whole: how they end, how varied they are, where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.tables.diversity import DIVERSITY, Scale, diversity_differences, diversity_rows, scale_of
from opd_diag.tables.rows import estimate_columns, groups_of, rollout_ids, rows_of

OUTCOMES = ("accuracy", "truncation_rate", "response_length")
"""What is known of a rollout as a whole; averaged over rollouts."""

COVERAGE = "teacher_state_coverage"
"""Share of the teacher's states that are near one of the checkpoint's own; averaged over those states."""

RESPONSE_METRICS = (*OUTCOMES, *DIVERSITY, COVERAGE)
"""All of them, in the order of their rows."""

OWN_STATES = "on-policy"
"""The state set whose rollouts the scoring checkpoint wrote itself."""

RESPONSE_SETS = (OWN_STATES, "teacher")
"""State sets whose responses are described; those of the others are the first checkpoint's, or again its own."""


@dataclass(frozen=True)
class Responses:
    """What tells of responses beside the states themselves."""

    rollouts: pd.DataFrame
    coverage: pd.DataFrame
    scale: Scale
    """At which the variety of all sets of the run is compared."""

    @classmethod
    def of(cls, states: pd.DataFrame, rollouts: pd.DataFrame, coverage: pd.DataFrame) -> Responses:
        """Bring the tables of a run together."""
        described = states[states["states"].isin(RESPONSE_SETS)]
        return cls(rollouts, coverage, scale_of([of for _, of in groups_of(described, ["label", "states"])]))

    def rows(self, states: pd.DataFrame) -> list[dict[str, Any]]:
        """Give the summary's rows about the responses of one (checkpoint, state set), without what names it."""
        label, state_set = states["label"].iloc[0], states["states"].iloc[0]
        if state_set not in RESPONSE_SETS:
            return []
        rows = _outcome_rows(rows_of(self.rollouts, label, state_set))
        rows += [_diversity_row(row) for row in diversity_rows(states, self.scale)]
        near = self.coverage[self.coverage["label"] == label]
        return [*rows, _coverage_row(near)] if state_set == OWN_STATES and len(near) else rows

    def differences(self, earlier: pd.DataFrame, later: pd.DataFrame) -> dict[str, stats.Estimate]:
        """Give, by quantity, how one checkpoint's own responses differ from an earlier one's, paired by prompt."""
        labels = earlier["label"].iloc[0], later["label"].iloc[0]
        before, after = (_outcomes(rows_of(self.rollouts, label, OWN_STATES)) for label in labels)
        found = _paired(before, after, OUTCOMES) | diversity_differences(earlier, later, self.scale)
        near, nearer = (self.coverage[self.coverage["label"] == label] for label in labels)
        return found if near.empty or nearer.empty else found | _paired(_shares(near), _shares(nearer), [COVERAGE])


def _outcome_rows(rollouts: pd.DataFrame) -> list[dict[str, Any]]:
    outcomes = _outcomes(rollouts)
    estimates = stats.clustered_means(outcomes[list(OUTCOMES)].to_numpy(float), outcomes["prompt_index"].to_numpy())
    return [
        estimate_columns(estimate)
        | {
            "metric": name,
            "k": pd.NA,
            "aggregation": "rollout mean",
            "n_states": int(outcomes["n_states"][outcomes[name].notna()].sum()),
            "n_rollouts": estimate.n,
            "n_undefined": estimate.n_undefined,
        }
        for name, estimate in zip(OUTCOMES, estimates, strict=True)
    ]


def _diversity_row(row: dict[str, Any]) -> dict[str, Any]:
    estimate = row["estimate"]
    counts = {"n_states": estimate.n, "n_rollouts": row["n_rollouts"], "n_undefined": estimate.n_undefined}
    return estimate_columns(estimate) | {"metric": row["metric"], "k": pd.NA, "aggregation": "pooled"} | counts


def _coverage_row(near: pd.DataFrame) -> dict[str, Any]:
    values = _shares(near)
    estimate = stats.clustered_mean(values[COVERAGE].to_numpy(float), values["prompt_index"].to_numpy())
    known = values[values[COVERAGE].notna()]
    counts = {"n_states": estimate.n, "n_rollouts": len(np.unique(rollout_ids(known)))}
    about = {"metric": COVERAGE, "k": pd.NA, "aggregation": "state mean", "n_undefined": estimate.n_undefined}
    return estimate_columns(estimate) | about | counts


def _outcomes(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Give the outcome columns as floats, NaN where unknown."""
    return rollouts.assign(
        accuracy=rollouts["is_correct"].astype("Float64").to_numpy(float, na_value=np.nan),
        truncation_rate=np.where(
            rollouts["stop_reason"] == "unknown", np.nan, (rollouts["stop_reason"] == "length").astype(float)
        ),
        response_length=rollouts["n_states"].astype(float),
    )


def _shares(near: pd.DataFrame) -> pd.DataFrame:
    """Give whether states are covered as a float, NaN where unknown, under the name of its mean."""
    return near.assign(**{COVERAGE: near["is_covered"].astype("Float64").to_numpy(float, na_value=np.nan)})


def _paired(first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str]) -> dict[str, stats.Estimate]:
    estimates = stats.clustered_mean_differences(
        first[list(names)].to_numpy(float),
        first["prompt_index"].to_numpy(),
        second[list(names)].to_numpy(float),
        second["prompt_index"].to_numpy(),
    )
    return dict(zip(names, estimates, strict=True))
