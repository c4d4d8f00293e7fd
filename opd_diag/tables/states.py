"""From scores to one row a state, and one row a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from opd_diag.records.rollout import Rollout, in_training
from opd_diag.records.scores import Scores
from opd_diag.tables.bounds import metric_columns
from opd_diag.tables.catalogue import CATALOGUE, METRIC_NAMES, WEIGHTS
from opd_diag.tables.repetition import REPETITION_COLUMNS, repetition_columns
from opd_diag.tables.rows import sample_of

IDENTITY = ["step", "label", "teacher", "states"]
"""Columns that name whose states a row is about."""


def measure(scores: Scores, rollouts: Sequence[Rollout], *, k: int = 16) -> pd.DataFrame:
    """Compute every metric of the catalogue at every state.

    Parameters
    ----------
    scores
        N states of `rollouts`.
    rollouts
        What was scored, in the order it was scored.
    k
        Tokens compared, 1 to the number of kept tokens.

    Returns
    -------
    DataFrame
        One row a state, terminal ones left out; columns as in :mod:`opd_diag.tables`. Metrics that exist only on
        states the scoring checkpoint itself sampled are NaN elsewhere; those that a teacher behind a server leaves
        unknown are NaN and have two more columns, their bounds (:mod:`opd_diag.tables.bounds`).

    Raises
    ------
    ValueError
        `k` is not in 1..K.
    """
    if not 1 <= k <= scores.k_kept:
        raise ValueError(f"k must be 1 to {scores.k_kept}, the number of kept tokens; found {k}.")
    scored = np.flatnonzero(~scores.terminal)
    rows = scores.rollout[scored]
    identity = identity_of(scores)
    table = pd.DataFrame(
        {
            **{name: pd.Series([value] * len(scored), dtype=dtype) for name, (value, dtype) in identity.items()},
            "k": np.int64(k),
            "prompt_index": np.array([r.prompt_index for r in rollouts], dtype=np.int64)[rows],
            "prompt_id": np.array([r.prompt_id for r in rollouts], dtype=object)[rows],
            "group": np.array([r.group for r in rollouts], dtype=object)[rows],
            "rollout_index": np.array([r.rollout_index for r in rollouts], dtype=np.int64)[rows],
            "position": scores.position[scored].astype(np.int64),
            "sampled_id": scores.sampled_ids[scored].astype(np.int64),
            **{name: function(scores, k)[scored] for name, function in WEIGHTS.items()},
        }
    )
    own = np.array([sampled_by_scorer(scores, r) for r in rollouts])[rows]
    columns = {
        name: np.where(own | (not m.on_policy_only) | (m.takes_drawn and bool(scores.drawn)), column[scored], np.nan)
        for m in CATALOGUE
        for name, column in metric_columns(m, scores, k).items()
    }
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def sampled_by_scorer(scores: Scores, rollout: Rollout) -> bool:
    """Whether the scoring checkpoint sampled `rollout` itself, from the very distribution that was scored."""
    student, source = scores.provenance["student"], rollout.provenance
    plain = source.plain and scores.provenance["student_temperature"] == 1.0 and rollout.exactness == "ids"
    same_name = source.weights in (student["label"], student["name"])
    if source.step is not None and source.weights == in_training(source.step):
        same_name = source.step == student["step"]
    same_weights = student["key"] == source.weights_key if student["key"] and source.weights_key else True
    return bool(plain and same_name and same_weights)


def rollout_table(states: pd.DataFrame, rollouts: Sequence[Rollout]) -> pd.DataFrame:
    """Average the states of each rollout as a summary does; beside them how it ended and whether it is correct.

    Parameters
    ----------
    states
        One (step, state set) from :func:`measure`.
    rollouts
        What was scored, in the order it was scored.

    Returns
    -------
    DataFrame
        One row a rollout that has states; columns as in :mod:`opd_diag.tables`.
    """
    keys = [*IDENTITY, "k", "prompt_index", "prompt_id", "group", "rollout_index"]
    grouped = states.groupby(keys, dropna=False, sort=False)
    means = _means(states, grouped.ngroup().to_numpy(), grouped.size().index)
    table = pd.concat([grouped.size().rename("n_states"), means], axis=1).reset_index()
    facts = pd.DataFrame(
        {
            "prompt_index": [r.prompt_index for r in rollouts],
            "rollout_index": [r.rollout_index for r in rollouts],
            "stop_reason": [r.stop_reason for r in rollouts],
            "is_correct": pd.array([r.is_correct for r in rollouts], dtype="boolean"),
            "reward": pd.array([r.reward for r in rollouts], dtype="Float64"),
            **repetition_columns(rollouts),
        }
    )
    merged = table.merge(facts, on=["prompt_index", "rollout_index"], how="left", validate="one_to_one")
    return merged[[*keys, "n_states", "stop_reason", "is_correct", "reward", *REPETITION_COLUMNS, *METRIC_NAMES]]


def _means(states: pd.DataFrame, groups: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Average every metric within groups of states, numbered as in `index`."""
    values, _, weights = sample_of(states)
    counted = np.where(np.isnan(values), np.nan, weights)
    sums = pd.DataFrame(np.hstack([values * counted, counted])).groupby(groups).sum(min_count=1).to_numpy()
    tops, totals = np.split(sums, 2, axis=1)
    return pd.DataFrame(tops / totals, columns=list(METRIC_NAMES), index=index)


def identity_of(scores: Scores) -> dict[str, tuple[object, str]]:
    """Give value and dtype of the columns of `IDENTITY`: the checkpoint that the scores are listed under.

    That is the student, but on `back`, where the first checkpoint scores another one's states.
    """
    student = scores.provenance["student"]
    under = scores.provenance.get("checkpoint", student)
    step = under["step"]
    return {
        "step": (pd.NA if step is None else step, "Int64"),
        "label": (under["label"] or student["name"], "object"),
        "teacher": (scores.provenance["teacher"]["name"], "object"),
        "states": (scores.provenance["states"], "object"),
    }
