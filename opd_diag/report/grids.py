"""Small tables that stand beside the pictures: baselines, splits by correctness and group, how responses end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from opd_diag.plots.of_responses import PLACES
from opd_diag.report.readings import called, ends_of, row_of
from opd_diag.report.wording import STATES_NAMES, count, one_line, told
from opd_diag.tables.baselines import CHANCE, OTHER_PRECISION, OVERLAPS, SHUFFLED
from opd_diag.tables.catalogue import PRIMARY_NAMES
from opd_diag.tables.floors import near

if TYPE_CHECKING:
    from opd_diag.report.content import Report

DASH = "–"
MOST_LEVELS = 6
"""Groups shown side by side, the largest; all are in ``strata.csv``."""

ENDINGS = (
    "truncation_rate",
    "response_length",
    "compression_ratio",
    "cycle_ratio",
    "repetition_rate",
    *(f"{who}_stop_probability_{place}" for place in PLACES for who in ("student", "teacher")),
)
"""How responses end and repeat."""

LEVELS = {
    "is_correct": {"True": "correct", "False": "wrong", "1.0": "correct", "0.0": "wrong"},
    "in_cycle": {"True": "inside", "False": "outside"},
}


@dataclass(frozen=True)
class Line:
    """One quantity with its values."""

    metric: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table of the page: one quantity a line."""

    title: str
    head: tuple[str, ...]
    """Headings of the columns of values."""
    lines: tuple[Line, ...]


def baseline_grid(report: Report) -> Grid | None:
    """Put the overlap numbers between what they would be by chance and what a model shows against itself.

    On own states, or on the first state set there is; None where no baseline is known.
    """
    table, summary = report.tables.baselines, report.tables.summary
    if table.empty or summary.empty:
        return None
    states = "on-policy" if (table["states"] == "on-policy").any() else str(table["states"].iloc[0])
    ends = list(dict.fromkeys(ends_of(summary[summary["states"] == states])))
    below = [b for b in (CHANCE, SHUFFLED) if (table["baseline"] == b).any()]
    above = [b for b in (OTHER_PRECISION,) if (table["baseline"] == b).any()]
    lines = []
    for metric in OVERLAPS:
        at = {"metric": metric, "states": states}
        base = {b: row_of(table, **at, label=ends[-1], baseline=b) for b in (*below, *above)}
        values = [row_of(summary, **at, label=label) for label in ends]
        cells = [_cell(base[b], bare=b == CHANCE) for b in below]
        cells += [*map(_cell, values), *(_cell(base[b]) for b in above)]
        lines.append(Line(metric, tuple(cells)))
    names = [_name(summary, label) for label in ends]
    head = (*below, *names, *above)
    return Grid(f"Between chance and agreement, {STATES_NAMES[states]}, {_k(table)}", head, tuple(lines))


def stratum_grids(report: Report) -> list[Grid]:
    """Split the primary metrics on own states of the last checkpoint by correctness and by group, where known."""
    table = report.tables.strata
    if table.empty:
        return []
    own = table[table["states"] == "on-policy"]
    last = own[own["label"] == own["label"].iloc[-1]] if len(own) else own
    named = {"is_correct": "By correctness of the response", "group": "By group of the prompt"}
    named["in_cycle"] = "Inside loops and outside"
    grids = [_strata(last[last["by"] == by], by, title) for by, title in named.items()]
    return [grid for grid in grids if grid is not None]


def ending_grid(report: Report) -> Grid | None:
    """Say how responses end and repeat, of the first and the last checkpoint and of the teacher; None if not known."""
    summary = report.tables.summary
    if summary.empty:
        return None
    ends = list(dict.fromkeys(ends_of(summary)))
    places = [("on-policy", label) for label in ends] + [("teacher", ends[-1])]
    found = {
        metric: [row_of(summary, metric=metric, states=states, label=label) for states, label in places]
        for metric in ENDINGS
    }
    lines = [Line(m, tuple(map(_cell, rows))) for m, rows in found.items() if any(_cell(r) != DASH for r in rows)]
    head = (*(_name(summary, label) for label in ends), "teacher's responses")
    return Grid("How responses end and repeat", head, tuple(lines)) if lines else None


def _strata(rows: pd.DataFrame, by: str, title: str) -> Grid | None:
    if rows.empty:
        return None
    sizes = rows.groupby("level", sort=False)["n_rollouts"].max().sort_values(ascending=False, kind="stable")
    levels = list(sizes.index[:MOST_LEVELS])
    left_out = f", the largest {MOST_LEVELS} of {len(sizes)}" if len(sizes) > MOST_LEVELS else ""
    lines = [
        Line(metric, tuple(_cell(row_of(rows, metric=metric, level=level)) for level in levels))
        for metric in PRIMARY_NAMES
    ]
    names = [LEVELS.get(by, {}).get(str(level), one_line(level, 40)) for level in levels]
    head = [f"{name} ({count(sizes[level], 'response')})" for name, level in zip(names, levels, strict=True)]
    where = f"own states of {_name(rows, str(rows['label'].iloc[-1]))}"
    return Grid(f"{title}, {where}{left_out}", tuple(head), tuple(_filled(lines)))


def _filled(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if {*line.cells} != {DASH}]


def _cell(row: pd.Series | None, *, bare: bool = False) -> str:
    """Write a value with its interval, or `bare`, where that is too narrow to tell anything."""
    if row is None or pd.isna(row["value"]):
        return DASH
    return told({**row, "ci_low": math.nan} if bare else row, near=near(row))


def _name(table: pd.DataFrame, label: str) -> str:
    return called(label, table.loc[table["label"] == label, "step"].iloc[0])


def _k(table: pd.DataFrame) -> str:
    return f"k = {int(table['k'].iloc[0])}"
