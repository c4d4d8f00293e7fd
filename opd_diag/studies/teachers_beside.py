"""Teachers beside each other: the numbers of each, and of every two of them, as small tables read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from opd_diag.replay.served import Served
from opd_diag.stats.rounding import between, known_between, number, with_interval
from opd_diag.tables.baselines import CHANCE, OVERLAPS, SHUFFLED
from opd_diag.tables.catalogue import BY_NAME, ESTIMATE
from opd_diag.tables.ranges import range_of

OWN = "on-policy"
GRADIENT = ("shared_gradient_ratio", "student_only_gradient_ratio", "teacher_only_gradient_ratio")
ROWS = (*OVERLAPS, "entropy_gap", "reverse_kl", "forward_kl", "teachable_mass", "top1_agreement", *GRADIENT)
"""Metrics side by side; with an estimate of reverse KL where a server leaves only a lower bound."""

FITTED = (
    ("fitted_temperature", "Fitted temperature"),
    ("explained_share", "Of the KL, temperature alone"),
    ("gradient_coherence", "Gradient coherence"),
)
DASH = "–"
NOT_KNOWN = "not from its top K"
NOT_ASKED = "not from a server"
"""Why a cell has no number, of a teacher behind a server."""


def side_by_side(
    names: Sequence[str], tables: Mapping[str, pd.DataFrame], student: str, served: Mapping[str, Served] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Give headings and cells: one quantity a row, one teacher a column, chance and a shuffled teacher beside them.

    Where teachers stand behind servers (`served`, by name), the first row says what is known of each.
    """
    summary, baselines, fits = tables["summary"], tables["baselines"], tables["fits"]
    served = served or {}
    rows = [["What is known of it", *(known_of(served.get(name)) for name in names), DASH, DASH]] if served else []
    missing = {name: DASH if name not in served else NOT_KNOWN for name in names}
    partly = any(not of.whole for of in served.values())
    at = ROWS.index("reverse_kl") + 1
    for metric in (*ROWS[:at], *([ESTIMATE] if partly else []), *ROWS[at:]):
        of = summary[(summary["metric"] == metric) & (summary["states"] == OWN)]
        unit = BY_NAME[metric].unit
        rows.append(
            [
                f"{BY_NAME[metric].title}, {unit}" if unit == "nats" else BY_NAME[metric].title,
                *(_cell(of[of["teacher"] == name], "value", "ci_low", "ci_high", missing[name]) for name in names),
                _range(baselines, metric, CHANCE),
                _range(baselines, metric, SHUFFLED),
            ]
        )
    for column, title in FITTED:
        of, ends = fits[fits["states"] == OWN], (f"{column}_ci_low", f"{column}_ci_high")
        why = [NOT_ASKED if name in served else DASH for name in names]
        cells = [_cell(of[of["teacher"] == name], column, *ends, no) for name, no in zip(names, why, strict=True)]
        rows.append([title, *cells, DASH, DASH])
    rows += _solved(names, tables, student)
    return ["", *names, "by chance", "shuffled"], rows


PAIRS = (
    ("symmetric_kl", "KL between them, nats"),
    ("relative", "of their distance from the student"),
    ("overlap_ratio", "overlap of their top tokens"),
    ("advantage_correlation", "correlation of rewards"),
    ("tas", "teacher-selection score, first over second"),
)


def pairs_beside(distances: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Give headings and cells of the rows of two teachers, one pair a row."""
    pairs = distances[distances["overlap_ratio"].notna()]
    rows = [
        [f"{row['first']}, {row['second']}", *(_of_pair(row, name) for name, _ in PAIRS)] for _, row in pairs.iterrows()
    ]
    return ["", *(title for _, title in PAIRS)], rows


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


def _of_pair(row: pd.Series, name: str) -> str:
    if name in ("symmetric_kl", "relative") and pd.isna(row["symmetric_kl"]):
        return NOT_ASKED
    return with_interval(row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"])


def known_of(served: Served | None) -> str:
    """Say what is known of a teacher's distributions."""
    if served is None:
        return "all, loaded here"
    return "whole vocabulary of its server" if served.whole else f"top {served.top} of its server"


def _cell(rows: pd.DataFrame, value: str, low: str, high: str, missing: str = DASH) -> str:
    """Write a value with its interval; bounds where only those are known and they say something, else `missing`."""
    if value == "value" and len(rows) and known_between(rows.iloc[0]):
        row = rows.iloc[0]
        shown = between(row["bound_low"], row["bound_high"])
        span = range_of(str(row["metric"]))
        return missing if (row["bound_low"], row["bound_high"]) == span else shown
    if rows.empty or pd.isna(rows.iloc[0][value]):
        return missing
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
