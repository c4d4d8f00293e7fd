"""Colours, legends and the axis that checkpoints stand on, the same in every picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from opd_diag.plots.paper import INK as INK
from opd_diag.plots.paper import MUTED, StyledFigure, panel_size, points
from opd_diag.plots.paper import styled as styled

MOST_LINES = 6
"""Checkpoints drawn as lines of one picture, or named on one axis."""

_LEGEND_WIDTH = 245 / 288
"""Of a panel's."""
_TICK_POINTS, _SLANTED_POINTS = 9.0, 32.0

WHOLE_CURVE = "whole curve, 95 %"
"""What legends call the band that holds all places of a curve at once."""


@dataclass(frozen=True)
class LineStyle:
    """How one line is drawn; colour, marker and dashes each tell the lines of a picture apart alone."""

    name: str
    colour: str
    marker: str
    dashes: str
    width: float
    shift: float = 0.0
    """Points to the right at which it is drawn where it has whiskers, so that those of several lines stand apart."""


STATE_STYLES: dict[str, LineStyle] = {
    "on-policy": LineStyle("own states", "#0072b2", "o", "-", 2.6),
    "start": LineStyle("start's states", "#d55e00", "s", "--", 1.5, 3.0),
    "teacher": LineStyle("teacher's states", "#00805e", "^", "-.", 1.5, -3.0),
    "back": LineStyle("own, scored by the start", "#a6507f", "D", ":", 1.5, 6.0),
    "near-on-policy": LineStyle("recorded, near own", "#6b6b6b", "v", " ", 1.5, -6.0),
}
"""Okabe and Ito's colours, distinct for colour-blind readers; lines that coincide show through each other's dashes.
What was recorded is to other prompts at every checkpoint, so that no line connects it."""

RESPONSE_STYLES = {
    "on-policy": replace(STATE_STYLES["on-policy"], name="own responses"),
    "teacher": replace(STATE_STYLES["teacher"], name="teacher's responses"),
}
"""The same lines where a picture tells of the responses: the teacher's line is then no matter of the student."""


def states_name(states: str) -> str:
    """Give what pictures call a state set; one that has no style goes by its own name."""
    return STATE_STYLES[states].name if states in STATE_STYLES else states


def new_axes() -> Axes:
    """Make the axes of one panel on a figure of its own, off screen."""
    return StyledFigure(figsize=panel_size(), layout="constrained").add_subplot()


def step_colours(n: int) -> list[str]:
    """Give `n` colours from light to dark: the later the step, the darker.

    Examples
    --------
    >>> len(step_colours(3)), step_colours(1)
    (3, ['#2c3172'])
    """
    ramp = sns.color_palette("crest", as_cmap=True)
    return [to_hex(ramp(1.0 if n == 1 else i / (n - 1))) for i in range(n)]


def checkpoints_of(table: pd.DataFrame) -> pd.DataFrame:
    """Give the (label, step) of every checkpoint in `table`, in the order of its rows."""
    return table[["label", "step"]].drop_duplicates("label").reset_index(drop=True)


def spread(items: Sequence[str], most: int) -> list[str]:
    """Pick at most `most` of `items`, evenly, with the first and the last.

    Examples
    --------
    >>> spread(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def step_positions(ax: Axes, checkpoints: pd.DataFrame) -> pd.Series:
    """Set up the x axis for `checkpoints` and give the x of each by label: its step, or its rank when one is unknown.

    Ranks carry the labels on the axis, at most `MOST_LINES` of them.
    """
    if checkpoints["step"].notna().all():
        ax.set_xlabel("optimiser step")
        steps = pd.Series(checkpoints["step"].astype(float).to_numpy(), index=checkpoints["label"].to_numpy())
        if len(steps) <= MOST_LINES:
            ax.set_xticks(sorted(steps), [f"{step:.0f}" for step in sorted(steps)])
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return steps
    labels = list(checkpoints["label"])
    ranks = pd.Series(range(len(labels)), index=labels, dtype=float)
    shown = spread(labels, MOST_LINES)
    ax.set_xticks(ranks[shown].to_numpy(), [drawable(label, 16) for label in shown], rotation=20, ha="right")
    ax.set_xlabel("checkpoint")
    return ranks


def room_for_all(ax: Axes, positions: pd.Series) -> None:
    """Show every checkpoint of the table, also those at which this metric is undefined."""
    first, last = float(positions.min()), float(positions.max())
    if first == last:
        ax.set_xlim(first - 1, last + 1)
    else:
        margin = 0.04 * (last - first)
        ax.set_xlim(first - margin, last + margin)


def say(ax: Axes, text: str) -> None:
    """Write `text` in the middle of empty axes."""
    text = textwrap.fill(text, 38)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize=points(8.5))
    ax.grid(False)
    ax.set_yticks([])


def legend_below(
    ax: Axes, handles: Sequence[Artist] | None = None, labels: Sequence[str] = (), title: str | None = None
) -> None:
    """Put the legend under the axes, where it hides no data, in rows as wide as a panel."""
    if handles is None:
        handles, labels = ax.get_legend_handles_labels()
    below = _TICK_POINTS + points(13.0 + 11.5 * (ax.get_xlabel().count("\n") + 1))
    if any(tick.get_rotation() for tick in ax.get_xticklabels()):
        below += points(_SLANTED_POINTS)
    shift = ScaledTranslation(0.0, -below / 72, ax.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
    room = 72 * panel_size()[0] * _LEGEND_WIDTH
    columns = max(1, int(room / points(26 + 5.2 * max(map(len, labels), default=1))))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / columns)) if labels else 1  # rows of one length
    legend = ax.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=ax.transAxes + shift,
        ncols=columns, title=title, handlelength=1.4, columnspacing=1.0, handletextpad=0.4, borderpad=0.0,
        borderaxespad=0.0, title_fontsize=points(8.0),
    )  # fmt: skip
    legend.get_title().set_color(MUTED)


def step_legend(ax: Axes, checkpoints: pd.DataFrame, shown: Sequence[str], *, banded: bool = False) -> None:
    """Put the legend of lines that stand for checkpoints under the axes; say when not all are drawn and what is shaded.

    Parameters
    ----------
    ax
        Axes with the lines.
    checkpoints
        From :func:`checkpoints_of`.
    shown
        Labels of those that are drawn.
    banded
        Whether bands that hold a whole curve are.
    """
    steps = checkpoints.set_index("label")["step"]
    numbers = steps.notna().all()
    handles = [Line2D([], [], color=colour, linewidth=2.4) for colour in step_colours(len(shown))]
    labels = [str(int(steps[label])) if numbers else drawable(label) for label in shown]
    left_out = f" ({len(shown)} of {len(checkpoints)} drawn)" if len(shown) < len(checkpoints) else ""
    if banded:
        ax.set_xlabel(f"{ax.get_xlabel()}\nshaded: each point, 95 %; lighter: {WHOLE_CURVE}")
    legend_below(ax, handles, labels, ("optimiser step" if numbers else "checkpoint") + left_out)


@cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def drawable(text: str, most: int = 24) -> str:
    r"""Make a user's text fit to be drawn: short, no mathtext, and a box for what the font has no glyph for.

    Of a long text both ends are kept: names of checkpoints often differ at the end alone.

    Examples
    --------
    >>> drawable("run $1$"), drawable("a-long-run/checkpoint-9", 12), drawable("\ud800\n")
    ('run \\$1\\$', 'a-long…int-9', '□□')
    """
    short = text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"
    seen = "".join(c if ord(c) in _glyphs() and c.isprintable() else "□" for c in short)
    leading = " " if seen.startswith("_") else ""
    return leading + seen.replace("$", r"\$")
