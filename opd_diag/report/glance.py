"""The three pictures under the headline: whether both models agree, where that holds, and what it is good for."""

from __future__ import annotations

import pandas as pd

from opd_diag import plots
from opd_diag.report.panel import Panel
from opd_diag.report.readings import metric_values
from opd_diag.tables.assembled import Tables
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.verdicts.evidence import START, is_partly_known, row_of_kl

OUTCOMES = ("accuracy", "forward_kl", "unigram_entropy")
"""What the third picture may show, the first that is defined on own states: at best, how well the task is done."""


def glance(tables: Tables, *, k: int) -> list[Panel]:
    """Draw the pictures that stand at the top of a page, none of them of own states alone.

    Parameters
    ----------
    tables
        Tables of the run.
    k
        Tokens compared, for the sentence under the masses.
    """
    summary = tables.summary
    if summary.empty:
        return []
    distance = _distance(tables)
    outcome = next((name for name in OUTCOMES if _known(summary, name)), None)
    return [
        Panel.of(
            "glance-mass",
            "Probability on shared tokens",
            "student_overlap_mass",
            f"At k = {k}: {metric_values(summary, 'student_overlap_mass')}",
            plots.concentration_by_states(tables.concentration),
        ),
        *(_by_step(summary, name) for name in dict.fromkeys((distance, outcome)) if name is not None),
    ]


def _by_step(summary: pd.DataFrame, name: str) -> Panel:
    drawn, what = plots.metric_by_step(summary, name), plots.quantity(name)
    return Panel.of(f"glance-{name}", what.title, name, metric_values(summary, name), drawn)


def _distance(tables: Tables) -> str:
    """Choose what shows where both come closer; of reverse KL a server leaves no upper bound."""
    if not is_partly_known(tables):
        return "reverse_kl"
    row = row_of_kl(tables, START, -1)
    return ESTIMATE if row is not None and row["metric"] == ESTIMATE else "forward_kl"


def _known(summary: pd.DataFrame, metric: str) -> bool:
    rows = summary[(summary["metric"] == metric) & (summary["states"] == "on-policy")]
    return bool(rows["value"].notna().any())
