"""Metrics and responses apart: of right and wrong responses, of each group of prompts, inside loops and outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.ranges import SHARES, within_range
from opd_diag.tables.repetition import REPETITION
from opd_diag.tables.responses import OUTCOMES, RESPONSE_SETS, outcomes_of
from opd_diag.tables.rows import estimate_columns, groups_of, rollout_ids, sample_of
from opd_diag.tables.states import IDENTITY
from opd_diag.tables.stops import PLACES, STOP_METRICS, stop_rows

STRATA_COLUMNS = [
    *IDENTITY, "by", "level", "metric", "k", "aggregation", "value", "ci_low", "ci_high",
    "n_states", "n_rollouts", "n_prompts", "n_undefined",
]  # fmt: skip

MOST_GROUPS = 20
"""Groups of prompts that have rows of their own, those with the most prompts; the rest is one level."""

NO_GROUP = "(no group)"
"""Level of prompts without a group, in a run where others have one."""

GRADED_SETS = ("on-policy", "start", "teacher")
"""State sets that are split by whether the response is right."""

CYCLE_SETS = ("on-policy", "teacher")
"""State sets that are split by whether the state's token lies in a cycle."""

OF_ROLLOUTS = (*OUTCOMES, *REPETITION)
"""What is averaged over the responses of a level; `accuracy` of groups alone."""

_ROLLOUT = ["label", "states", "prompt_index", "rollout_index"]

Levels = npt.NDArray[np.object_]


def strata_table(states: pd.DataFrame, rollouts: pd.DataFrame, stops: pd.DataFrame | None = None) -> pd.DataFrame:
    """Average metrics of the catalogue, and what is known of responses, within levels of what a state belongs to.

    Parameters
    ----------
    states, rollouts
        From :func:`~opd_diag.tables.measure` and :func:`~opd_diag.tables.rollout_table`.
    stops
        From :func:`~opd_diag.tables.stop_table`; adds how ready both models are to stop, in responses with states.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`, without ``near-on-policy``; 95 % intervals clustered by prompt, none below
        :data:`opd_diag.stats.MIN_CLUSTERS` prompts. A split with one level has no rows: it says nothing new. At most
        `MOST_GROUPS` groups, those of most prompts in the run (ties by name), have rows of their own; all others are
        the level ``(N other groups)``.

    Notes
    -----
    Caution: levels are compared across prompts as a rule: right answers are to easier ones.
    """
    states, rollouts = (of[of["states"] != NEAR_ON_POLICY] for of in (states, rollouts))
    facts = rollouts[[*_ROLLOUT, "is_correct", "cycle_start", "stop_reason"]]
    joined = states[[*_ROLLOUT, "position"]].merge(facts, on=_ROLLOUT, how="left", validate="many_to_one")
    responses = _responses(rollouts, stops)
    of_responses = {"is_correct": _graded(responses), "group": _group_levels(responses)}
    splits = {
        "is_correct": _graded(joined),
        "group": _group_levels(states),
        "in_cycle": _in_cycle(joined),
    }
    rows: list[dict[str, Any]] = []
    for identity, places in _sets(states):
        of_set = states.iloc[places]
        for by, levels in splits.items():
            about = identity | {"by": by}
            rows += [about | row for row in _level_rows(of_set, levels[places])]
            if by in of_responses and identity["states"] in RESPONSE_SETS:
                own = (responses[["label", "states"]] == [identity["label"], identity["states"]]).all(axis=1).to_numpy()
                rows += [about | row for row in _response_rows(responses[own], of_responses[by][own], by)]
    return strata_rows(within_range(pd.DataFrame(rows, columns=STRATA_COLUMNS)))


def strata_rows(strata: pd.DataFrame | None) -> pd.DataFrame:
    """Give the columns of a table of strata in order and type; of None, an empty table."""
    table = pd.DataFrame(columns=STRATA_COLUMNS) if strata is None else strata
    return table[STRATA_COLUMNS].astype({"step": "Int64", "k": "Int64"})


def _sets(states: pd.DataFrame) -> list[tuple[dict[str, Any], npt.NDArray[np.intp]]]:
    """Give each (step, state set) with the places of its rows."""
    numbered = states[IDENTITY].reset_index(drop=True)
    return [(identity, group.index.to_numpy()) for identity, group in groups_of(numbered, IDENTITY)]


def _level_rows(states: pd.DataFrame, levels: Levels) -> list[dict[str, Any]]:
    """Give the rows of one set split one way; none where there are fewer than two levels."""
    rows: list[dict[str, Any]] = []
    for level in _present(levels):
        of_level = states[levels == level]
        values, prompts, weights = sample_of(of_level)
        numbers = rollout_ids(of_level)
        for i, estimate in enumerate(stats.clustered_means(values, prompts, weights=weights)):
            metric = BY_NAME[METRIC_NAMES[i]]
            counts = {
                "n_states": estimate.n,
                "n_rollouts": len(np.unique(numbers[~np.isnan(values[:, i])])),
                "n_undefined": estimate.n_undefined,
            }
            k = of_level["k"].iloc[0] if metric.depends_on_k else pd.NA
            about = {"level": level, "metric": metric.name, "k": k, "aggregation": metric.aggregation}
            rows.append(about | estimate_columns(estimate) | counts)
    return rows


def _response_rows(responses: pd.DataFrame, levels: Levels, by: str) -> list[dict[str, Any]]:
    """Give the rows about the responses of one set split one way, as the summary's of these responses alone."""
    names = [name for name in OF_ROLLOUTS if not (by == "is_correct" and name == "accuracy")]
    names += STOP_METRICS if responses[list(PLACES)].to_numpy().any() else ()
    rows: list[dict[str, Any]] = []
    for level in _present(levels):
        of_level = responses[levels == level]
        values = of_level[names].to_numpy(float)
        estimates = stats.clustered_means(values, of_level["prompt_index"].to_numpy())
        for i, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
            counts = {"n_states": int(of_level["n_states"][~np.isnan(values[:, i])].sum()), "n_rollouts": estimate.n}
            counts["n_undefined"] = estimate.n_undefined
            if name in STOP_METRICS:  # of one state each, and only of responses that have such a place
                asked = int(of_level[STOP_METRICS[name][1]].sum())
                counts |= {"n_states": estimate.n, "n_undefined": asked - estimate.n}
            aggregation = "state mean" if name in STOP_METRICS else "rollout mean"
            about = {"level": level, "metric": name, "k": pd.NA, "aggregation": aggregation}
            shown = stats.open_share(estimate, values[:, i]) if name in SHARES else estimate
            rows.append(about | estimate_columns(shown) | counts)
    return rows


def _responses(rollouts: pd.DataFrame, stops: pd.DataFrame | None) -> pd.DataFrame:
    """Give one row a response: what is averaged over them, which places of `PLACES` it has, the probabilities there."""
    table, found = outcomes_of(rollouts), stop_rows(stops)
    for place in PLACES:
        columns = {column: metric for metric, (column, of) in STOP_METRICS.items() if of == place}
        of_place = found.loc[found["place"] == place, [*_ROLLOUT, *columns]]
        joined = table[_ROLLOUT].merge(of_place, on=_ROLLOUT, how="left", validate="one_to_one", indicator=True)
        table[place] = (joined["_merge"] == "both").to_numpy()
        for column, metric in columns.items():
            table[metric] = np.exp(joined[column].to_numpy(float))
    return table


def _present(levels: Levels) -> list[str]:
    """Give the levels there are, in order; none where there are fewer than two."""
    present = sorted({level for level in levels if level is not None}, key=_order)
    return present if len(present) > 1 else []


def _order(level: str) -> tuple[bool, str]:
    return level.startswith("("), level


def _graded(joined: pd.DataFrame) -> Levels:
    """Give ``True`` or ``False``, None where the response is not graded or the set is not split so."""
    levels = _truth(joined["is_correct"])
    levels[~joined["states"].isin(GRADED_SETS).to_numpy()] = None
    return levels


def _in_cycle(joined: pd.DataFrame) -> Levels:
    """Give whether the sampled token lies in the repeating tail of its response; a stop token behind it does not."""
    starts = joined["cycle_start"].astype("Float64").to_numpy(float, na_value=np.inf)
    last = joined.groupby(_ROLLOUT, sort=False)["position"].transform("max")
    stops = (joined["stop_reason"] == "stop") & (joined["position"] == last)
    inside = (joined["position"] >= starts) & ~stops
    levels = np.where(inside, "True", "False").astype(object)
    levels[~joined["states"].isin(CYCLE_SETS).to_numpy()] = None
    return levels


def _truth(flags: pd.Series) -> Levels:
    numbers = flags.astype("Float64").to_numpy(float, na_value=np.nan)
    levels = np.where(numbers == 1, "True", "False").astype(object)
    levels[np.isnan(numbers)] = None
    return levels


def _group_levels(states: pd.DataFrame) -> Levels:
    """Give the group of each state's prompt; all None where no prompt of the run has one."""
    groups = states["group"].astype(object)
    if groups.isna().all():
        return np.full(len(states), None, dtype=object)
    named = groups.where(groups.notna(), NO_GROUP)
    prompts = pd.DataFrame({"group": named, "prompt": states["prompt_index"]}).drop_duplicates()
    sizes = prompts["group"].value_counts()
    ranked = sorted(sizes.index, key=lambda name: (-int(sizes[name]), name))
    if len(ranked) > MOST_GROUPS:
        rest = ranked[MOST_GROUPS:]
        named = named.where(~named.isin(rest), f"({len(rest)} other groups)")
    return named.to_numpy(dtype=object)
