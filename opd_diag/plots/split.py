"""How much of a change on own states is the policy's, and how much comes from going to other states."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opd_diag.plots.intervals import interval_line
from opd_diag.plots.paper import StyledFigure, panel_size
from opd_diag.plots.quantities import quantity
from opd_diag.plots.steps import metric_by_step
from opd_diag.plots.style import (
    MUTED,
    STATE_STYLES,
    LineStyle,
    checkpoints_of,
    legend_below,
    new_axes,
    points,
    room_for_all,
    say,
    step_positions,
    styled,
)

PART_STYLES: dict[str, LineStyle] = {
    "policy_change": LineStyle("policy change", STATE_STYLES["start"].colour, "s", "--", 1.8),
    "state_change": LineStyle("state change", "#4a4f57", "v", ":", 1.8),
}
"""The policy change is what the line on the start's states shows, so it has that line's colour."""

WHOLE_STYLE = LineStyle("both together", STATE_STYLES["on-policy"].colour, "", "-", 1.0)


@styled
def change_split(split: pd.DataFrame, metric: str, *, ax: Axes | None = None) -> Axes:
    """Draw policy change and state change since the first checkpoint against the optimiser step, with 95 % intervals.

    The thin line is the whole change on own states, their sum. Where the policy change follows it, the student has
    learned at equal states; where the state change does, it went to states at which agreeing is easier, or harder.

    Parameters
    ----------
    split
        Split table (:mod:`opd_diag.tables`).
    metric
        A metric of the catalogue.
    ax
        Axes to draw on; by default of a new figure.

    Raises
    ------
    InputError
        No metric has that name.
    """
    what = quantity(metric)
    ax = new_axes() if ax is None else ax
    rows = split[split["metric"] == metric]
    rows = rows[rows["orders"] == rows["orders"].max()]
    ax.set_title(f"{what.title}: what changed")
    ax.set_ylabel(f"change  ({what.unit})")
    if rows.empty:
        ax.set_xticks([])
        say(ax, "nothing to split: it takes two checkpoints, scored on their own states and on the start's")
        return ax
    lines = {part: _since_the_first(rows[rows["part"] == part]) for part in ("on_policy_change", *PART_STYLES)}
    positions = step_positions(ax, checkpoints_of(lines["policy_change"]))
    if (rows["orders"] == 2).all():
        ax.set_xlabel(f"{ax.get_xlabel()}\nboth orders averaged")
    room_for_all(ax, positions)
    if not np.isfinite(rows["value"].astype(float)).any():
        say(ax, f"undefined: {what.undefined}")
        return ax
    ax.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    for part, style in PART_STYLES.items():
        interval_line(ax, lines[part], positions, style)
    whole = lines["on_policy_change"].assign(ci_low=np.nan, ci_high=np.nan)
    interval_line(ax, whole, positions, WHOLE_STYLE)
    legend_below(ax)
    return ax


@styled
def metric_with_split(
    summary: pd.DataFrame, split: pd.DataFrame, metric: str, *, logged: pd.DataFrame | None = None
) -> Figure:
    """Draw :func:`metric_by_step` and, under it on the same steps, :func:`change_split`.

    Parameters
    ----------
    summary, split
        Tables of :mod:`opd_diag.tables`.
    metric
        A metric of the catalogue.
    logged
        As :func:`metric_by_step`.
    """
    figure = StyledFigure(figsize=panel_size(1.0, 1.8), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    metric_by_step(summary, metric, logged=logged, ax=above)
    change_split(split, metric, ax=below)
    below.set_title("What changed on own states", fontsize=points(9.0))
    return figure


def _since_the_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the first checkpoint before the others: nothing has changed there yet, which is certain."""
    end = 0.0 if rows["ci_low"].notna().any() else np.nan  # without intervals, no band
    first = rows.iloc[:1].assign(value=0.0, ci_low=end, ci_high=end)
    first = first.assign(label=first["from_label"], step=first["from_step"])
    return pd.concat([first, rows], ignore_index=True)
