"""One plain sentence a picture, computed from the tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.plots.quantities import RESPONSE_QUANTITIES, quantity
from opd_diag.plots.style import checkpoints_of
from opd_diag.report.wording import RESPONSES_NAMES, STATES_NAMES, count, one_line
from opd_diag.stats.rounding import decimals_for, number, with_interval


def called(label: str, step: Any) -> str:
    """Name a checkpoint in a sentence."""
    return one_line(label, 40) if pd.isna(step) else f"step {int(step)}"


def ends_of(table: pd.DataFrame) -> tuple[str, str]:
    """Give the labels of the first and the last checkpoint of `table`."""
    labels = list(table["label"].drop_duplicates())
    return labels[0], labels[-1]


def row_of(table: pd.DataFrame, **wanted: Any) -> pd.Series | None:
    """Give the first row whose columns have the `wanted` values, None when there is none."""
    chosen = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        chosen &= (table[column] == value).fillna(False).to_numpy(dtype=bool)
    found = table[chosen]
    return None if found.empty else found.iloc[0]


def metric_reading(summary: pd.DataFrame, differences: pd.DataFrame, metric: str) -> str:
    """Say how `metric` went from the first to the last checkpoint on each state set, with the paired difference."""
    parts = [_change(summary, differences, metric, states) for states in STATES_NAMES]
    told = [part for part in parts if part]
    if not told:
        return f"{quantity(metric).title} is undefined here: {quantity(metric).undefined}."
    rows = summary[(summary["metric"] == metric) & summary["value"].notna()]
    own = rows[rows["states"] == "on-policy"]
    last = (own if len(own) else rows).iloc[-1]
    n = [count(last["n_prompts"], "prompt"), count(last["n_states"], "state")]
    return "; ".join(told) + f" ({', '.join(n)} at {called(last['label'], last['step'])})."


def _change(summary: pd.DataFrame, differences: pd.DataFrame, metric: str, states: str) -> str:
    if summary.empty:
        return ""
    first_label, last_label = ends_of(summary)
    first = row_of(summary, metric=metric, states=states, label=first_label)
    last = row_of(summary, metric=metric, states=states, label=last_label)
    if last is None or math.isnan(last["value"]):
        return ""
    alone, where = with_interval(last["value"], last["ci_low"], last["ci_high"]), _where(metric, states)
    if metric in RESPONSE_QUANTITIES and states == "teacher":  # its responses are the same for every checkpoint
        return f"{alone}{where}"
    if first is None or first_label == last_label or math.isnan(first["value"]):
        return f"{alone}{where}"
    text = f"{first_to_last(first, last)}{where}"
    change = row_of(differences, metric=metric, states=states, from_label=first_label, to_label=last_label)
    if change is None or math.isnan(change["value"]):
        return text
    return f"{text}, difference {with_interval(change['value'], change['ci_low'], change['ci_high'], signed=True)}"


def _where(metric: str, states: str) -> str:
    if metric in RESPONSE_QUANTITIES:
        return "" if states == "on-policy" else f" of {RESPONSES_NAMES[states]}"
    return f" {'on' if states in ('on-policy', 'back') else 'at'} {STATES_NAMES[states]}"


def first_to_last(first: pd.Series, last: pd.Series) -> str:
    """Write two values of a summary with an arrow between, to the same number of decimals, at most three."""
    decimals = min(3, max(decimals_for(r["value"], r["ci_low"], r["ci_high"]) for r in (first, last)))
    return f"{number(first['value'], decimals)} → {number(last['value'], decimals)}"


def concentration_reading(table: pd.DataFrame, states: str, column: str, k: int) -> str:
    """Say what a concentration curve is at `k` for the first and the last checkpoint."""
    grid = table.loc[(table["states"] == states) & table[column].notna(), "k"]
    if grid.empty:
        return "Undefined: no state has a value."
    at = int(k) if (grid == k).any() else int(grid.max())
    rows = table[(table["states"] == states) & (table["k"] == at)]
    told = []
    for label in dict.fromkeys(ends_of(rows)):
        row = rows[rows["label"] == label].iloc[0]
        value = with_interval(row[column], row[f"{column}_ci_low"], row[f"{column}_ci_high"])
        told.append(f"{value} at {called(label, row['step'])}")
    last = rows.iloc[-1]
    return f"At k = {at}: {', '.join(told)} ({count(last['n_prompts'], 'prompt')}, {count(last['n_states'], 'state')})."


FEWEST_ROLLOUTS = 8
"""Bins that fewer rollouts reach are drawn, but no sentence rests on them."""


def depth_reading(depth: pd.DataFrame, metric: str, states: str) -> str:
    """Say how `metric` differs between the beginning and the depth of responses, for the last checkpoint."""
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states) & depth["value"].notna()]
    if rows.empty:
        return f"Undefined: {quantity(metric).undefined}."
    rows = rows[rows["label"] == rows["label"].iloc[-1]]
    reached = rows[rows["n_rollouts"] >= FEWEST_ROLLOUTS]
    near, far = rows.iloc[0], (reached if len(reached) else rows).iloc[-1]
    told = [
        f"{with_interval(r['value'], r['ci_low'], r['ci_high'])} at positions "
        f"{int(r['depth_low'])}–{int(r['depth_high']) - 1} ({count(r['n_rollouts'], 'rollout')})"
        for r in ([near] if near.name == far.name else [near, far])
    ]
    return f"At {called(near['label'], near['step'])}: {', '.join(told)}."


def entropy_reading(rows: pd.DataFrame) -> str:
    """Say at how many states the student is flatter than the teacher; `rows` is one checkpoint on one state set."""
    pair = rows[["student_entropy", "teacher_entropy"]].astype(float)
    pair = pair.dropna()
    if pair.empty:
        return "Undefined: no state has both entropies."
    difference = pair["student_entropy"] - pair["teacher_entropy"]
    flatter = f"{100 * float((difference > 0).mean()):.0f} %"
    text = f"The student is flatter than the teacher at {flatter} of {count(len(pair), 'state')}"
    gap = float(difference.abs().mean())
    return f"{text}; mean distance {number(gap, decimals_for(gap, math.nan, math.nan))} nats."


def span(summary: pd.DataFrame) -> str:
    """Name the range of checkpoints in a summary."""
    if summary.empty:
        return "no checkpoint"
    checkpoints = checkpoints_of(summary)
    names = [called(str(label), step) for label, step in zip(checkpoints["label"], checkpoints["step"], strict=True)]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, {len(names)} checkpoints"
