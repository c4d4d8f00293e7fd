"""One plain sentence a picture, computed from the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.plots.quantities import RESPONSE_QUANTITIES, quantity
from opd_diag.plots.style import checkpoints_of
from opd_diag.report.wording import RESPONSES_NAMES, STATES_NAMES, count, one_line
from opd_diag.stats.rounding import NEAR, decimals_for, number, with_interval
from opd_diag.tables.floors import aligned_number, floors_of, is_near, is_small, near


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
    alone, where = with_interval(*_estimate(last), near=near(last)), _where(metric, states)
    if metric in RESPONSE_QUANTITIES and states == "teacher":  # its responses are the same for every checkpoint
        return f"{alone}{where}"
    if first is None or first_label == last_label or math.isnan(first["value"]):
        return f"{alone}{where}"
    text = f"{first_to_last(first, last)}{where}"
    change = row_of(differences, metric=metric, states=states, from_label=first_label, to_label=last_label)
    if change is None or math.isnan(change["value"]):
        return text
    small = is_small(change["value"], floors_of(summary).get(metric, math.nan))
    return f"{text}, difference {with_interval(*_estimate(change), signed=True, near=small)}"


def _estimate(row: pd.Series, of: str = "") -> tuple[float, float, float]:
    """Give value and interval of a row, or of one of its quantities."""
    return row[of or "value"], row[f"{of}_ci_low" if of else "ci_low"], row[f"{of}_ci_high" if of else "ci_high"]


def _where(metric: str, states: str) -> str:
    if metric in RESPONSE_QUANTITIES:
        return "" if states == "on-policy" else f" of {RESPONSES_NAMES[states]}"
    return f" {'on' if states in ('on-policy', 'back') else 'at'} {STATES_NAMES[states]}"


def first_to_last(first: pd.Series, last: pd.Series) -> str:
    """Write two values of a summary with an arrow between, to the same number of decimals, at most three."""
    decimals = min(3, max(decimals_for(r["value"], r["ci_low"], r["ci_high"]) for r in (first, last)))
    return " → ".join(f"{NEAR if near(row) else ''}{number(row['value'], decimals)}" for row in (first, last))


def concentration_reading(
    table: pd.DataFrame, states: str, column: str, k: int, floors: Mapping[str, float] | None = None
) -> str:
    """Say what a concentration curve is at `k` for the first and the last checkpoint."""
    grid = table.loc[(table["states"] == states) & table[column].notna(), "k"]
    if grid.empty:
        return "Undefined: no state has a value."
    at = int(k) if (grid == k).any() else int(grid.max())
    rows = table[(table["states"] == states) & (table["k"] == at)]
    floor, told = (floors or {}).get(column, math.nan) if at == k else math.nan, []
    for label in dict.fromkeys(ends_of(rows)):
        row = rows[rows["label"] == label].iloc[0]
        aligned = 1.0 if column == "overlap_ratio" else row["student_topk_mass"]
        value = with_interval(*_estimate(row, column), near=is_near(row[column], aligned, floor))
        told.append(f"{value} at {called(label, row['step'])}")
    last = rows.iloc[-1]
    return f"At k = {at}: {', '.join(told)} ({count(last['n_prompts'], 'prompt')}, {count(last['n_states'], 'state')})."


def gradient_reading(summary: pd.DataFrame, states: str) -> str:
    """Say what share of the gradient pushes shared tokens, first to last, and what the other kinds get at the last."""
    of = summary[summary["states"] == states]
    shared = of[(of["metric"] == "shared_gradient_ratio") & of["value"].notna()]
    if shared.empty:
        return f"Undefined: {quantity('shared_gradient_ratio').undefined}."
    first, last = shared.iloc[0], shared.iloc[-1]
    before = "" if len(shared) == 1 else f"{number(first['value'], 2)} at {called(first['label'], first['step'])} and "
    kinds = {"student_only": "student-only tokens get", "teacher_only": "teacher-only ones", "other": "all others"}
    rest = [
        f"{name} {_share(row['value'])}"
        for kind, name in kinds.items()
        if (row := row_of(of, metric=f"{kind}_gradient_ratio", label=last["label"])) is not None
    ]
    counts = [count(last["n_prompts"], "prompt"), count(last["n_states"], "state")]
    if last["n_undefined"]:
        counts.append(f"{int(last['n_undefined']):,} undefined")
    value = f"{with_interval(*_estimate(last))} at {called(last['label'], last['step'])}"
    return (
        f"Of the gradient's squared length, shared tokens get {before}{value}; there {', '.join(rest)} "
        f"({', '.join(counts)})."
    )


def _share(value: float) -> str:
    return "under 0.001" if value < 0.001 else number(value, 3 if value < 0.01 else 2)


FEWEST_ROLLOUTS = 8
"""Bins that fewer rollouts reach are drawn, but no sentence rests on them."""


def depth_reading(depth: pd.DataFrame, metric: str, states: str, floors: Mapping[str, float] | None = None) -> str:
    """Say how `metric` differs between the beginning and the depth of responses, for the last checkpoint."""
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states) & depth["value"].notna()]
    if rows.empty:
        return f"Undefined: {quantity(metric).undefined}."
    rows = rows[rows["label"] == rows["label"].iloc[-1]]
    reached = rows[rows["n_rollouts"] >= FEWEST_ROLLOUTS]
    start, far = rows.iloc[0], (reached if len(reached) else rows).iloc[-1]
    floor, aligned = (floors or {}).get(metric, math.nan), aligned_number(metric)
    told = [
        f"{with_interval(*_estimate(r), near=is_near(r['value'], aligned, floor))} at positions "
        f"{int(r['depth_low'])}–{int(r['depth_high']) - 1} ({count(r['n_rollouts'], 'rollout')})"
        for r in ([start] if start.name == far.name else [start, far])
    ]
    return f"At {called(start['label'], start['step'])}: {', '.join(told)}."


def entropy_reading(rows: pd.DataFrame, floors: Mapping[str, float] | None = None) -> str:
    """Say at how many states the student is flatter than the teacher; `rows` is one checkpoint on one state set."""
    pair = rows[["student_entropy", "teacher_entropy"]].astype(float)
    pair = pair.dropna()
    if pair.empty:
        return "Undefined: no state has both entropies."
    difference = pair["student_entropy"] - pair["teacher_entropy"]
    flatter = f"{100 * float((difference > 0).mean()):.0f} %"
    text = f"The student is flatter than the teacher at {flatter} of {count(len(pair), 'state')}"
    gap = float(difference.abs().mean())
    sign = NEAR if is_near(gap, 0.0, (floors or {}).get("entropy_gap", math.nan)) else ""
    return f"{text}; mean distance {sign}{number(gap, decimals_for(gap, math.nan, math.nan))} nats."


def span(summary: pd.DataFrame) -> str:
    """Name the range of checkpoints in a summary."""
    if summary.empty:
        return "no checkpoint"
    checkpoints = checkpoints_of(summary)
    names = [called(str(label), step) for label, step in zip(checkpoints["label"], checkpoints["step"], strict=True)]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, {len(names)} checkpoints"
