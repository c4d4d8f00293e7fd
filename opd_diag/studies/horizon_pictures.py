"""The pictures of a study of depth, each with a sentence computed from its data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd

from opd_diag import plots
from opd_diag.stats.rounding import number, with_interval
from opd_diag.studies.study import Picture
from opd_diag.tables.cohort import OWN
from opd_diag.tables.depth import peak_cell, positions

_MAPPED = {"student_entropy": "Student", "teacher_entropy": "Teacher"}
"""Entropies drawn as maps, on one scale, and whose they are."""

Mark = tuple[int, int, int] | None
"""A position and its interval, or none."""


def pictures(
    tables: Mapping[str, pd.DataFrame], last: str, marks: Mapping[str, Mark], *, partly: bool = False
) -> list[Picture]:
    """Give the pictures of a study of depth.

    Parameters
    ----------
    tables
        Of the study.
    last
        Label of the last checkpoint.
    marks
        By verdict, the place beyond which something is lost.
    partly
        Leave out what takes the teacher's whole distributions.
    """
    excess, survivors = tables["excess"], tables["survivors"]
    survivors = survivors[(survivors["label"] == last) & (survivors["states"] == OWN)]
    drawn = []
    for name, metric, mark, title in (
        ("signal_by_depth", "reverse_kl", marks["depth_signal"], "Reverse KL by depth"),
        ("entropy_by_depth", "student_entropy", marks["instability"], "Student entropy by depth"),
    ):
        if partly and metric == "reverse_kl":
            continue
        rows = excess[(excess["metric"] == metric) & (excess["label"] == last) & (excess["control"] == "teacher")]
        draw = partial(plots.metric_over_control, rows, survivors, mark)
        drawn.append(Picture(name, title, _depth_reading(rows), draw))
    entropies = tables["entropies"]
    limit = plots.heat_limit(entropies[entropies["metric"].isin(_MAPPED)])
    for metric, whose in _MAPPED.items():
        if partly and metric == "teacher_entropy":
            continue
        draw = partial(plots.metric_heat_map, entropies, metric, states=OWN, limit=limit)
        title = f"{whose} entropy by depth and step"
        drawn.append(Picture(f"{metric}_map", title, _map_reading(entropies, metric), draw))
    continued, lost = tables["continuations"], marks["continuation_advantage"]
    draw = partial(plots.continuation_curves, continued, None if lost is None else lost[0])
    reading = _continuation_reading(continued)
    drawn.append(Picture("continuations", "Teacher's advantage in going on", reading, draw))
    return drawn


def _depth_reading(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "Too few responses of both to compare."
    at = rows.iloc[int(rows["value"].astype(float).to_numpy().argmax())]
    return (
        f"Furthest above the teacher's own responses at {positions(at)}: "
        f"{with_interval(at['value'], at['ci_low'], at['ci_high'], signed=True)} nats, {at['n_prompts']} prompts."
    )


def _map_reading(entropies: pd.DataFrame, metric: str) -> str:
    at = peak_cell(entropies, metric, OWN)
    if at is None:
        return "Too few responses to show."
    where = f"{at['label']}, {positions(at)}"
    return f"Highest at {where}: {number(float(at['value']), 2)} nats, {at['n_prompts']} prompts."


def _continuation_reading(table: pd.DataFrame) -> str:
    rows = table[(table["metric"] == "continuation_advantage") & (table["prefix"] == "student")]
    if rows.empty:
        return "Nothing was continued that could be graded."
    first, last = rows.iloc[0], rows.iloc[-1]
    return (
        f"After the student's own first {first['depth']} tokens {number(float(first['value']), 2, signed=True)}, after "
        f"{last['depth']} {number(float(last['value']), 2, signed=True)}, {last['n_prompts']} prompts."
    )
