"""A metric by depth and step, as a map of cells."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.patches import Patch, Rectangle

from opd_diag.plots.quantities import Quantity, quantity
from opd_diag.plots.style import checkpoints_of, drawable, legend_below, new_axes, say, spread, states_name, styled
from opd_diag.tables.depth import FEWEST_PROMPTS, peak_cell

MOST_ROWS_NAMED = 8

MOST_VECTOR_CELLS = 600
"""Of more cells the map is drawn as pixels inside the vector file, which would be megabytes otherwise."""

_GROUND, _HATCH, _MARK, _BEYOND = "#eef0f2", "#c3cad1", "#d55e00", "#cc79a7"


@styled
def metric_heat_map(
    depth: pd.DataFrame,
    metric: str,
    *,
    states: str = "on-policy",
    limit: float | None = None,
    root: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against depth and step, a row a checkpoint and a column a bin of positions.

    A patch on the right of late rows says that something is the matter at the ends of responses; one that reaches
    further left row by row, that it moves forward. Hatched cells rest on fewer than `FEWEST_PROMPTS` prompts; the frame
    is around the highest cell. Pink cells are beyond the scale, or infinite.

    Parameters
    ----------
    depth
        Depth table (:mod:`opd_diag.tables`).
    metric
        A metric of the catalogue.
    states
        State set to draw.
    limit
        Where the colours end, in the unit of the metric, so that maps compare (:func:`heat_limit`); by default at the
        greatest value drawn. Metrics of both signs are coloured from -limit to limit, those that have two bounds from
        one to the other.
    root
        Whether colours go by the square root, so that low values can be told apart beside high ones: for divergences,
        which are 0 or more and grow as the square of a distance.
    ax
        Axes to draw on; by default of a new figure.
    """
    ax = new_axes() if ax is None else ax
    what = quantity(metric)
    rows = depth[(depth["metric"] == metric) & (depth["states"] == states)]
    ax.set_title(f"{what.title}, {states_name(states)}")
    ax.set_xlabel("position in the response (tokens)")
    limit = heat_limit(rows) if limit is None else limit
    peak = peak_cell(rows, metric, states)
    if limit is None or peak is None:
        say(ax, f"no depth that responses to {FEWEST_PROMPTS} prompts reach")
        return ax
    checkpoints = checkpoints_of(rows)
    labels = list(checkpoints["label"])
    edges, cells = _cells(rows, labels)
    scale, colours = _scale(what, limit, root=root)
    least, most = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
    beyond = bool(((cells > most) | (cells < least)).any())
    ax.set_facecolor(_GROUND)
    whole = Rectangle((edges[0], -0.5), edges[-1] - edges[0], len(labels), zorder=0)
    whole.set(facecolor="none", edgecolor=_HATCH, hatch="////", linewidth=0)
    ax.add_patch(whole)
    ax.pcolormesh(
        edges, np.arange(len(labels) + 1) - 0.5, np.ma.masked_invalid(np.clip(cells, least - 1, most + 1)),
        norm=scale, cmap=colours, rasterized=cells.size > MOST_VECTOR_CELLS, edgecolor="face", linewidth=0.2,
    )  # fmt: skip
    corner = float(peak["depth_low"]), labels.index(str(peak["label"])) - 0.5
    width = float(peak["depth_high"]) - corner[0]
    frame = ax.add_patch(Rectangle(corner, width, 1.0, fill=False, edgecolor=_MARK, linewidth=1.6))
    _name_rows(ax, checkpoints)
    ax.set_xlim(edges[0], edges[-1])
    extend = "max" if beyond else "neither"
    bar = ax.get_figure(root=True).colorbar(ScalarMappable(scale, colours), ax=ax, pad=0.02, extend=extend)  # type: ignore[union-attr]
    bar.set_label(what.axis_label)
    bar.outline.set_visible(False)
    few = Patch(facecolor=_GROUND, edgecolor=_HATCH, hatch="////", linewidth=0)
    told: dict[str, Patch] = {"highest": frame}
    told |= {f"under {FEWEST_PROMPTS} prompts": few} if np.isnan(cells).any() else {}
    told |= {"beyond the scale": Patch(color=_BEYOND, linewidth=0)} if beyond else {}
    legend_below(ax, list(told.values()), list(told))
    return ax


def heat_limit(depth: pd.DataFrame) -> float | None:
    """Give the greatest size of the finite values that a map of some rows would draw; None where there is none."""
    drawn = depth.loc[depth["n_prompts"] >= FEWEST_PROMPTS, "value"].to_numpy(float)
    drawn = np.abs(drawn[~np.isnan(drawn)])
    known = drawn[np.isfinite(drawn)]
    return None if not len(drawn) else float(known.max(initial=0.0))


def _cells(rows: pd.DataFrame, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Give the edges of the bins, and (checkpoints, bins) values, NaN where few prompts reach."""
    edges = np.array(sorted({*rows["depth_low"], *rows["depth_high"]}), dtype=float)
    cells = np.full((len(labels), len(edges) - 1), np.nan)
    places = {label: i for i, label in enumerate(labels)}
    at = rows["label"].map(places).to_numpy(int), np.searchsorted(edges, rows["depth_low"].to_numpy(float))
    cells[at] = np.where(rows["n_prompts"] >= FEWEST_PROMPTS, rows["value"].astype(float), np.nan)
    return edges, cells


def _scale(what: Quantity, limit: float, *, root: bool) -> tuple[Normalize, Colormap]:
    """Give how values become colours; of zeros alone the scale ends at 1."""
    limit = limit or 1.0
    signed = math.isinf(what.low) and math.isinf(what.high)
    colours = colormaps["PuOr" if signed else "cividis"].with_extremes(over=_BEYOND, under=_BEYOND)
    if root:
        return PowerNorm(0.5, 0.0, limit), colours
    if math.isfinite(what.low) and math.isfinite(what.high):
        return Normalize(what.low, what.high), colours
    return Normalize(0.0 if what.low == 0.0 else -limit, 0.0 if what.high == 0.0 else limit), colours


def _name_rows(ax: Axes, checkpoints: pd.DataFrame) -> None:
    """Name rows by their steps, or by their labels where a step is unknown; of many rows some."""
    labels = list(checkpoints["label"])
    steps, numbered = checkpoints["step"], bool(checkpoints["step"].notna().all())
    names = [str(int(step)) for step in steps] if numbered else [drawable(label, 12) for label in labels]
    shown = [int(at) for at in spread([str(i) for i in range(len(labels))], MOST_ROWS_NAMED)]
    ax.set_yticks(shown, [names[at] for at in shown])
    ax.set_ylabel("optimiser step" if numbered else "checkpoint")
    ax.set_ylim(-0.5, len(labels) - 0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
