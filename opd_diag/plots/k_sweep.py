"""How far bounds close in as a server returns more of the teacher's most probable ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from opd_diag.plots.bounds import OPEN
from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    checkpoints_of,
    drawable,
    legend_below,
    new_axes,
    say,
    states_name,
    step_colours,
    styled,
)

_APART = 1.5
"""By which factor a K must lie below the last one to be named beside it on the axis."""


@styled
def bounds_by_top(
    sweep: pd.DataFrame, metric: str = "forward_kl", *, states: str = "on-policy", ax: Axes | None = None
) -> Axes:
    """Draw the bounds of a metric against K, the most probable ids that a server returns, at two checkpoints.

    Those of the first and the last. They are mean bounds and no intervals: the mean over these states lies between them
    for certain. Where they have met, a larger K tells nothing more.

    Parameters
    ----------
    sweep
        K-sweep table (:mod:`opd_diag.tables`).
    metric
        One of its metrics.
    states
        State set to draw.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    what = quantity(metric)
    ax.set_title(f"{what.title}, {states_name(states)}")
    ax.set_xlabel("K, ids that the server returns at each state")
    ax.set_ylabel(what.axis_label)
    rows = sweep[(sweep["metric"] == metric) & (sweep["states"] == states)]
    checkpoints = checkpoints_of(rows)
    if rows.empty:
        say(ax, "whole distributions were seen")
        return ax
    shown = list(dict.fromkeys([*checkpoints["label"][:1], *checkpoints["label"][-1:]]))
    for label, colour in zip(shown, step_colours(len(shown)), strict=True):
        of = rows[rows["label"] == label].sort_values("top")
        top, low, high = (of[name].to_numpy(float) for name in ("top", "bound_low", "bound_high"))
        closed = np.isfinite(high)
        name = drawable(label) if closed.any() else f"{drawable(label)}, {OPEN}"
        ax.plot(top, low, "-", color=colour, linewidth=1.4, marker="_", label=name)
        if closed.any():
            ax.plot(top[closed], high[closed], "-", color=colour, linewidth=1.4, marker="_")
            ax.fill_between(top, low, high, where=closed, color=colour, alpha=0.22, linewidth=0)
    tops = sorted({*rows["top"]})
    named = [top for top in tops if top == tops[-1] or _APART * top <= tops[-1]]
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(named))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(named, [str(top) for top in named])
    handles, labels = ax.get_legend_handles_labels()
    legend_below(ax, handles, labels)
    return ax
