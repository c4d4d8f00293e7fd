"""The trainer's own curve, behind the replayed ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from opd_diag.plots.style import MUTED
from opd_diag.tables.logged import logged_curve, spread_rows

LOGGED_NAME = "as the trainer logged it"
"""What legends call it."""

MOST_POINTS = 200
"""Drawn of one curve; of a longer one, as many spread evenly."""

_DOTS_UP_TO = 60
_LIMITS = (0.01, 0.99)
"""Quantiles of what is drawn that set the axis, so that a spike of one batch does not flatten everything else."""


def trainer_curve(ax: Axes, logged: pd.DataFrame, metric: str, checkpoints: pd.DataFrame) -> bool:
    """Draw what the trainer logged of a metric at its own steps, as a thin grey line, between the checkpoints.

    Parameters
    ----------
    ax
        Axes on which the checkpoints stand at their steps.
    logged
        Logged table (:mod:`opd_diag.tables`).
    metric
        One of our names.
    checkpoints
        (label, step) of each.

    Returns
    -------
    bool
        Whether there was anything to draw: of checkpoints without steps there is not.
    """
    steps = checkpoints["step"]
    if steps.isna().any() or not len(steps):
        return False
    rows = logged_curve(logged, metric)
    rows = rows[rows["step"].between(int(steps.min()), int(steps.max()))]
    if rows.empty:
        return False
    drawn = spread_rows(rows, MOST_POINTS)
    x, y = drawn["step"].to_numpy(float), drawn["value"].to_numpy(float)
    name = LOGGED_NAME if len(drawn) == len(rows) else f"{LOGGED_NAME}, {len(drawn)} of {len(rows):,} points"
    marker = "." if len(drawn) <= _DOTS_UP_TO else ""
    line = Line2D(x, y, linewidth=0.9, color=MUTED, marker=marker, markersize=3.0, zorder=1.8, label=name)
    ax.add_artist(line)  # which, unlike plot, leaves the axis alone
    ax.update_datalim(np.column_stack([[x[0], x[-1]], np.quantile(y, _LIMITS)]))
    ax.autoscale_view()
    return True
