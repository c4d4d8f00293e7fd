"""Shades and whiskers around a line: which ends they reach, and when there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from opd_diag.plots.intervals import BAND_ALPHA, INTERVAL_ALPHA, band, interval_line
from opd_diag.plots.style import STATE_STYLES, new_axes

NAN = float("nan")
POSITIONS = pd.Series([0.0, 10.0, 30.0], index=["a", "b", "c"])
START = STATE_STYLES["start"]


def rows(**columns):
    known = {"label": ["a", "b", "c"], "value": [1.0, 2.0, 4.0], "ci_low": [0.5, 1.5, 3.0], "ci_high": [1.5, 2.5, 6.0]}
    return pd.DataFrame(known | {"band_low": [0.25, 1.25, 2.0], "band_high": [1.75, 2.75, 7.0]} | columns)


def shades(ax):
    """(how dark, lower ends, upper ends) of every shaded area, from the back to the front."""
    found = []
    for area in ax.collections:
        assert isinstance(area, PolyCollection)
        corners = area.get_paths()[0].vertices
        ends = [corners[corners[:, 0] == x, 1] for x in sorted(set(corners[:, 0]))]
        found.append((area.get_alpha(), [of.min() for of in ends], [of.max() for of in ends]))
    return found


def test_the_band_lies_under_the_interval_and_is_lighter():
    ax = new_axes()
    assert band(ax, [0, 10, 30], rows(), "#0072b2")
    assert shades(ax) == [
        (BAND_ALPHA, [0.25, 1.25, 2.0], [1.75, 2.75, 7.0]),
        (INTERVAL_ALPHA, [0.5, 1.5, 3.0], [1.5, 2.5, 6.0]),
    ]
    assert BAND_ALPHA < INTERVAL_ALPHA


def test_ends_of_one_quantity_of_several_are_taken_by_its_name():
    table = rows().rename(columns=lambda name: f"overlap_ratio_{name}" if name[:2] in ("ci", "ba") else name)
    ax = new_axes()
    assert not band(ax, [0, 10, 30], table, "#0072b2")
    assert not ax.collections
    assert band(ax, [0, 10, 30], table, "#0072b2", "overlap_ratio")
    assert len(shades(ax)) == 2


@pytest.mark.parametrize("bare", [rows().drop(columns=["band_low", "band_high"]), rows(band_low=NAN, band_high=NAN)])
def test_without_a_band_the_interval_is_shaded_alone(bare):
    ax = new_axes()
    assert not band(ax, [0, 10, 30], bare, "#0072b2")
    assert [dark for dark, *_ in shades(ax)] == [INTERVAL_ALPHA]
    assert not band(new_axes(), [0, 10, 30], bare.assign(ci_low=NAN), "#0072b2")


def test_whiskers_stand_at_their_values_and_beside_their_place():
    ax = new_axes()
    ax.set_xlim(0, 30)
    assert not interval_line(ax, rows(), POSITIONS, START, whiskers=True)
    (line,), (whiskers,) = ax.lines, ax.collections
    assert isinstance(whiskers, LineCollection)
    ends = [segment.tolist() for segment in whiskers.get_segments()]
    assert ends == [[[0.0, 0.5], [0.0, 1.5]], [[10.0, 1.5], [10.0, 2.5]], [[30.0, 3.0], [30.0, 6.0]]]
    assert (line.get_xdata() == POSITIONS).all()
    ax.get_figure().draw_without_rendering()
    apart = line.get_transform().transform((10.0, 2.0)) - ax.transData.transform((10.0, 2.0))
    assert apart / ax.get_figure().dpi * 72 == pytest.approx([START.shift, 0.0], abs=1e-6)


def test_of_many_checkpoints_whiskers_would_be_a_thicket():
    labels = [str(i) for i in range(41)]
    many = pd.DataFrame({"label": labels, "value": 1.0, "ci_low": 0.5, "ci_high": 1.5})
    ax = new_axes()
    interval_line(ax, many, pd.Series(np.arange(41.0), index=labels), START, whiskers=True)
    assert [dark for dark, *_ in shades(ax)] == [BAND_ALPHA]
    assert ax.lines[0].get_marker() == ""


def test_one_checkpoint_has_an_upright_line_and_no_band():
    ax = new_axes()
    assert not interval_line(ax, rows().iloc[:1], POSITIONS.iloc[:1], STATE_STYLES["on-policy"])
    (whisker,) = ax.collections
    assert whisker.get_segments()[0].tolist() == [[0.0, 0.5], [0.0, 1.5]]


def test_nothing_is_drawn_where_nothing_is_defined():
    ax = new_axes()
    assert not interval_line(ax, rows(value=NAN), POSITIONS, START)
    assert not ax.lines
    assert not ax.collections


def test_markers_at_a_single_checkpoint_stand_clear_of_each_other():
    ax = new_axes()
    one = rows().iloc[:1]
    for style in (STATE_STYLES["on-policy"], START, STATE_STYLES["teacher"]):
        interval_line(ax, one, POSITIONS[:1], style, whiskers=style is not STATE_STYLES["on-policy"])
    ax.figure.draw_without_rendering()
    across = sorted(line.get_transform().transform((0.0, 1.0))[0] * 72 / ax.figure.dpi for line in ax.lines)
    assert np.diff(across).min() > max(line.get_markersize() for line in ax.lines)
