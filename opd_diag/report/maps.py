"""Reverse KL by depth and step: a map of each state set, with where it is highest in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from opd_diag import plots
from opd_diag.plots.quantities import quantity
from opd_diag.report.panel import Panel
from opd_diag.report.readings import called, depth_reading
from opd_diag.report.wording import count
from opd_diag.stats.rounding import with_interval
from opd_diag.tables.depth import peak_cell, positions
from opd_diag.tables.floors import is_near

MAPPED = "reverse_kl"
"""The metric that is drawn as a map, where there are checkpoints to compare."""


def map_name(states: str) -> str:
    """Name the picture of a state set."""
    return f"depth-{MAPPED}-{states}"


def has_map(depth: pd.DataFrame, states: str) -> bool:
    """Whether a map says more than lines: of two checkpoints or more, with a cell that enough prompts reach."""
    rows = depth[(depth["metric"] == MAPPED) & (depth["states"] == states)]
    return rows["label"].nunique() > 1 and peak_cell(rows, MAPPED, states) is not None


def map_panel(depth: pd.DataFrame, states: str, floors: Mapping[str, float], limit: float | None) -> Panel:
    """Draw the map of a state set.

    Parameters
    ----------
    depth
        Depth table of the run.
    states
        State set to draw.
    floors
        Precision floor of each metric.
    limit
        Where the colours end, in nats.
    """
    return Panel.of(
        map_name(states),
        f"{quantity(MAPPED).title} by position and step",
        MAPPED,
        map_reading(depth, states, floors),
        plots.metric_heat_map(depth, MAPPED, states=states, limit=limit, root=True),
    )


def map_reading(depth: pd.DataFrame, states: str, floors: Mapping[str, float]) -> str:
    """Say where reverse KL is highest, and how it differs between beginning and depth at the last checkpoint."""
    beginning = depth_reading(depth, MAPPED, states, floors)
    peak = peak_cell(depth, MAPPED, states)
    if peak is None:
        return beginning
    near = is_near(peak["value"], 0.0, floors.get(MAPPED, math.nan))
    value = with_interval(peak["value"], math.nan, math.nan, near=near)  # of the highest of many an interval is wrong
    where = f"{called(peak['label'], peak['step'])}, {positions(peak)}"
    return f"Highest at {where}: {value} nats ({count(peak['n_prompts'], 'prompt')}). {beginning}"
