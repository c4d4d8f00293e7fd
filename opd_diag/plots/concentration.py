"""Probability mass on the shared tokens, and the share of tokens shared, against k."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from opd_diag.plots.intervals import band
from opd_diag.plots.style import (
    MOST_LINES,
    MUTED,
    STATE_STYLES,
    checkpoints_of,
    drawable,
    legend_below,
    new_axes,
    say,
    spread,
    states_name,
    step_colours,
    step_legend,
    styled,
)

Which = Literal["student", "teacher"]

PAPER_K = 16
PAPER_RANGE = (0.97, 0.99)
PAPER_LABEL = "paper's range at k = 16 (arXiv 2604.13016)"
_REFERENCE = "#b8860b"


@styled
def concentration_curves(
    table: pd.DataFrame,
    *,
    states: str = "on-policy",
    which: Which = "student",
    low: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the probability that one model puts on the tokens in both models' top k, against k.

    One line a checkpoint, the later the darker, at most six of them spread evenly (first and last always). The first
    and the last are shaded: their 95 % intervals, and lighter the band that holds the whole curve. The small box at k =
    16 is the range that the paper states for its experiments: a reference, not a pass mark.

    A curve near 1 says that the top k of both models cover the distribution. It rises when the student merely sharpens
    or goes where agreeing is easy, so read it beside the same curve at the start's states.

    Parameters
    ----------
    table
        Concentration table (:mod:`opd_diag.tables`).
    states
        State set to draw.
    which
        Whose probability: the student's (Eq. 9 at each k) or the teacher's (Eq. 10).
    low
        Lower end of the y axis; by default a tenth under the least value drawn.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    column = f"{which}_overlap_mass"
    rows = table[table["states"] == states]
    banded = _curves(ax, rows, column, low)
    ax.set_title(f"{which.capitalize()} overlap mass, {states_name(states)}")
    ax.set_ylabel("probability")
    if rows[column].notna().any() and (rows["k"] == PAPER_K).any():
        _paper_range(ax)
    _legend(ax, rows, banded=banded)
    return ax


@styled
def overlap_ratio_curves(
    table: pd.DataFrame, *, states: str = "on-policy", low: float | None = 0.0, ax: Axes | None = None
) -> Axes:
    """Draw the share of tokens that both models' top k have in common (Eq. 6), against k.

    One line a checkpoint, the later the darker, as in :func:`concentration_curves`. At large k it compares tokens that
    neither model would ever say; what they weigh is in :func:`concentration_curves`.

    Parameters
    ----------
    table
        Concentration table (:mod:`opd_diag.tables`).
    states
        State set to draw.
    low
        Lower end of the y axis; None: a tenth under the least value drawn.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    rows = table[table["states"] == states]
    banded = _curves(ax, rows, "overlap_ratio", low)
    ax.set_title(f"Overlap ratio, {states_name(states)}")
    ax.set_ylabel("share of tokens")
    _legend(ax, rows, banded=banded)
    return ax


@styled
def concentration_by_states(table: pd.DataFrame, *, which: Which = "student", ax: Axes | None = None) -> Axes:
    """Draw the curve of :func:`concentration_curves` for the last checkpoint, one line a state set, shaded to 95 %.

    The thin grey line is the first checkpoint on own states, which are the start's where that is the initial student. A
    last curve that is high on own states and low at the start's says that the student went where agreeing is easy.

    Parameters
    ----------
    table
        Concentration table (:mod:`opd_diag.tables`).
    which
        Whose probability: the student's (Eq. 9 at each k) or the teacher's (Eq. 10).
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    column = f"{which}_overlap_mass"
    rows = table[table["states"].isin(STATE_STYLES) & table[column].notna()]
    ax.set_ylabel("probability")
    _k_axis(ax, table["k"])
    ax.set_ylim(0.0, 1.02)
    if rows.empty:
        ax.set_title(f"{which.capitalize()} overlap mass")
        say(ax, "undefined: no state has a value")
        return ax
    labels = list(checkpoints_of(rows)["label"])
    ax.set_title(f"{which.capitalize()} overlap mass, {drawable(labels[-1])}")
    before = rows[(rows["label"] == labels[0]) & (rows["states"] == "on-policy")]
    if len(labels) > 1 and len(before):
        ax.plot(before["k"].astype(float), before[column], color=MUTED, linewidth=1.0, label=drawable(labels[0]))
    for states, style in STATE_STYLES.items():
        line = rows[(rows["label"] == labels[-1]) & (rows["states"] == states)]
        if len(line):
            x = line["k"].astype(float)
            ax.plot(x, line[column], style.dashes, color=style.colour, linewidth=style.width, label=style.name)
            band(ax, x, line[[f"{column}_ci_low", f"{column}_ci_high"]], style.colour, column)
    if (rows["k"] == PAPER_K).any():
        _paper_range(ax)
    legend_below(ax, ax.lines, [str(line.get_label()) for line in ax.lines])
    return ax


def _curves(ax: Axes, rows: pd.DataFrame, column: str, low: float | None) -> bool:
    """Draw the lines with their shades; give whether a band of a whole curve was among these."""
    banded = False
    _k_axis(ax, rows["k"])
    shown = spread(list(checkpoints_of(rows)["label"]), MOST_LINES)
    for label, colour in zip(shown, step_colours(len(shown)), strict=True):
        line = rows[rows["label"] == label]
        ax.plot(line["k"].astype(float), line[column], color=colour, marker="o", markersize=3.0)
        if label in (shown[0], shown[-1]):
            banded |= band(ax, line["k"], line, colour, column)
    values = rows[[column, f"{column}_ci_low"]].min().min()
    if not np.isfinite(rows[column]).any():
        say(ax, "undefined: no state has a value")
    if low is None:
        low = 0.0 if not np.isfinite(values) else max(0.0, np.floor(values * 10) / 10)
    ax.set_ylim(low, 1.0 + 0.02 * (1.0 - low))
    return banded


def _k_axis(ax: Axes, k: pd.Series) -> None:
    grid = sorted({int(value) for value in k}) or [1, PAPER_K]
    ax.set_xscale("log", base=2)
    ax.set_xticks(grid, [str(value) for value in grid])
    ax.minorticks_off()
    ax.set_xlim(grid[0] / 1.15, grid[-1] * 1.15)
    ax.set_xlabel("k, tokens compared (log scale)")


def _paper_range(ax: Axes) -> None:
    left, right = PAPER_K / 2**0.3, PAPER_K * 2**0.3
    box = Rectangle(
        (left, PAPER_RANGE[0]), right - left, PAPER_RANGE[1] - PAPER_RANGE[0],
        facecolor=_REFERENCE, edgecolor=_REFERENCE, alpha=0.55, linewidth=0.8, zorder=1.5, label=PAPER_LABEL,
    )  # fmt: skip
    ax.add_patch(box)
    ax.set_xlabel(f"{ax.get_xlabel()}\nbox: {PAPER_LABEL}")


def _legend(ax: Axes, rows: pd.DataFrame, *, banded: bool) -> None:
    checkpoints = checkpoints_of(rows)
    if len(checkpoints):
        step_legend(ax, checkpoints, spread(list(checkpoints["label"]), MOST_LINES), banded=banded)
