"""The catalogue of metrics: one entry each, data and not machinery.

Columns, axis labels, bounds, tests and the README's table all follow from it. To add a metric: write its function in
:mod:`opd_diag.metrics`, then one entry in a module of this folder.
"""

from __future__ import annotations

import math

from opd_diag.tables.catalogue import distances, entropies, gradient, overlap
from opd_diag.tables.catalogue.metric import WEIGHTS, Metric, Values

CATALOGUE: tuple[Metric, ...] = (*overlap.ENTRIES, *entropies.ENTRIES, *distances.ENTRIES, *gradient.ENTRIES)

BY_NAME: dict[str, Metric] = {m.name: m for m in CATALOGUE}
METRIC_NAMES: tuple[str, ...] = tuple(BY_NAME)

__all__ = ["BY_NAME", "CATALOGUE", "METRIC_NAMES", "WEIGHTS", "Metric", "Values", "markdown_table"]


def markdown_table() -> str:
    """Give the catalogue as the README shows it; a test holds them together."""
    rows = ["| metric | formula | unit, range | aligned | source |", "| --- | --- | --- | --- | --- |"]
    for m in CATALOGUE:
        formula = m.formula.replace("|", "\\|")
        aligned = _aligned(m)
        rows.append(f"| `{m.name}` | {formula} | {m.unit}, {_range(m)} | {aligned} | {m.reference} |")
    return "\n".join(rows)


def _aligned(metric: Metric) -> str:
    if isinstance(metric.aligned, str):
        return metric.aligned.replace("_", " ")
    return "undefined" if math.isnan(metric.aligned) else f"{metric.aligned:g}"


def _range(metric: Metric) -> str:
    low = "(-∞" if math.isinf(metric.low) else f"[{metric.low:g}"
    high = "∞)" if math.isinf(metric.high) else f"{metric.high:g}]"
    return f"{low}, {high}"
