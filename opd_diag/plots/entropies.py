"""Student against teacher entropy, state by state."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from opd_diag.plots.style import MUTED, drawable, new_axes, say, states_name, styled

_CELLS = 26
_DIAGONAL = "#d55e00"


@styled
def student_against_teacher_entropy(
    states_table: pd.DataFrame,
    *,
    states: str = "on-policy",
    title: str | None = None,
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the entropy of the student against that of the teacher at the same states, in nats, as cells of counts.

    On the diagonal both are equally undecided; above it the student is flatter, below it sharper. Cells far off the
    diagonal are what the entropy gap averages. Equal entropies do not mean equal preferences.

    Parameters
    ----------
    states_table
        State table (:mod:`opd_diag.tables`) of one checkpoint.
    states
        State set to draw.
    title
        Title; by default the name of the state set.
    limit
        Upper end of both axes, in nats, so that pictures compare; by default the greatest entropy. States beyond it
        are drawn at the edge and counted under the axis.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    rows = states_table.loc[states_table["states"] == states, ["teacher_entropy", "student_entropy"]].astype(float)
    rows = rows.dropna()
    ax.set_title(states_name(states) if title is None else drawable(title, 60))
    ax.set_xlabel("teacher entropy $H(q)$  (nats)")
    ax.set_ylabel("student entropy $H(p)$  (nats)")
    if rows.empty:
        say(ax, "undefined: no state has both entropies")
        return ax
    limit = float(rows.max().max()) if limit is None else limit
    limit = max(limit, 1e-3)
    beyond = int((rows > limit).any(axis=1).sum())
    if beyond:
        said = "state lies beyond and is drawn" if beyond == 1 else "states lie beyond and are drawn"
        ax.set_xlabel(f"{ax.get_xlabel()}\n{beyond:,} {said} at the edge")
    rows = rows.clip(upper=limit)
    cells = ax.hexbin(
        rows["teacher_entropy"], rows["student_entropy"], gridsize=_CELLS, extent=(0.0, limit, 0.0, limit), mincnt=1,
        cmap="crest", linewidths=0.1,
    )  # fmt: skip
    counts = np.asarray(cells.get_array(), dtype=float)
    cells.set_norm(LogNorm(1, max(2.0, counts.max(initial=0.0))))
    ax.plot([0, limit], [0, limit], color=_DIAGONAL, linewidth=1.3, linestyle=(0, (4, 3)), label="equal entropies")
    ax.set_xlim(0, limit * 1.02)
    ax.set_ylim(0, limit * 1.02)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    bar = ax.get_figure(root=True).colorbar(cells, ax=ax, shrink=0.85, pad=0.02, format="{x:,.0f}")  # type: ignore[union-attr]
    bar.set_label("states in a cell", color=MUTED)
    bar.outline.set_visible(False)
    return ax
