"""A metric against the step, with its interval, on each state set; and a grid of such pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from opd_diag.plots.intervals import BAND_ALPHA, interval_line
from opd_diag.plots.logged import trainer_curve
from opd_diag.plots.paper import StyledFigure, panel_size
from opd_diag.plots.quantities import RESPONSE_QUANTITIES, Quantity, quantity
from opd_diag.plots.style import (
    MUTED,
    RESPONSE_STYLES,
    STATE_STYLES,
    WHOLE_CURVE,
    checkpoints_of,
    legend_below,
    new_axes,
    room_for_all,
    say,
    step_positions,
    styled,
)

MAIN_METRICS = (
    "overlap_ratio",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "overlap_token_advantage",
    "entropy_gap",
    "reverse_kl",
)
"""What the paper plots over training, and the divergence that on-policy distillation minimises."""

_CLEAR_OF_EDGE = 0.03
"""Share of the axis left beyond a bound, so that markers on it are not cut."""


@styled
def metric_by_step(
    summary: pd.DataFrame, metric: str, *, logged: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one metric against the optimiser step, one line a state set, with 95 % intervals clustered by prompt.

    The line on own states mixes two changes: of the policy, and of the states it visits. The line on the start's
    states shows the first alone. Where both move together the policy has changed; where only the own states improve,
    the student may merely go where agreeing is easy. Bounded metrics are drawn over their whole range.

    Around own states the darker shade is the interval of each checkpoint, and the lighter one, where the table has it,
    holds all checkpoints at once. The intervals of other state sets are whiskers. The thin grey line is what the
    trainer logged: of its own batches and at its own steps, each point from before the last update of its step.

    Parameters
    ----------
    summary
        Summary table (:mod:`opd_diag.tables`).
    metric
        A metric of the catalogue, or a quantity of the responses, as ``accuracy``.
    logged
        Logged table; None: the trainer's curve is not drawn.
    ax
        Axes to draw on; by default of a new figure.

    Raises
    ------
    InputError
        No metric has that name.
    """
    what = quantity(metric)
    ax = new_axes() if ax is None else ax
    rows = summary[summary["metric"] == metric]
    ax.set_title(f"{what.title}{_at_k(rows)}")
    ax.set_ylabel(what.axis_label)
    positions, banded = step_positions(ax, checkpoints_of(summary)), False
    styles = RESPONSE_STYLES if metric in RESPONSE_QUANTITIES else STATE_STYLES
    for states in [s for s in STATE_STYLES if (rows["states"] == s).any()]:
        own = states == "on-policy"
        banded |= interval_line(ax, rows[rows["states"] == states], positions, styles[states], whiskers=not own)
    told = logged is not None and trainer_curve(ax, logged, metric, checkpoints_of(summary))
    room_for_all(ax, positions)
    if ax.lines:
        handles, labels = ax.get_legend_handles_labels()
        shade = [Patch(color=styles["on-policy"].colour, alpha=BAND_ALPHA, linewidth=0)] if banded else []
        legend_below(ax, [*handles, *shade], [*labels, *[WHOLE_CURVE] * len(shade)])
    _y_axis(ax, what)
    bounded = rows.get("bound_low", rows["value"]).notna().any()
    if not told and not bounded and not np.isfinite(rows["value"].astype(float)).any():
        say(ax, f"undefined: {what.undefined}")
    return ax


@styled
def alignment_grid(summary: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS, *, columns: int = 3) -> Figure:
    """Draw :func:`metric_by_step` for several metrics on one figure.

    Parameters
    ----------
    summary
        Summary table (:mod:`opd_diag.tables`).
    metrics
        Metrics to draw, row by row.
    columns
        Pictures a row.
    """
    columns = min(columns, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = StyledFigure(figsize=panel_size(columns, rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, metric in zip(panels, metrics, strict=False):
        metric_by_step(summary, metric, ax=ax)
    for ax in panels[len(metrics) :]:
        ax.remove()
    return figure


def has_bands(summary: pd.DataFrame) -> bool:
    """Whether a summary has bands that hold a whole curve, which :func:`metric_by_step` draws around own states."""
    own = summary[summary["states"] == "on-policy"]
    return "band_low" in own and bool(own["band_low"].notna().any()) and own["label"].nunique() > 1


def _at_k(rows: pd.DataFrame) -> str:
    known = rows["k"].dropna().unique()
    return f" at k = {int(known[0])}" if len(known) == 1 else ""


def _y_axis(ax: Axes, what: Quantity) -> None:
    if math.isfinite(what.low) and math.isfinite(what.high):
        margin = _CLEAR_OF_EDGE * (what.high - what.low)
        ax.set_ylim(what.low - margin, what.high + margin)
        return
    low, high = ax.get_ylim()
    if math.isfinite(what.low):
        low, high = what.low, max(high, what.low + 1e-6)
        margin = _CLEAR_OF_EDGE * (high - low)  # above too: of high values that hardly vary, little room is left
        ax.set_ylim(low - margin, high + margin)
    elif math.isfinite(what.high):
        low, high = min(low, what.high - 1e-6), what.high
        ax.set_ylim(low, high + _CLEAR_OF_EDGE * (high - low))
    else:
        ax.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
