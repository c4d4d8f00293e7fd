from __future__ import annotations

import numpy as np
import pytest

from opd_diag.plots import student_against_teacher_entropy


@pytest.fixture
def last(run):
    return run.states[run.states.label == "step 100"]


def test_every_state_is_counted_once(last):
    ax = student_against_teacher_entropy(last)
    assert ax.collections[0].get_array().sum() == (last.states == "on-policy").sum()


def test_states_beyond_the_axes_are_drawn_at_the_edge_and_counted(last):
    ax = student_against_teacher_entropy(last, limit=1.0)
    own = last[last.states == "on-policy"]
    beyond = ((own.student_entropy > 1) | (own.teacher_entropy > 1)).sum()
    assert f"{beyond:,} states" in ax.get_xlabel()
    assert ax.collections[0].get_array().sum() == len(own)


def test_diagonal_and_equal_axes(last):
    ax = student_against_teacher_entropy(last, limit=5.0)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [5, 5]])
    assert ax.get_aspect() == 1
    assert ax.get_xlim() == ax.get_ylim()
    assert "nats" in ax.get_xlabel()
    assert "nats" in ax.get_ylabel()


def test_teacher_is_on_the_horizontal_axis(last):
    flat_student = last.assign(student_entropy=4.0, teacher_entropy=1.0)
    ax = student_against_teacher_entropy(flat_student)
    ((x, y),) = ax.collections[0].get_offsets()
    assert x < y
    ax.get_figure().draw_without_rendering()


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_degenerate_states(last, value):
    ax = student_against_teacher_entropy(last.assign(student_entropy=value, teacher_entropy=value))
    ax.get_figure().draw_without_rendering()
    said = any("undefined" in t.get_text() for t in ax.texts)
    assert said == np.isnan(value)


def test_title_of_a_user_is_no_mathtext(last):
    ax = student_against_teacher_entropy(last, title="$\\frac{1$ \n")
    ax.get_figure().draw_without_rendering()
