"""Teachers side by side: the two conditions of the paper, and how far models are from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opd_diag.plots.style import INK, MUTED, drawable, new_axes, points, say, styled

MARKERS = ("o", "s", "^", "D", "v", "P")
_RIGHT = 0.7
"""Shared mass from which a name stands to the left of its mark."""

_PATCH: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}
"""Under words that a dashed line would cross."""

_LEAST = 1e-4
"""Of KL, in nats: what is less is drawn as this."""

COLOURS = ("#0072b2", "#d55e00", "#00805e", "#cc79a7", "#8a6d00", "#56b4e9")


@styled
def teaching_conditions(placed: pd.DataFrame, *, mass: float, lead: float, ax: Axes | None = None) -> Axes:
    """Draw each teacher by compatibility (shared mass) and by what it can do more than the student (lead).

    Upper right is a teacher that fits and brings something new. Upper left leads and thinks in another pattern; lower
    right fits and has nothing to give. Bars are 95 % intervals; dashed lines what the verdicts hold values against.

    Parameters
    ----------
    placed
        One row a teacher: `teacher`, `mass`, `lead`, each number followed by ``_ci_low`` and ``_ci_high``; a `lead`
        of NaN, where nothing could be graded, stands at the bottom.
    mass, lead
        Thresholds.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("Two conditions of a teacher that teaches")
    ax.set_xlabel("shared mass before training  (lower of both models)")
    if placed.empty:
        say(ax, "no teacher was measured")
        return ax
    known = bool(placed["lead"].notna().any())
    ax.set_ylabel("lead in accuracy over the student" if known else "")
    for i, (_, row) in enumerate(placed.iterrows()):
        y = float(row["lead"]) if np.isfinite(row["lead"]) else 0.0
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        ax.plot([row["mass"]], [y], marker, color=colour, markersize=8, label=drawable(str(row["teacher"])))
        ax.hlines(y, row["mass_ci_low"], row["mass_ci_high"], color=colour, linewidth=1.4)
        if np.isfinite(row["lead"]):
            ax.vlines(row["mass"], row["lead_ci_low"], row["lead_ci_high"], color=colour, linewidth=1.4)
        right = row["mass"] > _RIGHT
        ax.annotate(
            drawable(str(row["teacher"])), (row["mass"], y), xytext=(-8 if right else 8, 6),
            textcoords="offset points", color=INK, fontsize=points(9), ha="right" if right else "left", bbox=_PATCH,
        )  # fmt: skip
    ax.axvline(mass, color=MUTED, linestyle="--", linewidth=1.0)
    ax.set_xlim(0.0, 1.03)
    if known:
        ax.axhline(lead, color=MUTED, linestyle="--", linewidth=1.0)
        low = min(0.0, float(np.nanmin(placed["lead_ci_low"].astype(float).fillna(placed["lead"]))))
        ax.set_ylim(low - 0.08, max(1.0, float(placed["lead"].max()) + 0.1))
        look: dict[str, Any] = {"transform": ax.transAxes, "color": MUTED, "fontsize": points(8), "bbox": _PATCH}
        ax.text(0.02, 0.98, "leads, other pattern", va="top", **look)
        ax.text(0.98, 0.98, "fits and leads", va="top", ha="right", **look)
        ax.text(0.98, 0.02, "fits, nothing new", ha="right", **look)
    else:
        ax.set_yticks([])
    return ax


@styled
def model_distances(distances: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the KL between every two models at the student's states, in nats, both directions averaged.

    A dark field between two teachers is a difference that the student can see; a light one beside dark ones in the
    student's row says that the two are one to it. A field with ≥ has the shade of the least that it can be, as a server
    returned its top K alone; an empty one was not measured.

    Parameters
    ----------
    distances
        From :func:`opd_diag.tables.teachers.distance_table`.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_title("KL between models  (nats)")
    if distances.empty:
        say(ax, "nothing was measured")
        return ax
    names = list(dict.fromkeys([*distances["first"], *distances["second"]]))
    field = np.full((len(names), len(names)), np.nan)
    least = np.zeros_like(field, dtype=bool)
    for _, row in distances.iterrows():
        i, j = names.index(row["first"]), names.index(row["second"])
        low = np.isnan(row["symmetric_kl"]) and np.isfinite(row["bound_low"])
        field[i, j] = field[j, i] = float(row["bound_low"] if low else row["symmetric_kl"])
        least[i, j] = least[j, i] = low
    np.fill_diagonal(field, 0.0)
    shade = np.log10(np.maximum(field, _LEAST))
    top = max(1.0, float(np.nanmax(shade)))
    ax.imshow(shade, cmap="Blues", vmin=np.log10(_LEAST), vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(field):
        if i == j:
            continue
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": points(9)}
        if np.isfinite(value):
            dark = (shade[i, j] - np.log10(_LEAST)) / (top - np.log10(_LEAST)) > 0.6
            ax.text(j, i, f"{'≥ ' * bool(least[i, j])}{value:.3g}", color="white" if dark else INK, **look)
        elif np.isnan(value):
            ax.text(j, i, "not\nmeasured", color=MUTED, **look)
    labels = [drawable(name) for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set_yticks(range(len(names)), labels)
    ax.grid(visible=False)
    return ax
