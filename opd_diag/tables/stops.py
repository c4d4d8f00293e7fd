"""Whether both models would stop where a response stops, where it has given its answer, and where it was cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from opd_diag import stats
from opd_diag.errors import StoreError
from opd_diag.records.files import replaced_whole
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.tables.answered import answered_position
from opd_diag.tables.coverage import slug_of
from opd_diag.tables.rows import estimate_columns, rollout_ids
from opd_diag.tables.states import IDENTITY, identity_of

PLACES = {"stop": "at_stops", "answer": "after_answers", "truncated": "at_truncation"}
"""Kinds of place, and how the names of their means end."""

STOP_METRICS = {
    f"{model}_stop_probability_{end}": (f"{model}_stop_logprob", place)
    for place, end in PLACES.items()
    for model in ("student", "teacher")
}
"""Means of the summary: the column and the kind of place that each is of."""

STOP_COLUMNS = [
    *IDENTITY, "prompt_index", "prompt_id", "rollout_index", "position", "place",
    "student_stop_logprob", "teacher_stop_logprob",
]  # fmt: skip

STOP_SETS = ("on-policy", "teacher")
"""State sets that it is asked of: where the student stops, and where the teacher does."""

_TYPES = {
    "step": "Int64",
    "prompt_index": "int64",
    "rollout_index": "int64",
    "position": "Int64",
    "student_stop_logprob": "float64",
    "teacher_stop_logprob": "float64",
}


def stop_table(scores: Scores, rollouts: Sequence[Rollout], tokens: Mapping[int, Token] | None = None) -> pd.DataFrame:
    """Read off both models' log-probability of stopping at the places where it matters.

    Formula: log Σ_{e ∈ E} p(e | state), with E the union of both models' stop tokens
    (:func:`opd_diag.metrics.stop_logprobs`). The states: of a rollout that stopped, the one whose sampled token is the
    stop token; of every rollout, the first after its answer is complete (:func:`~opd_diag.records.answer.answer_end`);
    of one that was cut, the terminal one.

    Parameters
    ----------
    scores
        N states of `rollouts`.
    rollouts
        What was scored, in the order it was scored.
    tokens
        What ids look like, to find answers; None: their places are unknown.

    Returns
    -------
    DataFrame
        One row a rollout and kind of place; columns as in :mod:`opd_diag.tables`. Where the place cannot be told or was
        not scored, `position` is missing and the log-probabilities are NaN; these are NaN everywhere if neither model
        has a stop token. Empty for other sets than `STOP_SETS`.

    Notes
    -----
    Caution: what follows an answer may be a unit or a full stop, so that neither model would stop right there; there
    the two are held against each other. Teacher and student stop where the student goes: that the teacher's stop gets
    no probability where it never stops shows only at its own stops, in the set ``teacher``.

    References
    ----------
    The probability of the class at final positions: arXiv 2609.20511.
    """
    of_set = scores.provenance["states"] in STOP_SETS
    found = list(_places(rollouts, scores, tokens)) if of_set else []
    rows = np.array([row for row, _, _ in found], dtype=np.int64)
    positions = np.array([position for _, position, _ in found], dtype=np.int64)
    at, known = _lookup(scores, rows, positions)
    table: dict[str, Any] = {
        name: pd.Series([value] * len(found), dtype=dtype) for name, (value, dtype) in identity_of(scores).items()
    }
    for name in ("prompt_index", "prompt_id", "rollout_index"):
        table[name] = [getattr(rollouts[row], name) for row in rows]
    table["position"] = pd.array(np.where(known, positions, 0), dtype="Int64")
    table["position"][~known] = pd.NA
    table["place"] = [place for _, _, place in found]
    for model in ("student", "teacher"):
        logprobs = np.asarray(getattr(scores, f"{model}_stop_logprobs"), dtype=np.float64)
        table[f"{model}_stop_logprob"] = np.full(len(found), np.nan)
        if _any_stops(scores):
            table[f"{model}_stop_logprob"][known] = logprobs[at[known]]
    return stop_rows(pd.DataFrame(table))


def stop_rows(stops: pd.DataFrame | None) -> pd.DataFrame:
    """Give the columns of a stop table in order and type; of None, an empty table."""
    table = pd.DataFrame(columns=STOP_COLUMNS) if stops is None else stops
    return table[STOP_COLUMNS].astype({name: _TYPES.get(name, "object") for name in STOP_COLUMNS})


def stop_summary(stops: pd.DataFrame) -> list[dict[str, Any]]:
    """Average the probabilities over the states of each kind of place, one (checkpoint, state set), by prompt."""
    rows = []
    for metric, (column, place) in STOP_METRICS.items():
        of = stops[stops["place"] == place]
        estimate = stats.clustered_mean(np.exp(of[column].to_numpy(float)), of["prompt_index"].to_numpy())
        counts = {
            "n_states": estimate.n,
            "n_rollouts": len(np.unique(rollout_ids(of[of[column].notna()]))),
            "n_undefined": estimate.n_undefined,
        }
        about = {"metric": metric, "k": pd.NA, "aggregation": "state mean"}
        rows.append(estimate_columns(estimate) | about | counts)
    return rows


def stop_differences(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, stats.Estimate]:
    """Give, by quantity, how the means of one checkpoint differ from an earlier one's, paired by prompt."""
    found = {}
    for metric, (column, place) in STOP_METRICS.items():
        sides = [stops[stops["place"] == place] for stops in (first, second)]
        values = [(np.exp(of[column].to_numpy(float)), of["prompt_index"].to_numpy()) for of in sides]
        found[metric] = stats.clustered_mean_difference(*values[0], *values[1])
    return found


def save_stops(out_dir: Path, stops: pd.DataFrame) -> list[str]:
    """Write ``stops/<checkpoint>.<state set>.parquet``, each whole or not at all; give their names in `out_dir`."""
    names = []
    for (label, state_set), group in stops.groupby(["label", "states"], sort=False):
        names.append(f"stops/{slug_of(str(label), group)}.{state_set}.parquet")
        with replaced_whole(out_dir / names[-1]) as part:
            group.to_parquet(part, index=False)
    return names


def load_stops(out_dir: Path, checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Read what :func:`save_stops` wrote.

    Parameters
    ----------
    out_dir
        Folder of the report.
    checkpoints
        (label, step, states) of each checkpoint and state set, in their order.

    Raises
    ------
    StoreError
        A file is missing or damaged.
    """
    tables = [stop_rows(None)]
    for (label, state_set), group in checkpoints.groupby(["label", "states"], sort=False):
        if state_set in STOP_SETS:
            path = out_dir / "stops" / f"{slug_of(str(label), group)}.{state_set}.parquet"
            try:
                tables.append(stop_rows(pd.read_parquet(path)))
            except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
                raise StoreError(f"{path} is no readable table of stops: {error}. Run report again.") from error
    return pd.concat(tables[1:], ignore_index=True) if len(tables) > 1 else tables[0]


def _places(
    rollouts: Sequence[Rollout], scores: Scores, tokens: Mapping[int, Token] | None
) -> Iterator[tuple[int, int, str]]:
    """Give row, position (-1: cannot be told) and kind of each place."""
    stop_ids = scores.provenance.get("stop_ids")
    for row, rollout in enumerate(rollouts):
        last = len(rollout.response_ids) - 1
        if rollout.stop_reason == "stop":
            told = last >= 0 and (stop_ids is None or rollout.response_ids[last] in stop_ids)
            yield row, last if told else -1, "stop"
        answered = answered_position(rollout, tokens)
        yield row, -1 if answered is None else answered, "answer"
        if rollout.truncated:
            yield row, last + 1, "truncated"


def _lookup(
    scores: Scores, rows: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Find the states at some (row, position), and whether each is there."""
    width = max(int(of.max(initial=0)) for of in (scores.position, positions)) + 2
    keys, wanted = scores.rollout.astype(np.int64) * width + scores.position, rows * width + positions
    if not len(keys):
        return wanted, np.zeros(len(rows), dtype=bool)
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return at, (positions >= 0) & (keys[at] == wanted)


def _any_stops(scores: Scores) -> bool:
    """Whether there is a stop token at all."""
    return not all(np.isneginf(of).all() for of in (scores.student_stop_logprobs, scores.teacher_stop_logprobs))
