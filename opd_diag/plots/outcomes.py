"""What responses solve: pass@k against k, and prompts by whether they are solved before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from opd_diag.plots.intervals import INTERVAL_ALPHA
from opd_diag.plots.style import INK, LineStyle, drawable, legend_below, new_axes, points, say, styled

STYLES = (
    LineStyle("", "#9aa5b1", "s", "--", 1.6),
    LineStyle("", "#0072b2", "o", "-", 2.4),
    LineStyle("", "#00805e", "^", "-.", 1.6),
    LineStyle("", "#d55e00", "D", ":", 1.6),
    LineStyle("", "#cc79a7", "v", "-", 1.2),
    LineStyle("", "#8a6d00", "P", "--", 1.2),
)
"""Of the first checkpoint, the last, and the teacher; or of the student and its teachers."""

OUTCOME_STYLES = {
    "kept": ("solved before and after", "#0072b2", ""),
    "solved": ("newly solved", "#00805e", "////"),
    "forgotten": ("forgotten", "#d55e00", "xxxx"),
    "unsolved": ("solved neither time", "#d5dae0", ""),
}
"""Name, colour and hatching of each outcome of a prompt, from the left of the bar to its right."""

MOST_GROUPS = 8
"""Bars that can be read beside each other: groups of fewer prompts share the last one."""

_LEAST_NAMED = 0.05


@styled
def pass_at_k_curves(passes: pd.DataFrame, labels: list[str], *, ax: Axes | None = None) -> Axes:
    """Draw pass@k against k, a line a writer, with 95 % intervals over prompts.

    A line that ends higher solves more with many tries. Lines that cross say that the student got surer and not abler:
    it solves more with one try, fewer with many.

    Parameters
    ----------
    passes
        From :func:`opd_diag.tables.outcomes.pass_table`.
    labels
        Writers to draw, at most six: the first checkpoint, the last, the teacher; or the student and its teachers.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Solved with k tries")
    ax.set_xlabel("k tries")
    ax.set_ylabel("pass@k  (share of prompts)")
    for label, style in zip(labels, STYLES, strict=False):
        rows = passes[passes["label"] == label]
        if rows.empty:
            continue
        k, low, high = (rows[name].to_numpy(float) for name in ("k", "ci_low", "ci_high"))
        ax.plot(
            k,
            rows["value"],
            style.dashes,
            color=style.colour,
            marker=style.marker,
            linewidth=style.width,
            label=drawable(label),
        )
        if len(k) > 1:
            ax.fill_between(k, low, high, color=style.colour, alpha=INTERVAL_ALPHA, linewidth=0)
        else:
            ax.vlines(k, low, high, color=style.colour, linewidth=1.1)
    if not ax.lines:
        say(ax, "no response could be graded")
        return ax
    ks = sorted(set(passes["k"]))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0.0, 1.03)
    legend_below(ax)
    return ax


@styled
def item_outcomes(items: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how many prompts are solved before and after, newly solved, forgotten, or solved neither time, by group.

    Where newly solved and forgotten ones are about as many, prompts change sides by chance and the student as a whole
    does not.

    Parameters
    ----------
    items
        From :func:`opd_diag.tables.outcomes.item_table`.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Prompts, first checkpoint to last")
    if items.empty:
        say(ax, "no response could be graded")
        return ax
    groups, names = _drawn_groups(items["group"])
    several = len(names) > 1
    counts = np.array([[((groups == name) & (items["outcome"] == o)).sum() for o in OUTCOME_STYLES] for name in names])
    left = np.zeros(len(names))
    places = np.arange(len(names))[::-1]
    for column, (_, colour, hatch) in zip(counts.T, OUTCOME_STYLES.values(), strict=True):
        ax.barh(places, column, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.0, height=0.62)
        for place, start, count in zip(places, left, column, strict=True):
            if count >= _LEAST_NAMED * counts.sum(axis=1).max():
                box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0.0, "alpha": 0.85}
                look: dict[str, Any] = {"color": INK, "fontsize": points(8), "bbox": box}
                ax.text(start + count / 2, place, str(count), ha="center", va="center", **look)
        left += column
    ax.set_yticks(places, [drawable(name or "no group") for name in names] if several else [""])
    ax.set_xlabel("prompts")
    ax.grid(visible=False, axis="y")
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.0)
        for _, colour, hatch in OUTCOME_STYLES.values()
    ]
    legend_below(ax, handles, [name for name, _, _ in OUTCOME_STYLES.values()])
    return ax


def _drawn_groups(groups: pd.Series) -> tuple[pd.Series, list[str]]:
    """Give the bar of each prompt and the bars from above; of many groups the largest have bars of their own."""
    named = groups.fillna("").astype(str)
    sizes = named.value_counts()
    ranked = sorted(sizes.index, key=lambda name: (-int(sizes[name]), name))
    if len(ranked) <= MOST_GROUPS:
        return named, sorted(ranked)
    kept = ranked[: MOST_GROUPS - 1]
    rest = f"({len(ranked) - len(kept)} other groups)"
    return named.where(named.isin(kept), rest), [*sorted(kept), rest]
