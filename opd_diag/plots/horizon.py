"""How far a response is worth teaching: a metric and its control by depth, and what comes of continuations."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.depth import STRIP_GAP, STRIP_HEIGHT, strip_above
from opd_diag.plots.intervals import INTERVAL_ALPHA
from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    MUTED,
    LineStyle,
    drawable,
    legend_below,
    new_axes,
    points,
    say,
    styled,
)

OWN_STYLE = LineStyle("own responses", "#0072b2", "o", "-", 2.4)
CONTROL_STYLE = LineStyle("teacher's own", "#00805e", "^", "-.", 1.6)
BREAK_COLOUR = "#d55e00"

PREFIX_STYLES = {
    "student": LineStyle("student's own", "#0072b2", "o", "-", 2.4),
    "teacher": LineStyle("teacher's own", "#00805e", "^", "-.", 1.6),
    "filler": LineStyle("filler", "#6b6b6b", "v", ":", 1.6),
    "student, correct": LineStyle("student's, correct", "#56b4e9", "s", "--", 1.2),
    "student, wrong": LineStyle("student's, wrong", "#d55e00", "D", "--", 1.2),
}
"""Okabe and Ito's colours, distinct for colour-blind readers; the two parts of the student's own are thinner."""


@styled
def metric_over_control(
    excess: pd.DataFrame,
    survivors: pd.DataFrame,
    broken: tuple[int, int, int] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric by depth on a checkpoint's own responses and on a control, the same rollouts at every depth.

    Where the first line rises above the second and stays there, the student's own words make the difference, and
    neither position nor the kind of token does. The strip above shows which share of all responses gets that far.

    Parameters
    ----------
    excess
        Of one checkpoint, metric and control (:class:`opd_diag.tables.horizon.Excess`).
    survivors
        Rows of the same checkpoint's own states (:func:`opd_diag.tables.horizon.survivor_table`).
    broken
        Position of a break and its interval, marked.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_xlabel("position in the response (tokens)")
    if excess.empty:
        return _empty(ax, "Metric by depth", "no response of both is so long")
    what = quantity(str(excess["metric"].iloc[0]))
    control = str(excess["control"].iloc[0])
    ax.set_title(f"{what.title}, own and control", pad=STRIP_GAP + STRIP_HEIGHT + 7)
    ax.set_ylabel(what.axis_label)
    low, high = (excess[name].to_numpy(float) for name in ("depth_low", "depth_high"))
    x = (low + high - 1) / 2
    for name, style in (("own", OWN_STYLE), ("than", CONTROL_STYLE)):
        label = style.name if name == "own" or control == "teacher" else drawable(f"{control}'s own")
        ax.plot(
            x, excess[name].to_numpy(float), style.dashes, color=style.colour, marker=style.marker, markersize=3.0,
            linewidth=style.width, label=label,
        )  # fmt: skip
    if broken is not None:
        ax.axvspan(broken[1] - 0.5, broken[2] + 0.5, color=BREAK_COLOUR, alpha=INTERVAL_ALPHA, linewidth=0)
        ax.axvline(broken[0] - 0.5, color=BREAK_COLOUR, linewidth=1.4, label="break, 95 %")
    ax.set_ylim(bottom=0.0 if what.low == 0.0 else None)
    ax.set_xlim(float(low[0]) - 0.5, float(high[-1]) - 0.5)
    strip = strip_above(ax)
    strip.set_ylabel("reach", fontsize=points(7.0), color=MUTED, rotation=0, ha="right", va="center")
    strip.plot(
        survivors["depth"].to_numpy(float),
        survivors["survivors"].to_numpy(float),
        color=OWN_STYLE.colour,
        linewidth=1.2,
    )
    strip.set_ylim(0, 1.15)
    strip.set_yticks([1.0], ["all"])
    legend_below(ax)
    return ax


@styled
def continuation_curves(continuations: pd.DataFrame, limit: int | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the teacher's advantage in going on against the length of what stands there already, by whose words it is.

    A line that falls as the teacher's own does falls because little is left to decide. The student's own below it says
    that the teacher cannot mend what the student wrote; below filler, that the words do it and not their number.

    Parameters
    ----------
    continuations
        From :func:`opd_diag.tables.continuations.continuation_table`.
    limit
        Tokens beyond which the advantage is lost, marked.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Teacher's advantage in going on")
    ax.set_xlabel("tokens that stand there already")
    rows = continuations[continuations["metric"] == "continuation_advantage"]
    start = rows[rows["prefix"] == "none"]
    if not (rows["prefix"] == "student").any():
        return _empty(ax, "Teacher's advantage in going on", "nothing was continued that could be graded")
    ax.set_ylabel("accuracy, teacher's − student's")
    reach = max(1.0, float(rows["depth"].max()))
    for place, (prefix, style) in enumerate(PREFIX_STYLES.items()):
        line = pd.concat([start, rows[rows["prefix"] == prefix]])
        if len(line) == len(start):
            continue
        x = line["depth"].to_numpy(float) + 0.008 * reach * (place - 1) * (line["depth"].to_numpy() > 0)
        ax.plot(
            x, line["value"].to_numpy(float), style.dashes, color=style.colour, marker=style.marker, markersize=3.5,
            linewidth=style.width, label=style.name,
        )  # fmt: skip
        if "," not in prefix:  # those of the parts would hide the others
            ax.vlines(x, line["ci_low"], line["ci_high"], color=style.colour, linewidth=1.0)
    ax.axhline(0.0, color=MUTED, linewidth=0.8)
    if limit is not None:
        ax.axvline(limit, color=BREAK_COLOUR, linewidth=1.4, label="lost beyond")
    legend_below(ax, title="whose words")
    return ax


def _empty(ax: Axes, title: str, why: str) -> Axes:
    ax.set_title(title)
    say(ax, why)
    return ax
