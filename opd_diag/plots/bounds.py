"""Bounds, where a server returned a part of the teacher's distribution: an area without a line, and no interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation

from opd_diag.plots.style import LineStyle

BETWEEN_BOUNDS = "between bounds (top K of a server)"
"""What legends call the area."""

OPEN = "at least this: no upper bound"
"""What is written where the area has no end."""

_HATCHES = {"-": "////", "--": "\\\\\\\\", "-.": "||||", ":": "...."}
"""By the dashes of a line: areas of several state sets lie over each other, and each must be seen."""

_ARROW = Path([(0, 0), (0, 1), (-0.3, 0.6), (0, 1), (0.3, 0.6)], [1, 2, 1, 2, 2])
"""A marker that stands on its place and points up."""


def bound_area(ax: Axes, x: npt.ArrayLike, rows: pd.DataFrame, style: LineStyle) -> bool:
    """Draw where a curve may lie at all: both edges thin, the area between them hatched; no line and no interval.

    At each place an upright bar joins the edges, beside those of other curves. An area without an upper end is drawn as
    its lower edge with arrows.

    Parameters
    ----------
    ax
        Axes to draw on.
    x
        (N,) places of the rows.
    rows
        With `bound_low` and `bound_high`; rows without are left out.
    style
        Of the curve.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    if "bound_low" not in rows:
        return False
    at = np.asarray(x, dtype=float)
    low, high = (rows[name].astype(float).to_numpy() for name in ("bound_low", "bound_high"))
    known = np.isfinite(low) & ~np.isnan(high)
    if not known.any():
        return False
    closed = known & np.isfinite(high)
    endless = known & ~closed
    dpi = ax.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    beside = ax.transData + ScaledTranslation(style.shift / 72, 0.0, dpi)
    thin: dict[str, Any] = {"color": style.colour, "linewidth": 0.9}
    marks: dict[str, Any] = thin | {"linestyle": "none", "transform": beside}
    if closed.any():
        ax.fill_between(
            at, low, high, where=closed, facecolor="none", edgecolor=style.colour, alpha=0.45, linewidth=0.0,
            hatch=_HATCHES.get(style.dashes, "xxxx"), label=f"{style.name}, {BETWEEN_BOUNDS}",
        )  # fmt: skip
        ax.vlines(at[closed], low[closed], high[closed], color=style.colour, linewidth=1.4, transform=beside)
        for end in (low, high):
            ax.plot(at[closed], end[closed], style.dashes, **thin)
            ax.plot(at[closed], end[closed], marker="_", markersize=7.0, **marks)
    if endless.any():
        ax.plot(at[endless], low[endless], style.dashes, **thin)
        ax.plot(
            at[endless], low[endless], marker=_ARROW, markersize=18.0, fillstyle="none", clip_on=False,
            label=f"{style.name}, {OPEN}", **marks,
        )  # fmt: skip
    return True
