"""Maps of a metric by depth and step, on their artists."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

from opd_diag.plots import heat_limit, metric_heat_map
from opd_diag.plots.heat import MOST_ROWS_NAMED, MOST_VECTOR_CELLS
from opd_diag.report.svg import svg_of
from opd_diag.tables.depth import DEPTH_COLUMNS, FEWEST_PROMPTS

VALUES = ((0.1, 0.2), (0.3, 2.0))
INF, NAN = math.inf, math.nan


def depth(values, metric="reverse_kl", prompts=9, states="on-policy"):
    """Rows of checkpoints by cells of four tokens."""
    rows = [
        {"step": i, "label": f"step {i}", "teacher": "big", "states": states, "metric": metric}
        | {"depth_low": 4 * j, "depth_high": 4 * j + 4, "value": value, "n_prompts": prompts}
        for i, row in enumerate(values)
        for j, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=DEPTH_COLUMNS).astype({"step": "Int64"})


def mesh_of(ax):
    return next(of for of in ax.collections if isinstance(of, QuadMesh))


def colours_of(ax):
    """Give the colour of every cell, row by row from the first checkpoint; None where there is none."""
    mesh = mesh_of(ax)
    drawn = mesh.to_rgba(mesh.get_array())
    return [[to_hex(cell) if cell[3] else None for cell in row] for row in drawn]


def said(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_row_a_checkpoint_and_a_column_a_bin():
    ax = metric_heat_map(depth(VALUES), "reverse_kl")
    assert np.allclose(mesh_of(ax).get_array(), VALUES)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1"]
    assert ax.get_ylabel() == "optimiser step"
    assert ax.get_xlim() == (0, 8)
    assert ax.get_title(loc="left") == "Reverse KL, own states"
    assert "(nats)" in ax.figure.axes[1].get_ylabel()


def test_other_metrics_and_sets_are_not_drawn():
    table = pd.concat([depth(VALUES), depth([(9.0, 9.0)], states="start"), depth([(9.0, 9.0)], "forward_kl")])
    assert np.allclose(mesh_of(metric_heat_map(table, "reverse_kl")).get_array(), VALUES)
    assert np.allclose(mesh_of(metric_heat_map(table, "reverse_kl", states="start")).get_array(), 9.0)


def test_the_highest_cell_is_framed():
    ax = metric_heat_map(depth(VALUES), "reverse_kl")
    frame = next(of for of in ax.patches if of.get_zorder() and not of.get_fill() and of.get_linewidth() > 1)
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((4.0, 0.5), 4.0, 1.0)
    assert said(ax) == ["highest"]


def test_the_scale_ends_where_it_is_told_to_so_that_maps_compare():
    assert mesh_of(metric_heat_map(depth(VALUES), "reverse_kl")).get_clim() == (0.0, 2.0)
    assert mesh_of(metric_heat_map(depth(VALUES), "reverse_kl", limit=5.0)).get_clim() == (0.0, 5.0)


@pytest.mark.parametrize(
    ("metric", "value", "ends"),
    [("overlap_ratio", 0.4, (0.0, 1.0)), ("overlap_token_advantage", -0.4, (-0.4, 0.0)),
     ("entropy_difference", -0.4, (-0.4, 0.4)), ("reverse_kl", 0.0, (0.0, 1.0))],
)  # fmt: skip
def test_the_scale_follows_the_bounds_of_the_metric(metric, value, ends):
    assert mesh_of(metric_heat_map(depth([(value, value / 2)], metric), metric)).get_clim() == ends


def test_colours_by_the_square_root_tell_low_values_apart():
    table = depth([(0.0, 1.0, 4.0, 16.0)])
    scale = mesh_of(metric_heat_map(table, "reverse_kl", root=True)).norm
    assert [float(scale(value)) for value in (0.0, 1.0, 4.0, 16.0)] == pytest.approx([0.0, 0.25, 0.5, 1.0])


def test_cells_of_few_prompts_are_hatched():
    table = depth(VALUES)
    table.loc[table["depth_low"] == 4, "n_prompts"] = FEWEST_PROMPTS - 1
    ax = metric_heat_map(table, "reverse_kl")
    assert mesh_of(ax).get_array().mask.tolist() == [[False, True], [False, True]]
    assert mesh_of(ax).get_clim() == (0.0, 0.3)
    assert said(ax) == ["highest", "under 5 prompts"]
    ground = ax.patches[0]
    assert (ground.get_hatch(), ground.get_xy(), ground.get_width(), ground.get_height()) == ("////", (0, -0.5), 8, 2)


def test_checkpoints_that_end_earlier_leave_cells_open():
    table = depth(VALUES)
    table = table[(table["label"] != "step 0") | (table["depth_low"] == 0)]
    array = mesh_of(metric_heat_map(table, "reverse_kl")).get_array()
    assert array.mask.tolist() == [[False, True], [False, False]]


def test_what_is_infinite_has_a_colour_of_its_own():
    ax = metric_heat_map(depth(((0.1, INF), (0.3, 2.0))), "reverse_kl")
    (_, infinite), (_, highest) = colours_of(ax)
    assert infinite == "#cc79a7" != highest
    assert mesh_of(ax).get_clim() == (0.0, 2.0)
    assert said(ax) == ["highest", "beyond the scale"]
    everywhere = metric_heat_map(depth([(INF, INF)]), "reverse_kl")
    assert colours_of(everywhere) == [["#cc79a7"] * 2]


def test_what_is_undefined_is_no_zero():
    ax = metric_heat_map(depth(((0.1, NAN), (0.3, 2.0))), "reverse_kl")
    assert colours_of(ax)[0][1] is None


def test_zero_everywhere_is_drawn_as_zero():
    ax = metric_heat_map(depth([(0.0, 0.0)]), "reverse_kl")
    assert len({*colours_of(ax)[0]}) == 1
    assert mesh_of(ax).norm(0.0) == 0.0


@pytest.mark.parametrize("table", [depth(VALUES, prompts=2), depth([(NAN, NAN)]), depth(())])
def test_nothing_to_draw_is_said(table):
    ax = metric_heat_map(table, "reverse_kl")
    assert ax.texts[0].get_text() == "no depth that responses to 5 prompts\nreach"
    assert not ax.collections
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("n", [1, 2, 5, 20, 200])
def test_many_checkpoints_stay_readable_and_small(n):
    values = 2.0 + np.cos(np.arange(8 * n)).reshape(n, 8)
    ax = metric_heat_map(depth(values), "reverse_kl")
    assert np.allclose(mesh_of(ax).get_array(), values)
    named = [tick.get_text() for tick in ax.get_yticklabels()]
    assert len(named) == min(n, MOST_ROWS_NAMED)
    assert (named[0], named[-1]) == ("0", str(n - 1))
    assert mesh_of(ax).get_rasterized() is (8 * n > MOST_VECTOR_CELLS)
    svg = svg_of(ax)
    assert svg.count("<image") == 1 + (8 * n > MOST_VECTOR_CELLS)  # the bar of colours is one
    assert len(svg) < 200_000
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_unknown_steps_are_named_by_their_labels():
    table = depth(VALUES)
    ax = metric_heat_map(
        table.assign(step=pd.array([pd.NA] * len(table), dtype="Int64"), label="run $x$"), "reverse_kl"
    )
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [r"run \$x\$"]
    assert ax.get_ylabel() == "checkpoint"


def test_the_limit_is_the_greatest_finite_value_that_is_drawn():
    table = depth(((0.1, -3.0), (INF, 2.0)))
    assert heat_limit(table) == 3.0
    assert heat_limit(table.assign(n_prompts=[9, 4, 9, 9])) == 2.0
    assert heat_limit(table.assign(value=INF)) == 0.0
    assert heat_limit(table.assign(value=NAN)) is None
