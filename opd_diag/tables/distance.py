"""How far a student is from the teacher at the teacher's states, where that distance lies, and how much was closed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.records.vocabulary import Token

OPENING = 8
"""Tokens of a response that count as its opening: long enough for the phrase that it begins with."""

PARTS = ("whole", "opening", "end", "middle")
"""The whole response; its first tokens; the stop token; all others."""

DISTANCE_COLUMNS = [
    "label", "part", "value", "ci_low", "ci_high", "per_response", "per_response_ci_low", "per_response_ci_high",
    "share", "share_ci_low", "share_ci_high", "token_share", "n_states", "n_rollouts", "n_prompts",
]  # fmt: skip

TOKEN_COLUMNS = ["label", "token_id", "token", "n_states", "value", "share"]

Floats = npt.NDArray[np.float64]


def distance_table(states: pd.DataFrame, rollouts: pd.DataFrame) -> pd.DataFrame:
    """Give the forward KL at the teacher's states by part of the response: what teaching its responses would lower.

    Formula: KL(q || p) at each state of the teacher's responses, q the teacher's distribution; `value` is its mean over
    states, `per_response` its sum over a response, meant over responses, `share` the part's sum over the sum of all.

    Parameters
    ----------
    states, rollouts
        Tables of states and of rollouts (:mod:`opd_diag.tables`), with the set ``teacher``.

    Returns
    -------
    DataFrame
        One row a (checkpoint, part); columns as in :mod:`opd_diag.tables`. In nats; intervals are 95 %, over prompts,
        of shares by the jackknife. States without a finite value are left out.
    """
    return pd.DataFrame(
        [row for label, of in _at_teacher(states, rollouts) for row in _rows(label, of)], columns=DISTANCE_COLUMNS
    )


def token_table(states: pd.DataFrame, rollouts: pd.DataFrame, tokens: Mapping[int, Token]) -> pd.DataFrame:
    """Give the same distance by the token that the teacher wrote there, the largest share first, by checkpoint."""
    tables = []
    for label, of in _at_teacher(states, rollouts):
        grouped = of.groupby("sampled_id")["forward_kl"].agg(["size", "mean", "sum"])
        grouped = grouped.sort_values("sum", ascending=False, kind="stable")
        total = grouped["sum"].sum()
        about = {"label": label, "token_id": grouped.index, "n_states": grouped["size"], "value": grouped["mean"]}
        share = grouped["sum"] / total if total > 0 else math.nan
        table = pd.DataFrame(about | {"share": share}).reset_index(drop=True)
        tables.append(table.assign(token=[tokens[i].text if i in tokens else "" for i in table["token_id"]]))
    return pd.concat(tables, ignore_index=True)[TOKEN_COLUMNS] if tables else pd.DataFrame(columns=TOKEN_COLUMNS)


def closed_share(states: pd.DataFrame, first: str, last: str) -> stats.Estimate:
    """Give how much of the first checkpoint's distance the last one has closed, with a jackknife interval over prompts.

    Formula: 1 - Σ KL(q || p_last) / Σ KL(q || p_first), over the states of the teacher that define both. It may leave
    [0, 1]; it is undefined where the first is no distance at all.
    """
    key = ["prompt_index", "rollout_index", "position"]
    sides = [_finite(states[states["label"] == label]).set_index(key)["forward_kl"] for label in (first, last)]
    both = pd.concat(sides, axis=1, join="inner", keys=["first", "last"])
    sums = both.groupby(level="prompt_index").sum().to_numpy(float)
    total = sums.sum(axis=0)
    left_out = [_closed(total - row) for row in sums] if len(sums) > 1 else []
    return stats.clustered_jackknife(_closed(total), left_out, n=len(both))


def infinite_states(states: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Give by checkpoint how many of the teacher's states have an infinite forward KL, and how many there are in all.

    Those are left out of every sum here: the student gives no mass to a token that the teacher may write there.
    """
    of = states[states["states"] == "teacher"]
    grouped = np.isinf(of["forward_kl"]).groupby(of["label"], sort=False).agg(["sum", "size"])
    return {str(label): (int(row["sum"]), int(row["size"])) for label, row in grouped.iterrows()}


def _closed(sums: Floats) -> float:
    before, after = sums
    return math.nan if before <= 0 else float(1 - after / before)


def _finite(states: pd.DataFrame) -> pd.DataFrame:
    of = states[states["states"] == "teacher"]
    return of[np.isfinite(of["forward_kl"])]


def _at_teacher(states: pd.DataFrame, rollouts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Give the states of each checkpoint on the teacher's responses, each with the part that it lies in."""
    key = ["label", "states", "prompt_index", "rollout_index"]
    ends = rollouts[[*key, "stop_reason"]]
    at_teacher = states[states["states"] == "teacher"]
    joined = at_teacher.merge(ends, on=key, how="left", validate="many_to_one")
    last = joined.groupby(key, sort=False)["position"].transform("max") == joined["position"]
    at_end = last & (joined["stop_reason"] == "stop")
    part = np.where(at_end, "end", np.where(joined["position"] < OPENING, "opening", "middle"))
    joined = _finite(joined.assign(part=part))  # now: a stop token that the student rules out is an end too
    return [(str(label), of) for label, of in joined.groupby("label", sort=False)]


def _rows(label: str, of: pd.DataFrame) -> list[dict[str, Any]]:
    response = of.groupby(["prompt_index", "rollout_index"], sort=False).ngroup().to_numpy()
    prompts = pd.Series(of["prompt_index"].to_numpy()).groupby(response).first().to_numpy()
    kl, whole = of["forward_kl"].to_numpy(float), np.ones(len(of), dtype=bool)
    rows = []
    for part in PARTS:
        inside = whole if part == "whole" else (of["part"] == part).to_numpy()
        sums = np.bincount(response, np.where(inside, kl, 0.0), minlength=len(prompts))
        token = stats.clustered_mean(np.where(inside, kl, np.nan), of["prompt_index"].to_numpy())
        each, share = stats.clustered_mean(sums, prompts), _share(kl, inside, of["prompt_index"].to_numpy())
        row: dict[str, Any] = {"label": label, "part": part, "token_share": float(inside.mean())}
        for name, found in {"value": token, "per_response": each, "share": share}.items():
            ends = ("ci_low", "ci_high") if name == "value" else (f"{name}_ci_low", f"{name}_ci_high")
            row |= {name: found.value, ends[0]: found.ci_low, ends[1]: found.ci_high}
        counts = {"n_states": int(inside.sum()), "n_rollouts": len(np.unique(response[inside]))}
        rows.append(row | counts | {"n_prompts": len(np.unique(of["prompt_index"].to_numpy()[inside]))})
    return rows


def _share(kl: Floats, inside: npt.NDArray[np.bool_], prompts: npt.NDArray[Any]) -> stats.Estimate:
    _, group = np.unique(prompts, return_inverse=True)
    sums = np.stack([np.bincount(group, np.where(inside, kl, 0.0)), np.bincount(group, kl)], axis=1)
    total = sums.sum(axis=0)
    left_out = [_ratio(total - row) for row in sums] if len(sums) > 1 else []
    if inside.all():  # everything, and no estimate
        return stats.Estimate(_ratio(total), math.nan, math.nan, math.nan, len(kl), len(sums), 0)
    return stats.clustered_jackknife(_ratio(total), left_out, n=len(kl))


def _ratio(sums: Floats) -> float:
    part, whole = sums
    return math.nan if whole <= 0 else float(part / whole)
