"""Where a curve may lie at all, on the artists of the picture: areas, bars and arrows, no line that nobody knows."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex

from opd_diag.plots import metric_by_step
from opd_diag.plots.bounds import BETWEEN_BOUNDS, OPEN, bound_area
from opd_diag.plots.style import STATE_STYLES, new_axes
from opd_diag.report.svg import svg_of

INF, NAN = math.inf, math.nan
OWN, START = STATE_STYLES["on-policy"], STATE_STYLES["start"]
LOW, HIGH = [1.0, 0.7, 0.4], [1.6, 1.2, 0.8]


def rows(low=LOW, high=HIGH, states="on-policy", metric="forward_kl", value=NAN):
    """Summary rows of a metric that is known between bounds alone, at steps 0, 10, 20."""
    low, high = np.array(low), np.array(high)
    of = {"metric": metric, "k": pd.NA, "teacher": "big", "states": states, "value": value}
    ends = {"bound_low": low, "bound_high": high, "ci_low": low - 0.2, "ci_high": high + 0.2}
    steps = 10 * np.arange(len(low))
    table = pd.DataFrame({"step": steps, "label": [f"step {s}" for s in steps], **of, **ends, "band_low": NAN})
    return table.assign(band_high=NAN).astype({"step": "Int64", "k": "Int64"})


def areas(ax):
    return [c for c in ax.collections if isinstance(c, PolyCollection)]


def bars(ax):
    """(x, low, high) of every upright bar."""
    found = [segment for c in ax.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    return [(a[0], a[1], b[1]) for a, b in found]


def edges(ax):
    """The lines that are drawn through the bounds."""
    return [line for line in ax.lines if line.get_linestyle() != "None"]


def arrows(ax):
    return [line for line in ax.lines if line.get_label().endswith(OPEN)]


def named(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestBothEnds:
    def test_the_area_between_them_is_hatched_and_not_shaded(self):
        ax = metric_by_step(rows(), "forward_kl")
        (area,) = areas(ax)
        assert area.get_hatch() == "////"
        assert len(area.get_facecolor()) == 0
        assert to_hex(area.get_edgecolor()[0]) == OWN.colour
        corners = area.get_paths()[0].vertices
        for x, low, high in zip((0, 10, 20), LOW, HIGH, strict=True):
            assert {*corners[corners[:, 0] == x][:, 1]} == {low, high}

    def test_the_edges_are_the_bounds_and_no_line_runs_between_them(self):
        ax = metric_by_step(rows(), "forward_kl")
        assert [line.get_ydata().tolist() for line in edges(ax)] == [LOW, HIGH]
        assert all(line.get_linewidth() < 1 for line in edges(ax))
        assert bars(ax) == [*zip((0, 10, 20), LOW, HIGH, strict=True)]

    def test_no_interval_is_drawn_and_what_is_drawn_is_named(self):
        ax = metric_by_step(rows(), "forward_kl")
        drawn = [y for line in ax.lines for y in line.get_ydata()] + [y for _, *ends in bars(ax) for y in ends]
        assert {*drawn} == {*LOW, *HIGH}
        assert named(ax) == [f"own states, {BETWEEN_BOUNDS}"]

    def test_a_single_checkpoint_is_a_bar(self):
        ax = metric_by_step(rows([0.5], [0.9]), "forward_kl")
        assert bars(ax) == [(0, 0.5, 0.9)]
        assert named(ax) == [f"own states, {BETWEEN_BOUNDS}"]

    def test_areas_that_overlap_are_told_apart_by_hatch_colour_and_place_of_the_bars(self):
        both = pd.concat([rows(), rows(states="start"), rows(states="teacher")], ignore_index=True)
        ax = metric_by_step(both, "forward_kl")
        assert len({area.get_hatch() for area in areas(ax)}) == 3
        assert len({to_hex(area.get_edgecolor()[0]) for area in areas(ax)}) == 3
        ax.get_figure(root=True).draw_without_rendering()
        lines = [c for c in ax.collections if isinstance(c, LineCollection)]
        shown = [c.get_transform().transform(c.get_segments()[0])[0, 0] for c in lines]
        points = 72 / ax.get_figure(root=True).dpi
        assert np.diff(sorted(shown)) * points == pytest.approx([3, 3])
        assert len(named(ax)) == 3

    def test_a_file_of_the_picture_has_the_hatches(self):
        root = ElementTree.fromstring(svg_of(metric_by_step(rows(), "forward_kl")))
        assert len([*root.iter("{http://www.w3.org/2000/svg}pattern")]) == 1


class TestNoUpperEnd:
    def test_the_lower_edge_has_arrows_up_and_no_area(self):
        ax = metric_by_step(rows(high=[INF] * 3, metric="reverse_kl"), "reverse_kl")
        assert areas(ax) == []
        assert bars(ax) == []
        assert [line.get_ydata().tolist() for line in edges(ax)] == [LOW]
        (arrow,) = arrows(ax)
        assert arrow.get_xydata().tolist() == [[0, 1.0], [10, 0.7], [20, 0.4]]
        corners = arrow.get_marker().vertices
        assert corners[:, 1].min() == 0  # it stands on its place
        assert corners[corners[:, 1].argmax()].tolist() == [0, 1]
        assert named(ax) == ["own states, at least this: no upper bound"]

    def test_where_some_have_one_either_is_drawn(self):
        ax = metric_by_step(rows(high=[INF, 1.2, 0.8]), "forward_kl")
        assert bars(ax) == [(10, 0.7, 1.2), (20, 0.4, 0.8)]
        (arrow,) = arrows(ax)
        assert arrow.get_xydata().tolist() == [[0, 1.0]]
        assert np.isfinite(areas(ax)[0].get_paths()[0].vertices).all()
        assert sorted(named(ax)) == [f"own states, {OPEN}", f"own states, {BETWEEN_BOUNDS}"]

    def test_the_axis_ends_where_bounds_do(self):
        low, high = metric_by_step(rows(high=[INF] * 3, metric="reverse_kl"), "reverse_kl").get_ylim()
        assert low <= 0
        assert 1.0 < high < 1.5


class TestNothingToDraw:
    @pytest.mark.parametrize(
        "of",
        [
            pytest.param(rows(value=0.5).drop(columns=["bound_low", "bound_high"]), id="a table without bounds"),
            pytest.param(rows([NAN] * 3, [NAN] * 3, value=0.5), id="values"),
            pytest.param(rows([-INF] * 3, [INF] * 3), id="no bound at all"),
        ],
    )
    def test_nothing_is_drawn(self, of):
        ax = new_axes()
        assert not bound_area(ax, [0, 10, 20], of, OWN)
        assert not ax.lines
        assert not ax.collections

    def test_what_nothing_bounds_and_nobody_knows_is_said(self):
        ax = metric_by_step(rows([NAN] * 3, [NAN] * 3), "forward_kl")
        (text,) = ax.texts
        assert text.get_text().startswith("undefined: ")

    def test_bounds_are_something(self):
        assert [text.get_text() for text in metric_by_step(rows(), "forward_kl").texts] == []


def test_a_curve_that_is_known_at_some_checkpoints_has_a_line_there_and_an_area_elsewhere():
    of = rows([1.0, 0.7, NAN], [1.6, 1.2, NAN])
    of["value"], of["ci_low"], of["ci_high"] = [NAN, NAN, 0.5], [0.8, 0.5, 0.45], [1.8, 1.4, 0.55]
    ax = metric_by_step(of, "forward_kl")
    assert bars(ax) == [(0, 1.0, 1.6), (10, 0.7, 1.2)]
    (line,) = [line for line in ax.lines if line.get_label() == "own states"]
    np.testing.assert_array_equal(line.get_ydata(), [NAN, NAN, 0.5])


def test_a_style_of_another_line_has_a_hatch_too():
    ax = new_axes()
    style = STATE_STYLES["near-on-policy"]
    assert bound_area(ax, [0, 10, 20], rows(), style)
    (area,) = areas(ax)
    assert area.get_hatch() not in (None, *(c.get_hatch() for c in areas(metric_by_step(rows(), "forward_kl"))))
    assert START.shift != style.shift
