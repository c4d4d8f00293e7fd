from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from opd_diag.plots import concentration_by_states, concentration_curves, overlap_ratio_curves
from opd_diag.plots.concentration import PAPER_LABEL
from plots.synthetic_run import SyntheticRun


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_one_line_a_step_with_the_values_of_the_table(run, which):
    ax = concentration_curves(run.concentration, which=which)
    rows = run.concentration[run.concentration.states == "on-policy"]
    assert len(ax.lines) == 5
    for line, label in zip(ax.lines, run.labels, strict=True):
        of_step = rows[rows.label == label]
        np.testing.assert_allclose(line.get_xdata(), of_step.k.astype(float))
        np.testing.assert_allclose(line.get_ydata(), of_step[f"{which}_overlap_mass"])
    ax.get_figure().draw_without_rendering()


def test_axis_is_in_powers_of_two(run):
    ax = concentration_curves(run.concentration)
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "4", "8", "16", "32", "64", "128"]
    assert ax.get_ylabel() == "probability"


def test_later_steps_are_darker(run):
    from matplotlib.colors import to_rgb

    ax = concentration_curves(run.concentration)
    lightness = [sum(to_rgb(line.get_color())) for line in ax.lines]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 5


def ends_of(area):
    vertices = area.get_paths()[0].vertices[:, 1]
    return vertices.min(), vertices.max()


@pytest.mark.parametrize("draw", [concentration_curves, overlap_ratio_curves])
def test_first_and_last_are_shaded_the_band_of_the_whole_curve_under_the_interval(run, draw):
    ax = draw(run.concentration)
    name = "student_overlap_mass" if draw is concentration_curves else "overlap_ratio"
    assert len(ax.collections) == 4
    for label, (band, interval) in zip(("step 0", "step 100"), (ax.collections[:2], ax.collections[2:]), strict=True):
        rows = run.concentration[(run.concentration.states == "on-policy") & (run.concentration.label == label)]
        for area, of in ((band, "band"), (interval, "ci")):
            assert ends_of(area) == pytest.approx((rows[f"{name}_{of}_low"].min(), rows[f"{name}_{of}_high"].max()))
        assert band.get_alpha() < interval.get_alpha()
    assert "\nshaded: each point, 95 %; lighter: whole curve, 95 %" in ax.get_xlabel()


def test_without_bands_one_shade_each_and_nothing_is_said_of_them(run):
    bare = run.concentration[[name for name in run.concentration if "_band_" not in name]]
    ax = concentration_curves(bare)
    assert len(ax.collections) == 2
    assert "whole curve" not in ax.get_xlabel()


def test_one_prompt_has_no_band(one_prompt):
    ax = concentration_curves(one_prompt.concentration)
    assert not ax.collections
    assert len(ax.lines) == 5


def test_range_of_the_paper_is_a_labelled_box_at_k_16(run):
    ax = concentration_curves(run.concentration)
    (box,) = [p for p in ax.patches if isinstance(p, Rectangle)]
    assert (box.get_y(), box.get_y() + box.get_height()) == pytest.approx((0.97, 0.99))
    assert 8 < box.get_x() < 16 < box.get_x() + box.get_width() < 32
    assert PAPER_LABEL in ax.get_xlabel()


def test_no_box_where_k_16_was_not_measured(run):
    ax = concentration_curves(run.concentration[run.concentration.k < 16])
    assert not ax.patches
    assert PAPER_LABEL not in ax.get_xlabel()


def test_overlap_ratio_has_no_box(run):
    ax = overlap_ratio_curves(run.concentration, states="start")
    rows = run.concentration[(run.concentration.states == "start") & (run.concentration.label == "step 100")]
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), rows.overlap_ratio)
    assert not ax.patches
    assert ax.get_ylim()[0] == 0


def test_many_steps_are_thinned_and_that_is_said():
    many = SyntheticRun(steps=range(0, 400, 10))
    ax = concentration_curves(many.concentration)
    assert len(ax.lines) == 6
    assert ax.get_legend().get_title().get_text() == "optimiser step (6 of 40 drawn)"
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert (texts[0], texts[-1]) == ("0", "390")


def test_unknown_steps_are_named_by_label(unknown_steps):
    ax = concentration_curves(unknown_steps.concentration)
    ax.get_figure().draw_without_rendering()
    assert [t.get_text() for t in ax.get_legend().get_texts()][-1] == "final"
    assert ax.get_legend().get_title().get_text() == "checkpoint"


def test_nothing_defined_is_said(run):
    table = run.concentration.assign(student_overlap_mass=float("nan"), student_overlap_mass_ci_low=float("nan"))
    ax = concentration_curves(table)
    assert ax.texts[0].get_text().startswith("undefined")
    assert not ax.patches
    ax.get_figure().draw_without_rendering()


def test_a_state_set_without_rows_is_said(run):
    ax = concentration_curves(run.concentration, states="teacher")
    assert ax.texts[0].get_text().startswith("undefined")
    ax.get_figure().draw_without_rendering()


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_the_last_curve_on_every_state_set_and_the_first_on_own(run, which):
    ax = concentration_by_states(run.concentration, which=which)
    column = f"{which}_overlap_mass"
    assert [line.get_label() for line in ax.lines] == ["step 0", "own states", "start's states"]
    of = [("step 0", "on-policy"), ("step 100", "on-policy"), ("step 100", "start")]
    for line, (label, states) in zip(ax.lines, of, strict=True):
        rows = run.concentration[(run.concentration.label == label) & (run.concentration.states == states)]
        np.testing.assert_allclose(line.get_ydata(), rows[column])
    assert len(ax.collections) == 2
    assert ends_of(ax.collections[0]) == pytest.approx(
        (rows_of(run, "on-policy")[f"{column}_ci_low"].min(), rows_of(run, "on-policy")[f"{column}_ci_high"].max())
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["step 0", "own states", "start's states"]
    assert ax.get_title(loc="left") == f"{which.capitalize()} overlap mass, step 100"


def rows_of(run, states):
    table = run.concentration
    return table[(table.label == "step 100") & (table.states == states)]


def test_one_checkpoint_has_no_line_of_before():
    ax = concentration_by_states(SyntheticRun(steps=[40]).concentration)
    assert [line.get_label() for line in ax.lines] == ["own states", "start's states"]


def test_by_states_says_when_nothing_is_defined(run):
    ax = concentration_by_states(run.concentration.assign(student_overlap_mass=float("nan")))
    assert not ax.lines
    assert ax.texts[0].get_text() == "undefined: no state has a value"
