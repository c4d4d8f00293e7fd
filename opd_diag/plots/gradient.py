"""Which tokens the reverse-KL gradient pushes, as stacked shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from opd_diag.plots.quantities import quantity
from opd_diag.plots.style import (
    INK,
    MOST_LINES,
    STATE_STYLES,
    checkpoints_of,
    drawable,
    legend_below,
    new_axes,
    points,
    say,
    spread,
    styled,
)


@dataclass(frozen=True)
class Share:
    """How one share is drawn; colour and hatching each tell the shares apart alone."""

    name: str
    colour: str
    hatch: str


SHARES: dict[str, Share] = {
    "shared_gradient_ratio": Share("shared", "#7a8fc4", ""),
    "student_only_gradient_ratio": Share("student-only", "#e69f00", "////"),
    "teacher_only_gradient_ratio": Share("teacher-only", "#00805e", "\\\\\\\\"),
    "other_gradient_ratio": Share("all other", "#d5dae0", "xxxx"),
}
"""From the bottom of the stack to its top."""

_LEAST_NAMED = 0.08
"""A share below this has no room for its number; nor have more checkpoints than a picture names."""


@styled
def gradient_by_step(summary: pd.DataFrame, *, states: str = "on-policy", ax: Axes | None = None) -> Axes:
    """Draw, for every checkpoint, how the reverse-KL gradient is split among kinds of token.

    Tokens in both top-k, in the student's alone, in the teacher's alone, and all others; the four shares are a whole.
    Whiskers are the 95 % interval of the shared part, clustered by prompt.

    Parameters
    ----------
    summary
        Summary table (:mod:`opd_diag.tables`).
    states
        State set shown.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    rows = summary[(summary["states"] == states) & summary["metric"].isin(SHARES)]
    known = rows["k"].dropna().unique()
    ax.set_title("Tokens the gradient pushes" + (f" at k = {int(known[0])}" if len(known) == 1 else ""))
    name = STATE_STYLES[states].name
    ax.set_ylabel(f"share of ‖g‖², {name}  (ratio)")
    checkpoints = checkpoints_of(summary)
    _checkpoint_axis(ax, checkpoints)
    wide = rows.pivot_table("value", "label", "metric", dropna=False).reindex(checkpoints["label"])
    if rows.empty or wide.isna().all(axis=None):
        say(ax, f"undefined: {quantity('shared_gradient_ratio').undefined}")
        return ax
    ax.set_ylim(0.0, 1.0)
    ax.grid(False)
    _stacks(ax, wide)
    _whiskers(ax, rows[rows["metric"] == "shared_gradient_ratio"], wide.index)
    handles = [Patch(facecolor=s.colour, hatch=s.hatch, edgecolor="white", linewidth=0.0) for s in SHARES.values()]
    legend_below(ax, handles, [s.name for s in SHARES.values()], title="tokens in top-k")
    return ax


def _checkpoint_axis(ax: Axes, checkpoints: pd.DataFrame) -> None:
    """Give every checkpoint a place of the same width; at most `MOST_LINES` of them are named."""
    steps = checkpoints["step"].notna().all()
    names = (
        [f"{step:.0f}" for step in checkpoints["step"]]
        if steps
        else checkpoints["label"].map(lambda label: drawable(label, 16)).to_list()
    )
    places = spread([str(i) for i in range(len(names))], MOST_LINES)
    slanted: dict[str, Any] = {} if steps else {"rotation": 20, "ha": "right"}
    ax.set_xticks([int(i) for i in places], [names[int(i)] for i in places], **slanted)
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel("optimiser step" if steps else "checkpoint")
    room = 0.6 if len(names) > 1 else 1.5
    ax.set_xlim(-room, len(names) - 1 + room)


def _stacks(ax: Axes, wide: pd.DataFrame) -> None:
    """Draw one stack a checkpoint; `wide` has a row for each and a column for each share."""
    x, below = np.arange(len(wide), dtype=float), np.zeros(len(wide))
    for metric, share in SHARES.items():
        height = wide[metric].fillna(0.0).to_numpy(float)
        look: dict[str, Any] = {"color": share.colour, "hatch": share.hatch, "edgecolor": "white", "linewidth": 0.0}
        ax.bar(x, height, 0.8, bottom=below, label=share.name, **look)
        for i in np.flatnonzero(height >= _LEAST_NAMED) if len(x) <= MOST_LINES else ():
            _number(ax, x[i], below[i] + height[i] / 2, height[i], share)
        below = below + height


def _number(ax: Axes, x: float, y: float, value: float, share: Share) -> None:
    dark = np.dot(to_rgb(share.colour), (0.299, 0.587, 0.114)) < 0.45
    paper = {"facecolor": share.colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
    ink = "white" if dark else INK
    ax.text(x, y, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=points(7.5), bbox=paper)


def _whiskers(ax: Axes, rows: pd.DataFrame, labels: pd.Index) -> None:
    ends = rows.set_index("label")[["ci_low", "ci_high"]].reindex(labels).astype(float).clip(0.0, 1.0)
    ax.vlines(np.arange(len(labels)), ends["ci_low"], ends["ci_high"], color=INK, linewidth=1.2)
