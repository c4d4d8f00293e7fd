"""What the study of teachers shows: their numbers side by side, and where each stands on the two conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from opd_diag import stats
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables.baselines import CHANCE, OVERLAPS, SHUFFLED
from opd_diag.tables.catalogue import BY_NAME

OWN = "on-policy"
GRADIENT = ("shared_gradient_ratio", "student_only_gradient_ratio", "teacher_only_gradient_ratio")
ROWS = (*OVERLAPS, "entropy_gap", "reverse_kl", "forward_kl", "teachable_mass", "top1_agreement", *GRADIENT)
"""Metrics side by side."""

FITTED = (
    ("fitted_temperature", "Fitted temperature"),
    ("explained_share", "Of the KL, temperature alone"),
    ("gradient_coherence", "Gradient coherence"),
)
DASH = "–"


def side_by_side(
    names: Sequence[str], tables: Mapping[str, pd.DataFrame], student: str
) -> tuple[list[str], list[list[str]]]:
    """Give headings and cells: one quantity a row, one teacher a column, chance and a shuffled teacher beside them."""
    summary, baselines, fits = tables["summary"], tables["baselines"], tables["fits"]
    rows = []
    for metric in ROWS:
        of = summary[(summary["metric"] == metric) & (summary["states"] == OWN)]
        unit = BY_NAME[metric].unit
        rows.append(
            [
                f"{BY_NAME[metric].title}, {unit}" if unit == "nats" else BY_NAME[metric].title,
                *(_cell(of[of["teacher"] == name], "value", "ci_low", "ci_high") for name in names),
                _range(baselines, metric, CHANCE),
                _range(baselines, metric, SHUFFLED),
            ]
        )
    for column, title in FITTED:
        of = fits[fits["states"] == OWN]
        cells = [_cell(of[of["teacher"] == name], column, f"{column}_ci_low", f"{column}_ci_high") for name in names]
        rows.append([title, *cells, DASH, DASH])
    rows += _solved(names, tables, student)
    return ["", *names, "by chance", "shuffled"], rows


PAIRS = (
    ("symmetric_kl", "KL between them, nats"),
    ("relative", "of their distance from the student"),
    ("advantage_correlation", "correlation of rewards"),
    ("tas", "teacher-selection score, first over second"),
)


def pairs_beside(distances: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Give headings and cells of the rows of two teachers, one pair a row."""
    pairs = distances[distances["relative"].notna() | distances["advantage_correlation"].notna()]
    rows = [
        [
            f"{row['first']}, {row['second']}",
            *(with_interval(row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"]) for name, _ in PAIRS),
        ]
        for _, row in pairs.iterrows()
    ]
    return ["", *(title for _, title in PAIRS)], rows


def conditions(summary: pd.DataFrame, leads: Mapping[str, stats.Estimate | None]) -> pd.DataFrame:
    """Give where teachers stand: the lower of both overlap masses, and the lead in accuracy, with their intervals."""
    rows = []
    for name, lead in leads.items():
        of = summary[
            (summary["teacher"] == name)
            & (summary["states"] == OWN)
            & summary["metric"].isin(["student_overlap_mass", "teacher_overlap_mass"])
        ]
        lower = of.sort_values("value").iloc[0]
        known = lead or stats.Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
        rows.append(
            {
                "teacher": name,
                "mass": float(lower["value"]),
                "mass_ci_low": float(lower["ci_low"]),
                "mass_ci_high": float(lower["ci_high"]),
                "lead": known.value,
                "lead_ci_low": known.ci_low,
                "lead_ci_high": known.ci_high,
            }
        )
    return pd.DataFrame(rows)


def _solved(names: Sequence[str], tables: Mapping[str, pd.DataFrame], student: str) -> list[list[str]]:
    """Give pass@1, pass@k and what each solves beyond the student; nothing where nothing could be graded."""
    if "pass_at_k" not in tables:
        return []
    passes, items = tables["pass_at_k"], tables["items"]
    most = int(passes["k"].max())
    rows = []
    for k in dict.fromkeys((1, most)):
        at = passes[passes["k"] == k]
        ours = _cell(at[at["label"] == student], "value", "ci_low", "ci_high")
        cells = [_cell(at[at["label"] == name], "value", "ci_low", "ci_high") for name in names]
        rows.append([f"pass@{k} (the student's {ours})", *cells, DASH, DASH])
    solved = []
    for name in names:
        of = items[items["teacher"] == name]
        beyond = int(((of["first_correct"] == 0) & (of["last_correct"] > 0)).sum())
        solved.append(f"{beyond} of {len(of)}" if len(of) else DASH)
    tries = f"{most} {'try' if most == 1 else 'tries'}"
    return [*rows, [f"Prompts it solves and the student does not, {tries}", *solved, DASH, DASH]]


def _cell(rows: pd.DataFrame, value: str, low: str, high: str) -> str:
    if rows.empty or pd.isna(rows.iloc[0][value]):
        return DASH
    row = rows.iloc[0]
    return with_interval(row[value], row[low], row[high])


def _range(baselines: pd.DataFrame, metric: str, which: str) -> str:
    """Give a baseline over all teachers: its one value, or the least and the largest."""
    of = baselines[(baselines["metric"] == metric) & (baselines["baseline"] == which) & (baselines["states"] == OWN)][
        "value"
    ].dropna()
    if of.empty:
        return DASH
    low, high = number(of.min(), 3), number(of.max(), 3)
    return low if low == high else f"{low} to {high}"
