from __future__ import annotations

import numpy as np
import pytest

from opd_diag.plots import metric_by_depth


def test_points_stand_at_the_middle_of_the_bins(run):
    ax = metric_by_depth(run.depth, "reverse_kl")
    rows = run.depth[(run.depth.metric == "reverse_kl") & (run.depth.states == "on-policy")]
    last = rows[rows.label == "step 100"]
    assert len(ax.lines) == 5
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), (last.depth_low + last.depth_high) / 2)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), last.value)
    assert "(nats)" in ax.get_ylabel()
    assert "position" in ax.get_xlabel()


def test_strip_counts_the_rollouts_of_first_and_last(run):
    ax = metric_by_depth(run.depth, "reverse_kl", states="start")
    (strip,) = ax.child_axes
    rows = run.depth[(run.depth.metric == "reverse_kl") & (run.depth.states == "start")]
    assert len(strip.lines) == 2
    np.testing.assert_allclose(strip.lines[1].get_ydata(), rows[rows.label == "step 100"].n_rollouts)


def test_strip_stands_between_axes_and_title(run):
    ax = metric_by_depth(run.depth, "reverse_kl")
    ax.get_figure().draw_without_rendering()
    strip = ax.child_axes[0].get_window_extent()
    title = ax._left_title.get_window_extent()
    assert ax.get_window_extent().y1 < strip.y0
    assert strip.y1 < title.y0
    assert title.y1 <= ax.get_figure().bbox.y1


def test_first_and_last_alone_are_shaded(run, one_prompt):
    """Primary metrics twice: the band of the whole curve under the interval."""
    ax = metric_by_depth(run.depth, "overlap_ratio")
    assert len(ax.collections) == 4
    rows = run.depth[(run.depth.metric == "overlap_ratio") & (run.depth.states == "on-policy")]
    last = rows[rows.label == "step 100"]
    band, interval = (of.get_paths()[0].vertices[:, 1] for of in ax.collections[2:])
    assert [band.min(), band.max()] == pytest.approx([last.band_low.min(), last.band_high.max()])
    assert [interval.min(), interval.max()] == pytest.approx([last.ci_low.min(), last.ci_high.max()])
    assert "lighter: whole curve" in ax.get_xlabel()
    other = metric_by_depth(run.depth, "student_entropy")
    assert len(other.collections) == 2
    assert "shaded" not in other.get_xlabel()
    assert not metric_by_depth(one_prompt.depth, "overlap_ratio").collections


def test_zero_is_on_the_axis_where_it_is_a_bound(run):
    assert metric_by_depth(run.depth, "reverse_kl").get_ylim()[0] == 0
    assert metric_by_depth(run.depth, "overlap_token_advantage").get_ylim()[1] == 0


def test_undefined_everywhere_is_said(run):
    ax = metric_by_depth(run.depth.assign(value=float("nan")), "reverse_kl")
    assert ax.texts[0].get_text().startswith("undefined")
    assert not ax.lines
    ax.get_figure().draw_without_rendering()


def test_one_bin_is_a_point(run):
    ax = metric_by_depth(run.depth[run.depth.depth_low == 0], "reverse_kl")
    assert [len(line.get_xdata()) for line in ax.lines] == [1] * 5
    ax.get_figure().draw_without_rendering()
