"""A metric against the position in the response, and how many rollouts get that far."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from opd_diag.plots.intervals import band
from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    MOST_LINES,
    MUTED,
    checkpoints_of,
    new_axes,
    points,
    say,
    spread,
    states_name,
    step_colours,
    step_legend,
    styled,
)

STRIP_GAP, STRIP_HEIGHT = 6.0, 20.0
"""Points between the axes and the strip above them, and its height."""


@styled
def metric_by_depth(depth: pd.DataFrame, metric: str, *, states: str = "on-policy", ax: Axes | None = None) -> Axes:
    """Draw one metric against the position in the response, one line a checkpoint, the later the darker.

    Points stand at the middle of each bin of positions. The first and the last checkpoint are shaded: their 95 %
    intervals, and lighter, of primary metrics, the band that holds the whole curve. The strip above the picture shows
    how many rollouts of these two reach each bin: far out only the long ones are left, which differ from the others, so
    a rise or fall there may be a change of rollouts and not of depth.

    Parameters
    ----------
    depth
        Depth table (:mod:`opd_diag.tables`).
    metric
        A metric of the catalogue.
    states
        State set to draw.
    ax
        Axes to draw on; by default of a new figure. The strip becomes an inset above it.
    """
    what = quantity(metric)
    ax = new_axes() if ax is None else ax
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states)]
    ax.set_title(f"{what.title}, {states_name(states)}", pad=STRIP_GAP + STRIP_HEIGHT + 7)
    ax.set_xlabel("position in the response (tokens)")
    ax.set_ylabel(what.axis_label)
    if not np.isfinite(rows["value"].astype(float)).any():
        say(ax, f"undefined: {what.undefined}")
        return ax
    checkpoints = checkpoints_of(rows)
    shown = spread(list(checkpoints["label"]), MOST_LINES)
    strip, banded = strip_above(ax), False
    for label, colour in zip(shown, step_colours(len(shown)), strict=True):
        line = rows[rows["label"] == label]
        x = (line["depth_low"].astype(float) + line["depth_high"].astype(float)) / 2
        ax.plot(x, line["value"].astype(float), color=colour, marker="o", markersize=3.0)
        if label in (shown[0], shown[-1]):
            banded |= band(ax, x, line, colour)
            strip.plot(x, line["n_rollouts"].astype(float), color=colour, linewidth=1.2)
    most = int(rows["n_rollouts"].max())
    strip.set_ylim(0, 1.15 * most)
    strip.set_yticks([most])
    if what.low == 0.0:
        ax.set_ylim(bottom=0.0)
    elif what.high == 0.0:
        ax.set_ylim(top=0.0)
    step_legend(ax, checkpoints, shown, banded=banded)
    return ax


def strip_above(ax: Axes) -> Axes:
    """Make small axes above `ax`, of a fixed height in points so that layouts can reckon with it."""
    strip = ax.inset_axes((0.0, 1.05, 1.0, 0.15), sharex=ax)

    def above(_: object, __: object) -> Bbox:
        figure, box = ax.get_figure(root=True), ax.get_window_extent()
        point = figure.dpi / 72  # type: ignore[union-attr]
        place = Bbox.from_bounds(box.x0, box.y1 + STRIP_GAP * point, box.width, STRIP_HEIGHT * point)
        return place.transformed(figure.transFigure.inverted())  # type: ignore[union-attr]

    strip.set_axes_locator(above)
    strip.tick_params(labelbottom=False, bottom=False, labelsize=points(7.0))
    strip.grid(False)
    strip.spines["bottom"].set_visible(False)
    strip.set_ylabel("rollouts", fontsize=points(7.0), color=MUTED, rotation=0, ha="right", va="center")
    return strip
