"""Prompts one by one: which were chosen and how sure the student is on them; how two sets of them lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import INK, LineStyle, drawable, legend_below, new_axes, say, styled

OUTCOME_STYLES = {
    "lower": ("left out: lower", "#9aa5b1", ".", 14.0),
    "low entropy": ("left out: entropy", "#5b6672", "x", 16.0),
    "top": ("chosen: first in rank", "#0072b2", "o", 18.0),
    "drawn": ("chosen: from the rest", "#d55e00", "^", 26.0),
}
"""Name, colour, marker and size of each outcome; the chosen are drawn last, over the others."""

SET_STYLES = (
    LineStyle("", "#9aa5b1", "s", "--", 1.8),
    LineStyle("", "#0072b2", "o", "-", 2.4),
    LineStyle("", "#d55e00", "^", "-.", 1.8),
    LineStyle("", "#00805e", "D", ":", 2.0),
    LineStyle("", "#a6507f", "v", (0, (6, 1)), 1.6),  # type: ignore[arg-type]
)
"""Of the set in use, and of those that it is held against."""

TITLES = {
    "reverse_kl_of_response": ("Reverse KL of a response", "nats"),
    "teacher_lead": ("Teacher's lead", "difference in accuracy"),
}


@styled
def prompt_selection(prompts: pd.DataFrame, by: str, floor: float, *, ax: Axes | None = None) -> Axes:
    """Draw every prompt by what ranks it and by the student's entropy on it; what was chosen and why stands out.

    Parameters
    ----------
    prompts
        From :func:`opd_diag.tables.prompts.prompt_table`, with `outcome` from :func:`opd_diag.tables.selection.choose`.
    by
        Quantity that ranks.
    floor
        Least student entropy of a chosen prompt, in nats; drawn as a line.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    title, unit = _called(by)
    ax.set_title("Prompts, chosen and left out")
    ax.set_xlabel(f"{title}  ({unit})")
    ax.set_ylabel("student entropy  (nats)")
    known = prompts[prompts["outcome"] != "not ranked"]
    if known.empty:
        say(ax, "no prompt can be ranked")
        return ax
    for outcome, (name, colour, marker, size) in OUTCOME_STYLES.items():
        of = known[known["outcome"] == outcome]
        if len(of):
            ax.scatter(
                of[by], of["student_entropy"], s=size, c=colour, marker=marker, linewidths=0.8, alpha=0.85,
                label=f"{name} ({len(of)})",
            )  # fmt: skip
    if np.isfinite(floor):
        ax.axhline(floor, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="floor")
    legend_below(ax)
    return ax


@styled
def prompts_by_quantity(sets: Mapping[str, pd.DataFrame], name: str, *, ax: Axes | None = None) -> Axes:
    """Draw which share of the prompts of each set lies at or below a value.

    A curve further right has larger values throughout; curves that cross differ in spread and not in level alone.

    Parameters
    ----------
    sets
        Tables from :func:`opd_diag.tables.prompts.prompt_table` by what the legend calls them, the one in use first; at
        most five are drawn.
    name
        Quantity.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    title, unit = _called(name)
    ax.set_title(f"{title}, prompt by prompt")
    ax.set_xlabel(f"{title}  ({unit})")
    ax.set_ylabel("share of prompts at or below")
    for (label, table), style in zip(sets.items(), SET_STYLES, strict=False):
        values = np.sort(table[name].dropna().to_numpy(float))
        if len(values):
            shares = np.arange(1, len(values) + 1) / len(values)
            ax.step(
                values, shares, where="post", color=style.colour, linestyle=style.dashes, linewidth=style.width,
                label=drawable(f"{label} ({len(values)})", 40),
            )  # fmt: skip
    if not ax.lines:
        say(ax, "undefined on every prompt")
        return ax
    ax.set_ylim(0.0, 1.03)
    legend_below(ax)
    return ax


def _called(name: str) -> tuple[str, str]:
    if name in TITLES:
        return TITLES[name]
    return quantity(name).title, quantity(name).unit
