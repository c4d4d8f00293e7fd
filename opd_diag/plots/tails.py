"""How many states lie how far out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    MUTED,
    checkpoints_of,
    new_axes,
    points,
    say,
    states_name,
    step_colours,
    step_legend,
    styled,
)
from opd_diag.tables.tails import FEWEST, PERCENTS, percentile_place

MOST_POINTS = 160
"""Points of one curve; of more states it is drawn through some, the farthest all."""

DECADES = 5
"""How far below its greatest value the axis reaches at most; states further down lie beyond its left end."""

_MARKERS = dict(zip(PERCENTS, ("o", "s", "^"), strict=True))

Floats = npt.NDArray[np.float64]


@styled
def tail_curves(
    states_table: pd.DataFrame, metric: str = "reverse_kl", *, states: str = "on-policy", ax: Axes | None = None
) -> Axes:
    """Draw which share of states has a metric at or above each value, for the first and the last checkpoint.

    Both axes are logarithmic. A curve that ends in a steep fall has no tail; one that slopes away to the right has a
    few states far out, which hold most of the mean. p50, p90 and p99 are marked: half, a tenth and a hundredth of the
    states lie there or beyond; p90 from 10 states on, p99 from 100.

    Parameters
    ----------
    states_table
        State table (:mod:`opd_diag.tables`); all its state sets together decide what the axis spans, so that pictures
        of one table compare.
    metric
        A metric of the catalogue that is 0 or more.
    states
        State set to draw.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    what = quantity(metric)
    ax.set_title(f"{what.title}, {states_name(states)}")
    ax.set_xlabel(f"{what.axis_label}, logarithmic")
    ax.set_ylabel("share of states at or above")
    rows = states_table[states_table["states"] == states]
    checkpoints = checkpoints_of(rows)
    shown = list(dict.fromkeys([*checkpoints["label"][:1], *checkpoints["label"][-1:]]))
    curves = {label: _known(rows.loc[rows["label"] == label, metric]) for label in shown}
    drawn = np.concatenate([*curves.values(), np.empty(0)])
    span = _span(_known(states_table[metric]))
    if not len(drawn):
        say(ax, f"undefined: {what.undefined}")
        return ax
    if span is None or not (drawn > 0).any():
        say(ax, f"{'0' if not drawn.any() else 'infinite'} at every state")
        return ax
    for label, colour in zip(shown, step_colours(len(shown)), strict=True):
        if len(curves[label]):
            _curve(ax, curves[label], span, colour)
    _set_up(ax, span, max(map(len, curves.values())))
    infinite = [f"{np.isinf(values).sum():,}" for values in curves.values()]
    if infinite != ["0"] * len(infinite):
        ax.set_xlabel(f"{ax.get_xlabel()}\ninfinite at {' and '.join(infinite)} states")
    step_legend(ax, checkpoints, shown)
    return ax


def _known(values: pd.Series) -> Floats:
    numbers = values.to_numpy(float)
    return np.sort(numbers[~np.isnan(numbers)])


def _span(values: Floats) -> tuple[float, float] | None:
    """Give the ends of the axis: all but the lowest hundredth of what is over 0; None where nothing finite is."""
    positive = values[(values > 0) & np.isfinite(values)]
    if not len(positive):
        return None
    high = float(positive[-1])
    return max(float(positive[len(positive) // 100]), high / 10**DECADES) / 1.5, high * 1.5


def _curve(ax: Axes, rising: Floats, span: tuple[float, float], colour: str) -> None:
    """Draw one curve, through some of many states, the rarest all; and its percentiles."""
    n, finite = len(rising), rising[np.isfinite(rising)]
    few = len(finite) <= MOST_POINTS
    ranks = np.arange(len(finite)) if few else np.geomspace(1, len(finite), MOST_POINTS).round().astype(int) - 1
    x = finite[len(finite) - 1 - np.unique(ranks)[::-1]]
    x = np.array([span[0], *x[x >= span[0]]])
    end = np.isinf(rising).sum() / n or np.nan  # what is infinite lies beyond every value
    share = np.append(_at_or_above(rising, x), end)
    ax.plot(np.append(x, span[1]), share, color=colour, drawstyle="steps-pre" if few else "default")
    for percent in _marked(n):
        at = rising[percentile_place(rising, percent)]
        if span[0] <= at <= span[1]:
            ax.plot(
                at, _at_or_above(rising, at), _MARKERS[percent], color=colour, markersize=6, markeredgecolor="white"
            )


def _marked(n: int) -> list[int]:
    return [percent for percent in PERCENTS if n >= FEWEST[percent]]


def _at_or_above(rising: Floats, x: npt.ArrayLike) -> Floats:
    return 1.0 - np.searchsorted(rising, x, side="left") / len(rising)


def _set_up(ax: Axes, span: tuple[float, float], most: int) -> None:
    """Set up both axes for at most so many states a curve, and name the heights of the percentiles."""
    ax.set(xscale="log", yscale="log", xlim=span, ylim=(0.7 / most, 1.25))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    for percent in _marked(most):
        height = (100 - percent) / 100
        ax.axhline(height, color=MUTED, linewidth=0.7, linestyle=(0, (1, 3)))
        ax.annotate(
            f"p{percent}", (1.0, height), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=MUTED, fontsize=points(7.5), va="center",
        )  # fmt: skip
