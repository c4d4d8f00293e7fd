"""What is known of the responses of a state set as a whole: how they end and vary, where they go, what they earn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.tables.diversity import DIVERSITY, Scale, diversity_differences, diversity_rows, scale_of
from opd_diag.tables.ranges import SHARES
from opd_diag.tables.repetition import REPETITION
from opd_diag.tables.rewards import REWARD_METRICS, reward_differences, reward_rows
from opd_diag.tables.rows import estimate_columns, groups_of, rollout_ids, rows_of
from opd_diag.tables.stops import STOP_METRICS, STOP_SETS, stop_differences, stop_rows, stop_summary

OUTCOMES = ("accuracy", "truncation_rate", "response_length")
"""What is known of a rollout as a whole; averaged over rollouts."""

COVERAGE = "teacher_state_coverage"
"""Share of the teacher's states that are near one of the checkpoint's own; averaged over those states."""

RESPONSE_METRICS = (*OUTCOMES, *DIVERSITY, COVERAGE, *REWARD_METRICS, *REPETITION, *STOP_METRICS)
"""All of them. Those of `STOP_METRICS` depend on the checkpoint at the teacher's states too."""

OWN_STATES = "on-policy"
"""The state set whose rollouts the scoring checkpoint wrote itself."""

Floats = npt.NDArray[np.float64]

RESPONSE_SETS = STOP_SETS
"""State sets whose responses are described; those of the others are the first checkpoint's, or again its own."""


@dataclass(frozen=True)
class Responses:
    """What tells of responses beside the states themselves."""

    rollouts: pd.DataFrame
    coverage: pd.DataFrame
    stops: pd.DataFrame
    scale: Scale
    """At which the variety of all sets of the run is compared."""

    @classmethod
    def of(
        cls, states: pd.DataFrame, rollouts: pd.DataFrame, coverage: pd.DataFrame, stops: pd.DataFrame | None = None
    ) -> Responses:
        """Bring the tables of a run together."""
        described = states[states["states"].isin(RESPONSE_SETS)]
        scale = scale_of([of for _, of in groups_of(described, ["label", "states"])])
        return cls(rollouts, coverage, stop_rows(stops), scale)

    def rows(self, states: pd.DataFrame) -> list[dict[str, Any]]:
        """Give the summary's rows about the responses of one (checkpoint, state set), without what names it."""
        label, state_set = states["label"].iloc[0], states["states"].iloc[0]
        if state_set not in RESPONSE_SETS:
            return []
        rollouts, stops = rows_of(self.rollouts, label, state_set), rows_of(self.stops, label, state_set)
        rows = _rollout_rows(rollouts, OUTCOMES)
        rows += [_diversity_row(row) for row in diversity_rows(states, self.scale)]
        near = self.coverage[self.coverage["label"] == label]
        rows += [_coverage_row(near)] if state_set == OWN_STATES and len(near) else []
        rows += reward_rows(states, rollouts) if state_set == OWN_STATES else []
        rows += _rollout_rows(rollouts, REPETITION)
        return [*rows, *stop_summary(stops)] if len(stops) else rows

    def differences(self, earlier: pd.DataFrame, later: pd.DataFrame) -> dict[str, stats.Estimate]:
        """Give, by quantity, how the responses of one state set differ from an earlier checkpoint's, by prompt.

        The teacher's responses do not change; how ready each checkpoint is to stop in them does.
        """
        labels, state_set = (earlier["label"].iloc[0], later["label"].iloc[0]), earlier["states"].iloc[0]
        found = self._own_differences(earlier, later) if state_set == OWN_STATES else {}
        stops = [rows_of(self.stops, label, state_set) for label in labels]
        return found | stop_differences(*stops) if all(map(len, stops)) else found

    def _own_differences(self, earlier: pd.DataFrame, later: pd.DataFrame) -> dict[str, stats.Estimate]:
        labels = earlier["label"].iloc[0], later["label"].iloc[0]
        before, after = (rows_of(self.rollouts, label, OWN_STATES) for label in labels)
        found = _paired(outcomes_of(before), outcomes_of(after), OUTCOMES)
        found |= diversity_differences(earlier, later, self.scale)
        near, nearer = (self.coverage[self.coverage["label"] == label] for label in labels)
        found |= {} if near.empty or nearer.empty else _paired(_shares(near), _shares(nearer), [COVERAGE])
        found |= reward_differences((earlier, before), (later, after))
        return found | _paired(outcomes_of(before), outcomes_of(after), REPETITION)


def _rollout_rows(rollouts: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    outcomes = outcomes_of(rollouts)
    values = outcomes[list(names)].to_numpy(float)
    estimates = stats.clustered_means(values, outcomes["prompt_index"].to_numpy())
    shown = [stats.open_share(e, v) if of in SHARES else e for of, e, v in zip(names, estimates, values.T, strict=True)]
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
        for name, estimate in zip(names, shown, strict=True)
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


def outcomes_of(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Give what is averaged over rollouts as floats, NaN where unknown."""
    return rollouts.assign(
        repetition_rate=rollouts["is_repeating"].astype("Float64").to_numpy(float, na_value=np.nan),
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
    one, two = (of[list(names)].to_numpy(float) for of in (first, second))
    estimates = stats.clustered_mean_differences(
        one, first["prompt_index"].to_numpy(), two, second["prompt_index"].to_numpy()
    )
    return {
        name: stats.open_share_difference(estimate, *_shared(first, second, name)) if name in SHARES else estimate
        for name, estimate in zip(names, estimates, strict=True)
    }


def _shared(first: pd.DataFrame, second: pd.DataFrame, name: str) -> tuple[Floats, Floats]:
    """Give the values of both sides of the prompts that have one on each."""
    known = [of[of[name].notna()] for of in (first, second)]
    both = set(known[0]["prompt_index"]) & set(known[1]["prompt_index"])
    one, two = (of.loc[of["prompt_index"].isin(both), name].to_numpy(float) for of in known)
    return one, two
