"""One plain sentence a picture, computed from the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.plots.quantities import RESPONSE_QUANTITIES, quantity
from opd_diag.plots.style import checkpoints_of
from opd_diag.report.wording import RESPONSES_NAMES, STATES_NAMES, count, one_line, told
from opd_diag.stats.rounding import NEAR, decimals_for, known_between, number
from opd_diag.tables.depth import positions
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
    parts = [part for s in STATES_NAMES if (part := _change(summary, differences, metric, s))]
    if not parts:
        return f"{quantity(metric).title} is undefined here: {quantity(metric).undefined}."
    last = _row_counted(summary, metric)
    n = [count(last["n_prompts"], "prompt")]
    n.append(count(last["n_rollouts"], "response") if metric in RESPONSE_QUANTITIES else states_text(last))
    return "; ".join(parts) + f" ({', '.join(n)} at {called(last['label'], last['step'])})."


def metric_values(summary: pd.DataFrame, metric: str) -> str:
    """Say how `metric` went from the first to the last checkpoint on each state set, in values and units alone."""
    parts = [part for s in STATES_NAMES if (part := _change(summary, None, metric, s))]
    if not parts:
        return f"Undefined: {quantity(metric).undefined}."
    last = _row_counted(summary, metric)
    unit = "" if quantity(metric).unit in ("ratio", "probability") else f"{quantity(metric).unit}, "
    return f"{'; '.join(parts)} ({unit}{count(last['n_prompts'], 'prompt')})."


def _row_counted(summary: pd.DataFrame, metric: str) -> pd.Series:
    """Give the row whose counts a sentence on `metric` names: the last one on own states, or else on any."""
    rows = summary[(summary["metric"] == metric) & (summary["value"].notna() | summary["bound_low"].notna())]
    own = rows[rows["states"] == "on-policy"]
    return (own if len(own) else rows).iloc[-1]


def states_text(row: pd.Series) -> str:
    """Count the states of a row, and say how many independent ones would tell as much, where that is known."""
    effective = row.get("n_effective", math.nan)
    worth = "" if pd.isna(effective) or effective >= row["n_states"] else f", worth {effective:,.0f} independent ones"
    return f"{count(row['n_states'], 'state')}{worth}"


def _change(summary: pd.DataFrame, differences: pd.DataFrame | None, metric: str, states: str) -> str:
    if summary.empty:
        return ""
    first_label, last_label = ends_of(summary)
    first = row_of(summary, metric=metric, states=states, label=first_label)
    last = row_of(summary, metric=metric, states=states, label=last_label)
    if last is None or (math.isnan(last["value"]) and not known_between(last)):
        return ""
    alone, where = told(last, near=near(last)), _where(metric, states)
    if first is not None and metric in RESPONSE_QUANTITIES and states == "teacher" and first["value"] == last["value"]:
        # its responses are the same for every checkpoint
        return f"{alone}{where}"
    if first is None or first_label == last_label or (math.isnan(first["value"]) and not known_between(first)):
        return f"{alone}{where}"
    text = f"{first_to_last(first, last)}{where}"
    if differences is None:
        return text
    change = row_of(differences, metric=metric, states=states, from_label=first_label, to_label=last_label)
    if change is None or (math.isnan(change["value"]) and not known_between(change)):
        return text
    small = is_small(change["value"], floors_of(summary).get(metric, math.nan))
    return f"{text}, difference {told(change, signed=True, near=small)}"


def _where(metric: str, states: str) -> str:
    if metric in RESPONSE_QUANTITIES:
        return "" if states == "on-policy" else f" of {RESPONSES_NAMES[states]}"
    return f" {'on' if states in ('on-policy', 'back') else 'at'} {STATES_NAMES[states]}"


def first_to_last(first: pd.Series, last: pd.Series) -> str:
    """Write two values of a summary with an arrow between, to the same number of decimals, at most three."""
    if known_between(first) or known_between(last):
        return " → ".join(told(row, near=near(row)) for row in (first, last))
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
    floor, parts = (floors or {}).get(column, math.nan) if at == k else math.nan, []
    for label in dict.fromkeys(ends_of(rows)):
        row = rows[rows["label"] == label].iloc[0]
        aligned = 1.0 if column == "overlap_ratio" else row["student_topk_mass"]
        value = told(row, column, near=is_near(row[column], aligned, floor))
        parts.append(f"{value} at {called(label, row['step'])}")
    last = rows.iloc[-1]
    n = f"{count(last['n_prompts'], 'prompt')}, {count(last['n_states'], 'state')}"
    return f"At k = {at}: {', '.join(parts)} ({n})."


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
    value = f"{told(last)} at {called(last['label'], last['step'])}"
    return (
        f"Of the gradient's squared length, shared tokens get {before}{value}; there {', '.join(rest)} "
        f"({', '.join(counts)})."
    )


def _share(value: float) -> str:
    return "under 0.001" if value < 0.001 else number(value, 3 if value < 0.01 else 2)


FEWEST_ROLLOUTS = 8
"""Bins that fewer rollouts reach are not drawn, and no sentence rests on them, unless there are only such."""


def depth_reading(depth: pd.DataFrame, metric: str, states: str, floors: Mapping[str, float] | None = None) -> str:
    """Say how `metric` differs between the beginning and the depth of responses, for the last checkpoint."""
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states) & depth["value"].notna()]
    if rows.empty:
        return f"Undefined: {quantity(metric).undefined}."
    rows = rows[rows["label"] == rows["label"].iloc[-1]]
    reached = rows[rows["n_rollouts"] >= FEWEST_ROLLOUTS]
    start, far = rows.iloc[0], (reached if len(reached) else rows).iloc[-1]
    floor, aligned = (floors or {}).get(metric, math.nan), aligned_number(metric)
    parts = [
        f"{told(r, near=is_near(r['value'], aligned, floor))} at {positions(r)} ({count(r['n_rollouts'], 'rollout')})"
        for r in ([start] if start.name == far.name else [start, far])
    ]
    return f"At {called(start['label'], start['step'])}: {', '.join(parts)}."


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


def fit_reading(summary: pd.DataFrame, metric: str, states: str, fits: pd.DataFrame | None = None) -> str:
    """Say what a fit on a subsample gave at the first and the last checkpoint, and what it means; empty if nothing."""
    rows = summary[(summary["metric"] == metric) & (summary["states"] == states) & summary["value"].notna()]
    if rows.empty:
        return ""
    first, last = rows.iloc[0], rows.iloc[-1]
    before = "" if len(rows) == 1 else f"{told(first)} at {called(first['label'], first['step'])}, "
    value = f"{before}{told(last)} at {called(last['label'], last['step'])}"
    n = f"{count(last['n_prompts'], 'prompt')}, {count(last['n_states'], 'state')}"
    same = None if fits is None else row_of(fits, label=last["label"], states=states)
    return f"{value} ({n}). {_meaning(metric, last, math.nan if same is None else same['reverse_kl'])}".strip()


def _meaning(metric: str, last: pd.Series, before: float) -> str:
    """Say in plain words what a fit at the last checkpoint means; `before` is reverse KL at the same states."""
    if metric == "reverse_kl_after_temperature":
        whole = (
            "" if math.isnan(before) else f" of {number(before, decimals_for(before, math.nan, math.nan))} nats there"
        )
        return f"This much of the distance{whole} no temperature takes away."
    if math.isnan(last["ci_low"]):
        return "No interval: whether that is more than chance cannot be said."
    within = last["ci_low"] <= {"fitted_temperature": 1.0}.get(metric, 0.0) <= last["ci_high"]
    if metric == "fitted_temperature":
        if within:
            return "No temperature would bring the student clearly nearer: its sharpness is not the matter."
        return f"The student is {'sharper' if last['value'] > 1 else 'flatter'} than its teacher there."
    if within:
        return "What different prompts teach is not told from unrelated: a gradient of few prompts is mostly noise."
    way = "push the output matrix the same way" if last["value"] > 0 else "pull the output matrix apart"
    return f"Different prompts {way}."


def span(summary: pd.DataFrame) -> str:
    """Name the range of checkpoints in a summary."""
    if summary.empty:
        return "no checkpoint"
    checkpoints = checkpoints_of(summary)
    names = [called(str(label), step) for label, step in zip(checkpoints["label"], checkpoints["step"], strict=True)]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, {len(names)} checkpoints"
