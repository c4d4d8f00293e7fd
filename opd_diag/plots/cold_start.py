"""A student before and after a cold start: mass on shared tokens, and its distance at the teacher's states by part."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.style import (
    INK,
    MUTED,
    STATE_STYLES,
    LineStyle,
    drawable,
    legend_below,
    new_axes,
    points,
    say,
    styled,
)

STYLES = (
    LineStyle("", "#9aa5b1", "s", "", 1.4, -0.14),
    LineStyle("", "#0072b2", "o", "", 1.4, 0.14),
)
"""Of the first student and of the last; `shift` is in rows, upwards is less."""

MASSES = {"student_overlap_mass": "student", "teacher_overlap_mass": "teacher"}

PART_NAMES = {"opening": "opening", "middle": "middle", "end": "stop token"}

_MIN_SPAN = 1e-9


@styled
def shared_mass_by_states(
    summary: pd.DataFrame, labels: list[str], *, least: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw both models' probability on shared tokens at each state set, a dot a student, with 95 % intervals.

    At the start's and the teacher's states the students before and after are asked the same; on own states each goes
    its own way, so that it may look nearer there for having gone elsewhere. Of one student alone the start's states are
    its own, and stand there once.

    Parameters
    ----------
    summary
        Summary table (:mod:`opd_diag.tables`).
    labels
        Students to draw, at most two: the first and the last.
    least
        Where a dotted line is drawn: mass from which a pair counts as alike; None: nowhere.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Mass on shared tokens")
    rows = summary[summary["metric"].isin(list(MASSES)) & summary["label"].isin(labels) & summary["value"].notna()]
    places = [
        (states, metric)
        for states in (("on-policy", "start", "teacher") if len(labels) > 1 else ("on-policy", "teacher"))
        for metric in MASSES
        if ((rows["states"] == states) & (rows["metric"] == metric)).any()
    ]
    if not places:
        say(ax, "no state was scored")
        return ax
    for label, style in zip(labels, STYLES, strict=False):
        of = {(row["states"], row["metric"]): row for _, row in rows[rows["label"] == label].iterrows()}
        known = [(y, of[place]) for y, place in enumerate(places) if place in of]
        _dots(ax, known, drawable(label), style if len(labels) > 1 else STYLES[1], alone=len(labels) < 2)
    if least is not None:
        ax.axvline(least, color=MUTED, linestyle=":", linewidth=1.0)
        ax.annotate("alike", (least, 1.0), (2, -8), xycoords=("data", "axes fraction"), textcoords="offset points",
                    color=MUTED, fontsize=points(7.5))  # fmt: skip
    ax.set_yticks(range(len(places)), [f"{STATE_STYLES[states].name}:\n{MASSES[metric]}" for states, metric in places])
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set_xlim(0.0, 1.02)
    ax.set_xlabel("probability")
    ax.grid(visible=False, axis="y")
    legend_below(ax)
    return ax


@styled
def distance_by_part(distance: pd.DataFrame, labels: list[str], *, ax: Axes | None = None) -> Axes:
    """Draw the forward KL at the teacher's states by part of the response, in nats a response, stacked.

    The longest stretch of a bar is where supervised fine-tuning on the teacher's responses has most to lower; whiskers
    are the 95 % interval of the whole.

    Parameters
    ----------
    distance
        From :func:`opd_diag.tables.distance.distance_table`.
    labels
        Students to draw, from above.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Distance at the teacher's states")
    table = distance.set_index(["label", "part"])
    shown = [label for label in labels if (label, "whole") in table.index]
    whole = table.loc[[(label, "whole") for label in shown]] if shown else table.iloc[:0]
    if not shown or not np.isfinite(whole["per_response"]).all() or whole["per_response"].max() < _MIN_SPAN:
        say(ax, "no distance was measured")
        return ax
    colours = {"opening": ("#d55e00", ""), "middle": ("#0072b2", "////"), "end": ("#00805e", "xxxx")}
    places, left = np.arange(len(shown)), np.zeros(len(shown))
    for part, (colour, hatch) in colours.items():
        width = np.array([_per_response(table, label, part) for label in shown])
        ax.barh(places, width, left=left, height=0.55, color=colour, hatch=hatch, edgecolor="white", linewidth=0.0,
                label=PART_NAMES[part])  # fmt: skip
        left += width
    low, high = (whole[f"per_response_ci_{end}"].to_numpy(float) for end in ("low", "high"))
    ax.hlines(places, low, high, color=INK, linewidth=1.3)
    ax.set_yticks(places, [drawable(label, 16) for label in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("forward KL  (nats a response)")
    ax.grid(visible=False, axis="y")
    legend_below(ax)
    return ax


def _dots(ax: Axes, known: list[tuple[int, pd.Series]], name: str, style: LineStyle, *, alone: bool) -> None:
    """Draw the values of one student, each with its interval."""
    shift = 0.0 if alone else style.shift
    places = [y + shift for y, _ in known]
    ax.plot(
        [row["value"] for _, row in known], places, linestyle="", marker=style.marker, color=style.colour, label=name
    )
    for place, (_, row) in zip(places, known, strict=True):
        ax.hlines(place, row["ci_low"], row["ci_high"], color=style.colour, linewidth=style.width)


def _per_response(table: pd.DataFrame, label: str, part: str) -> float:
    value = float(table["per_response"].get((label, part), 0.0))
    return value if np.isfinite(value) else 0.0
