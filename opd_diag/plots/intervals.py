"""Lines with what is known of their error: intervals of each place, and the band that holds the whole curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from opd_diag.plots.bounds import bound_area
from opd_diag.plots.style import LineStyle

INTERVAL_ALPHA, BAND_ALPHA = 0.22, 0.15
"""How dark the interval of each place is shaded, and the band of the whole curve under it."""

_MARKERS_UP_TO = 40
_ALONE = 4.0
"""How much farther apart the markers of several curves stand at a single checkpoint, which has the whole axis."""


def band(ax: Axes, x: npt.ArrayLike, rows: pd.DataFrame, colour: str, of: str = "") -> bool:
    """Shade the interval of each value and, lighter, the band that holds the whole curve, where the table has them.

    Parameters
    ----------
    ax
        Axes to draw on.
    x
        (N,) places of the rows.
    rows
        With the ends of intervals and bands; where one is NaN (one prompt), nothing is drawn.
    colour
        Of the curve.
    of
        Quantity whose ends they are, as ``<quantity>_ci_low``; empty: the columns have no more than ``ci_low``.

    Returns
    -------
    bool
        Whether there was a band.
    """
    prefix = f"{of}_" if of else ""
    whole = _shade(ax, x, rows, f"{prefix}band", colour, BAND_ALPHA)
    _shade(ax, x, rows, f"{prefix}ci", colour, INTERVAL_ALPHA)
    return whole


def _shade(ax: Axes, x: npt.ArrayLike, rows: pd.DataFrame, of: str, colour: str, alpha: float) -> bool:
    low, high = f"{of}_low", f"{of}_high"
    if low not in rows or high not in rows:
        return False
    ends = rows[[low, high]].astype(float).to_numpy()
    if not np.isfinite(ends).all(axis=1).any():
        return False
    ax.fill_between(np.asarray(x, dtype=float), ends[:, 0], ends[:, 1], color=colour, alpha=alpha, linewidth=0)
    return True


def _make_room(ax: Axes, x: npt.NDArray[Any], rows: pd.DataFrame) -> None:
    """Widen the axes to values and intervals: matplotlib does not look at what is drawn beside its place."""
    for column in {"value", "ci_low", "ci_high"} & {*rows.columns}:
        ax.update_datalim(np.column_stack([np.asarray(x, dtype=float), rows[column].astype(float)]))
    ax.autoscale_view()


def interval_line(
    ax: Axes, rows: pd.DataFrame, positions: pd.Series, style: LineStyle, *, whiskers: bool = False
) -> bool:
    """Draw the values of `rows` against their checkpoints' positions, with their intervals; nothing where undefined.

    Where bounds are known and no value, the area between them is drawn in place of both.

    Parameters
    ----------
    ax
        Axes to draw on.
    rows
        One curve.
    positions
        x of each checkpoint by label.
    style
        Of the line.
    whiskers
        Whether its intervals are upright lines, and nothing of it is shaded but where checkpoints are many: shades of
        several curves would hide each other.

    Returns
    -------
    bool
        Whether a band that holds the whole curve was drawn.
    """
    value = rows["value"].astype(float)
    x = positions[rows["label"].to_numpy()].to_numpy()
    bound_area(ax, x, rows, style)
    if not np.isfinite(value).any():
        return False
    few = len(positions) <= _MARKERS_UP_TO
    marked = few or style.dashes == " "
    look: dict[str, Any] = {"marker": style.marker if marked else "", "markersize": 3.0 + style.width}
    look |= {"linewidth": style.width, "color": style.colour, "label": style.name}
    if whiskers and few:
        dpi = ax.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
        shift = style.shift if len(positions) > 1 else _ALONE * style.shift
        look["transform"] = ax.transData + ScaledTranslation(shift / 72, 0.0, dpi)
        _make_room(ax, x, rows)
    ax.plot(x, value, style.dashes, **look)
    if len(x) > 1 and not whiskers:
        return band(ax, x, rows, style.colour)
    if len(x) > 1 and not few:
        _shade(ax, x, rows, "ci", style.colour, BAND_ALPHA)
    elif np.isfinite(rows["ci_low"].astype(float)).any():
        low, high = rows["ci_low"].astype(float), rows["ci_high"].astype(float)
        ax.vlines(x, low, high, color=style.colour, linewidth=1.1, transform=look.get("transform", ax.transData))
    return False
