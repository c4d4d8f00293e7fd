"""Several runs in one picture: a metric over training, on the same axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    LineStyle,
    checkpoints_of,
    drawable,
    legend_below,
    new_axes,
    say,
    styled,
)

RUN_STYLES = (
    LineStyle("", "#0072b2", "o", "-", 2.2),
    LineStyle("", "#d55e00", "s", "--", 1.8, 3.0),
    LineStyle("", "#00805e", "^", "-.", 1.8, -3.0),
    LineStyle("", "#cc79a7", "D", ":", 1.8, 6.0),
    LineStyle("", "#8a6d00", "v", "-", 1.2, -6.0),
    LineStyle("", "#5b6672", "P", "--", 1.2, 9.0),
)
"""Of runs in their order; colour, marker and dashes each tell them apart alone."""


@styled
def runs_by_step(
    summaries: Mapping[str, pd.DataFrame], metric: str, *, states: str = "on-policy", ax: Axes | None = None
) -> Axes:
    """Draw one metric of several runs against the optimiser step, on one pair of axes, with 95 % intervals.

    Lines that start at one point and part are runs that one choice made different; where they start apart, teachers or
    prompts differ from the beginning. Steps of runs with other batch sizes do not compare.

    Parameters
    ----------
    summaries
        Summary tables (:mod:`opd_diag.tables`) by the name of the run; at most six are drawn.
    metric
        A metric of the catalogue, or a quantity of the responses, as ``accuracy``.
    states
        State set to draw.
    ax
        Axes to draw on; by default of a new figure.
    """
    what = quantity(metric)
    ax = new_axes() if ax is None else ax
    ax.set_title(what.title)
    ax.set_ylabel(what.axis_label)
    ax.set_xlabel("optimiser step")
    for (name, summary), style in zip(summaries.items(), RUN_STYLES, strict=False):
        rows = summary[(summary["metric"] == metric) & (summary["states"] == states)]
        if not np.isfinite(rows["value"].astype(float)).any():
            continue
        checkpoints = checkpoints_of(summary)
        steps = checkpoints["step"].astype(float).to_numpy(dtype=float, na_value=np.nan)
        known = np.where(np.isnan(steps), np.arange(len(steps)), steps)
        x = pd.Series(known, index=checkpoints["label"])[rows["label"].to_numpy()].to_numpy()
        value, low, high = (rows[column].to_numpy(float) for column in ("value", "ci_low", "ci_high"))
        look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linewidth": style.width}
        ax.plot(x, value, style.dashes, label=drawable(name), **look)
        ax.vlines(x, low, high, color=style.colour, linewidth=1.1)
    if not ax.lines:
        say(ax, f"undefined: {what.undefined}")
        return ax
    legend_below(ax)
    return ax
