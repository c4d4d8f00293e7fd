"""From rows to one number a step, with an interval clustered by prompt; and the difference between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.tables.averages import AVERAGES, samples_of
from opd_diag.tables.bands import BAND_COLUMNS, with_bands
from opd_diag.tables.bounds import bounded_metrics, ends_of_states, outer
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, ESTIMATE, METRIC_NAMES
from opd_diag.tables.coverage import coverage_rows
from opd_diag.tables.fits import FitsByPart, fit_differences, fit_rows
from opd_diag.tables.floors import FLOOR_COLUMNS, with_floors
from opd_diag.tables.ranges import within_range
from opd_diag.tables.responses import Responses
from opd_diag.tables.rows import estimate_columns, few_drawn, groups_of, rollout_ids, rows_of, sample_of
from opd_diag.tables.states import IDENTITY

SUMMARY_COLUMNS = [
    *IDENTITY, "metric", "k", "aggregation", "value", "ci_low", "ci_high", "approximate", *BAND_COLUMNS,
    "bound_low", "bound_high", "n_states", "n_rollouts", "n_prompts", "n_undefined", "n_effective",
    *FLOOR_COLUMNS,
]  # fmt: skip
DIFFERENCE_COLUMNS = [
    "from_step", "from_label", "to_step", "to_label", "teacher", "states", "metric", "k",
    "value", "ci_low", "ci_high", "approximate", "bound_low", "bound_high", "p_value", "p_adjusted",
    "depends_on_average", "n_states", "n_prompts",
]  # fmt: skip


def summarize(
    states: pd.DataFrame,
    rollouts: pd.DataFrame | None = None,
    coverage: pd.DataFrame | None = None,
    stops: pd.DataFrame | None = None,
    fits: FitsByPart | None = None,
) -> pd.DataFrame:
    """Average every metric over the states of each (step, state set).

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`, of one or more steps and state sets.
    rollouts
        From :func:`~opd_diag.tables.rollout_table`; adds what is known of the responses: how they end, and how varied
        they are.
    coverage
        Which of the teacher's states are near a checkpoint's own; adds the share of them.
    stops
        From :func:`~opd_diag.tables.stop_table`; adds, with `rollouts`, how ready both models are to stop.
    fits
        What a second pass left, by (label, state set); adds temperature fit and gradient coherence.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`. Values are token means over all defined states, or ratios of sums over
        them where the catalogue says so; outcomes are rollout means; intervals are 95 %, clustered by prompt. What
        lies between bounds has no value: its interval reaches from the lower end of that of the mean lower bound to
        the upper end of that of the mean upper bound. Floors are NaN: they come from models
        (:mod:`opd_diag.tables.floors`).
    """
    responses = None if rollouts is None else Responses.of(states, rollouts, coverage_rows(coverage), stops)
    rows: list[dict[str, Any]] = []
    for identity, group in groups_of(states, IDENTITY):
        rows += [identity | row for row in _metric_rows(group)]
        if responses is not None:
            rows += [identity | row for row in responses.rows(group)]
        rows += [identity | row for row in fit_rows((fits or {}).get((identity["label"], identity["states"])))]
    table = pd.DataFrame(rows, columns=list(dict.fromkeys([*rows[0], "bound_low", "bound_high"])))
    table = with_floors(within_range(with_bands(table, states, ["states"], ["label"])), None)
    return table[SUMMARY_COLUMNS].astype({"step": "Int64", "k": "Int64", "approximate": bool})


def difference_table(
    states: pd.DataFrame,
    rollouts: pd.DataFrame,
    pairs: Sequence[tuple[str, str]] | None = None,
    coverage: pd.DataFrame | None = None,
    stops: pd.DataFrame | None = None,
    fits: FitsByPart | None = None,
) -> pd.DataFrame:
    """Difference of every metric between two checkpoints on the same state set, later minus earlier, paired by prompt.

    Parameters
    ----------
    states, rollouts
        From :func:`~opd_diag.tables.measure` and :func:`~opd_diag.tables.rollout_table`.
    pairs
        Labels (earlier, later); default: every checkpoint against the first.
    coverage, stops, fits
        As :func:`summarize`.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; empty where there is one checkpoint. Rows about responses are of
        ``on-policy`` alone, as the teacher's do not change; those about stopping are of ``teacher`` too.

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
    responses = Responses.of(states, rollouts, coverage_rows(coverage), stops)
    rows: list[dict[str, Any]] = []
    for first, second in chosen:
        for state_set in dict.fromkeys(states["states"]):
            earlier, later = rows_of(states, first, state_set), rows_of(states, second, state_set)
            if len(earlier) and len(later):
                found = _differences(earlier, later) | _plain(responses.differences(earlier, later))
                found |= _plain(fit_differences(*((fits or {}).get((label, state_set)) for label in (first, second))))
                rows += _difference_rows(earlier, later, found)
    types = {name: "Int64" for name in ("from_step", "to_step", "k", "n_states")}
    types |= {"approximate": "bool", "depends_on_average": "boolean"}
    return _adjusted(pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).astype(types))


def _metric_rows(group: pd.DataFrame) -> list[dict[str, Any]]:
    values, prompts, weights = sample_of(group)
    estimates = stats.clustered_means(values, prompts, weights=weights)
    numbers, rows = rollout_ids(group), []
    for name, estimate in zip(METRIC_NAMES, estimates, strict=True):
        about = {
            "metric": name,
            "k": group["k"].iloc[0] if BY_NAME[name].depends_on_k else pd.NA,
            "aggregation": BY_NAME[name].aggregation,
            "n_states": estimate.n,
            "n_rollouts": len(np.unique(numbers[group[name].notna().to_numpy()])),
            "n_undefined": estimate.n_undefined,
        }
        rows.append(estimate_columns(estimate) | about)
        if name == ESTIMATE:
            rows[-1]["approximate"] = _approximate(estimate, group)
    bounded = _bounded_rows(group)
    return [row | bounded.get(row["metric"], {}) for row in rows]


def _approximate(estimate: stats.Estimate, *parts: pd.DataFrame) -> bool:
    """Whether an interval of the estimate of reverse KL, of these states, may cover less often than it says."""
    return estimate.is_approximate or (not np.isnan(estimate.ci_low) and few_drawn(*parts))


def _bounded_rows(group: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Give, by metric, what a row says otherwise where only bounds are known."""
    names = bounded_metrics(group)
    low, high = (stats.clustered_means(of, group["prompt_index"].to_numpy()) for of in ends_of_states(group, names))
    n_rollouts = len(np.unique(rollout_ids(group)))
    return {
        name: outer(least, most)
        | {"n_states": least.n, "n_rollouts": n_rollouts, "n_prompts": least.n_clusters}
        | {"n_undefined": least.n_undefined}
        for name, least, most in zip(names, low, high, strict=True)
    }


Found = dict[str, tuple[stats.Estimate, dict[str, Any]]]
"""By metric: its difference, and the columns that not every difference has."""


def _differences(earlier: pd.DataFrame, later: pd.DataFrame) -> Found:
    before, after = samples_of(earlier), samples_of(later)
    by_average = stats.contrasts_in_ways([[before[of], after[of]] for of in AVERAGES], (-1.0, 1.0))
    tokens = [of.estimates[AVERAGES.index("token")] for of in by_average]
    found: Found = {
        name: (token, {"depends_on_average": of.conclusions_differ, "n_states": token.n})
        for name, token, of in zip(METRIC_NAMES, tokens, by_average, strict=True)
    }
    found[ESTIMATE][1]["approximate"] = _approximate(found[ESTIMATE][0], earlier, later)
    return found | _bounded_differences(earlier, later)


def _bounded_differences(earlier: pd.DataFrame, later: pd.DataFrame) -> Found:
    """Give the differences that are known between bounds alone: the least later less the greatest earlier, and back."""
    names = bounded_metrics(earlier, later)
    before, after = ends_of_states(earlier, names), ends_of_states(later, names)
    prompts = earlier["prompt_index"].to_numpy(), later["prompt_index"].to_numpy()
    low, high = (
        stats.clustered_mean_differences(than, prompts[0], of, prompts[1])
        for than, of in ((before[1], after[0]), (before[0], after[1]))
    )
    found: Found = {}
    for name, least, most in zip(names, low, high, strict=True):
        about = {"depends_on_average": None, "n_states": least.n, "n_prompts": least.n_clusters}
        found[name] = least, outer(least, most) | about
    return found


def _plain(estimates: dict[str, stats.Estimate]) -> Found:
    return {name: (estimate, {"depends_on_average": None, "n_states": None}) for name, estimate in estimates.items()}


def _difference_rows(earlier: pd.DataFrame, later: pd.DataFrame, found: Found) -> list[dict[str, Any]]:
    first, second = earlier.iloc[0], later.iloc[0]
    pair = {"from_step": first["step"], "from_label": first["label"], "to_step": second["step"]}
    pair |= {name: second[name] for name in ("teacher", "states")} | {"to_label": second["label"]}
    depends = {name: name in BY_NAME and BY_NAME[name].depends_on_k for name in found}
    return [
        pair | estimate_columns(e) | more | {"metric": name, "k": second["k"] if depends[name] else pd.NA}
        for name, (e, more) in found.items()
    ]


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Adjust the p-values of the primary metrics over the state sets of each pair of checkpoints; NaN elsewhere.

    Those on recorded states are left out, so that no other one depends on whether there are such.
    """
    p_values, adjusted = table["p_value"].to_numpy(float), np.full(len(table), np.nan)
    names = [m.name for m in CATALOGUE if m.primary]
    if table.loc[table["metric"] == "reverse_kl", "bound_low"].notna().any():
        names.append(ESTIMATE)  # which stands in for it where a server leaves only bounds
    primary = table["metric"].isin(names)
    pairs = (primary & (table["states"] != NEAR_ON_POLICY)).to_numpy()
    for rows in table[pairs].groupby(["from_label", "to_label"], sort=False).groups.values():
        adjusted[rows] = stats.holm(p_values[rows])
    return table.assign(p_adjusted=adjusted)
