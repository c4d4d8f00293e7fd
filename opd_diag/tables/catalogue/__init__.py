"""The catalogue of metrics: one entry each, data and not machinery.

Columns, axis labels, bounds, tests and the tables of README and METRICS.md follow from it. To add a metric: write its
function in :mod:`opd_diag.metrics`, then one entry in a module of this folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from opd_diag.tables.catalogue import (
    advantages,
    distances,
    entropies,
    gradient,
    masses,
    overlap,
    sampled,
    topk_losses,
)
from opd_diag.tables.catalogue.metric import WEIGHTS, Metric, Values

CATALOGUE: tuple[Metric, ...] = (
    *overlap.ENTRIES,
    *masses.ENTRIES,
    *entropies.ENTRIES,
    *distances.ENTRIES,
    *topk_losses.ENTRIES,
    *advantages.ENTRIES,
    *gradient.ENTRIES,
    *sampled.ENTRIES,
)

BY_NAME: dict[str, Metric] = {m.name: m for m in CATALOGUE}
METRIC_NAMES: tuple[str, ...] = tuple(BY_NAME)
ESTIMATE = "tail_sampled_reverse_kl"
"""What stands in for the reverse KL where a teacher's server leaves it without an upper bound."""
PRIMARY_NAMES: tuple[str, ...] = tuple(m.name for m in CATALOGUE if m.primary)

__all__ = [
    "BY_NAME",
    "CATALOGUE",
    "ESTIMATE",
    "METRIC_NAMES",
    "PRIMARY_NAMES",
    "WEIGHTS",
    "Metric",
    "Values",
    "markdown_table",
]


def markdown_table() -> str:
    """Give the catalogue as METRICS.md shows it: the primary metrics first, as in the README, the others folded."""
    others = [m for m in CATALOGUE if not m.primary]
    return "\n".join(
        [
            *_rows([m for m in CATALOGUE if m.primary]),
            "",
            f"<details><summary>{len(others)} more: companions of these, what trainers compute, what the gradient is "
            "about</summary>",
            "",
            *_rows(others),
            "",
            "</details>",
        ]
    )


def _rows(of: Sequence[Metric]) -> list[str]:
    rows = ["| metric | formula | unit, range | aligned | source |", "| --- | --- | --- | --- | --- |"]
    for m in of:
        formula = m.formula.replace("|", "\\|")
        rows.append(f"| `{m.name}` | {formula} | {m.unit}, {_range(m)} | {_aligned(m)} | {m.reference} |")
    return rows


def _aligned(metric: Metric) -> str:
    if isinstance(metric.aligned, str):
        return "of the student" if metric.aligned == metric.name else metric.aligned.replace("_", " ")
    return "undefined" if math.isnan(metric.aligned) else f"{metric.aligned:g}"


def _range(metric: Metric) -> str:
    low = "(-∞" if math.isinf(metric.low) else f"[{metric.low:g}"
    high = "∞)" if math.isinf(metric.high) else "log 2]" if metric.high == math.log(2) else f"{metric.high:g}]"
    return f"{low}, {high}"
