"""Bounds, where a server returned a part of the teacher's distribution: an area without a line, and no interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.style import LineStyle

BETWEEN_BOUNDS = "between bounds (top K of a server)"
"""What legends call the area."""

OPEN = "at least this: no upper bound"
"""What is written where the area has no end."""

_HATCH = "////"


def bound_area(ax: Axes, x: npt.ArrayLike, rows: pd.DataFrame, style: LineStyle) -> bool:
    """Draw where a curve may lie at all: both edges thin, the area between them hatched; no line and no interval.

    An area without an upper end is drawn as its lower edge with arrows.

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
    name, closed = f"{style.name}, {BETWEEN_BOUNDS}", known & np.isfinite(high)
    edge: dict[str, Any] = {"color": style.colour, "linewidth": 0.9}
    if closed.any():
        ax.fill_between(
            at, low, high, where=closed, facecolor="none", edgecolor=style.colour, hatch=_HATCH, linewidth=0.0,
            alpha=0.45, label=name,
        )  # fmt: skip
        ax.vlines(at[closed], low[closed], high[closed], **edge)
        for end in (low, high):
            ax.plot(at[closed], end[closed], style.dashes, marker="_", markersize=7.0, **edge)
    if (known & ~closed).any():
        here = known & ~closed
        ax.plot(
            at[here], low[here], style.dashes, marker=(3, 0, 0), markersize=6.0, label=f"{style.name}, {OPEN}", **edge
        )
    return True
