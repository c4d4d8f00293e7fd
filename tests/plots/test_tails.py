"""How far the farthest states are, on the artists of the picture."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots import tail_curves
from opd_diag.plots.tails import DECADES, MOST_POINTS
from opd_diag.report.svg import svg_of

INF, NAN = math.inf, math.nan


def states(*checkpoints, states="on-policy"):
    """One state a value, a checkpoint a list of values."""
    rows = [(i, f"step {i}", states, float(value)) for i, values in enumerate(checkpoints) for value in values]
    return pd.DataFrame(rows, columns=["step", "label", "states", "reverse_kl"]).astype({"step": "Int64"})


def curves_of(ax):
    return [line for line in ax.lines if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"]


def marks_of(ax):
    return [(line.get_marker(), *line.get_xydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]


def test_every_state_is_a_step_of_the_curve():
    ax = tail_curves(states([1.0, 2.0, 4.0, 8.0]))
    (line,) = curves_of(ax)
    assert line.get_drawstyle() == "steps-pre"
    assert line.get_xdata()[1:-1].tolist() == [1.0, 2.0, 4.0, 8.0]
    assert line.get_ydata()[:-1] == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.25])
    assert math.isnan(line.get_ydata()[-1])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_title(loc="left") == "Reverse KL, own states"
    assert "(nats)" in ax.get_xlabel()
    assert ax.get_ylabel() == "share of states at or above"


def test_percentiles_are_marked_on_the_curve():
    values = np.arange(1.0, 201.0)
    assert marks_of(tail_curves(states(values))) == [
        ("o", 100.0, pytest.approx(101 / 200)),
        ("s", 180.0, pytest.approx(21 / 200)),
        ("^", 198.0, pytest.approx(3 / 200)),
    ]
    assert [text.get_text() for text in tail_curves(states(values)).texts] == ["p50", "p90", "p99"]


@pytest.mark.parametrize(("n", "names"), [(9, ["p50"]), (10, ["p50", "p90"]), (99, ["p50", "p90"])])
def test_of_few_states_no_hundredth_and_no_tenth_is_marked(n, names):
    """Nor do the axes reach where none of them is."""
    ax = tail_curves(states(np.arange(1.0, n + 1)))
    assert [text.get_text() for text in ax.texts] == names
    assert [marker for marker, _, _ in marks_of(ax)] == ["o", "s"][: len(names)]
    assert ax.get_ylim()[0] == pytest.approx(0.7 / n)
    ax.figure.draw_without_rendering()


def test_each_curve_is_marked_as_its_own_number_of_states_allows():
    ax = tail_curves(states(np.arange(1.0, 201.0), np.arange(1.0, 51.0)))
    assert [marker for marker, _, _ in marks_of(ax)] == ["o", "s", "^", "o", "s"]
    assert [text.get_text() for text in ax.texts] == ["p50", "p90", "p99"]


def test_first_and_last_checkpoint_alone_are_drawn():
    ax = tail_curves(states([1.0, 2.0], [5.0, 6.0], [3.0, 4.0]))
    assert [line.get_xdata()[1:-1].tolist() for line in curves_of(ax)] == [[1.0, 2.0], [3.0, 4.0]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "2"]
    assert ax.get_legend().get_title().get_text() == "optimiser step (2 of 3 drawn)"


def test_pictures_of_one_table_have_the_same_axis():
    table = pd.concat([states([0.01, 1.0]), states([1.0, 90.0], states="start")])
    own, start = (tail_curves(table, states=of) for of in ("on-policy", "start"))
    assert own.get_xlim() == start.get_xlim() == (pytest.approx(0.01 / 1.5), pytest.approx(135.0))
    assert start.get_title(loc="left") == "Reverse KL, start's states"


def test_of_many_states_the_curve_goes_through_some_the_farthest_all():
    values = np.sort(np.random.default_rng(0).lognormal(size=20_000))
    ax = tail_curves(states(values))
    (line,) = curves_of(ax)
    x, share = line.get_xdata()[1:-1], line.get_ydata()[1:-1]
    assert len(x) <= MOST_POINTS
    assert share == pytest.approx([(values >= value).mean() for value in x])
    assert np.isin(values[-5:], x).all()
    assert len(svg_of(ax)) < 80_000


def test_what_lies_far_below_is_beyond_the_left_end():
    """Zeros too: the curve begins at the share of the states that are on the axis."""
    ax = tail_curves(states([0.0] * 60 + [1e-12] * 10 + [1.0] * 10 + [2.0] * 10 + [4.0] * 10))
    assert ax.get_xlim()[0] == pytest.approx(4.0 / 10**DECADES / 1.5)
    (line,) = curves_of(ax)
    assert sorted(set(line.get_xdata()[1:-1])) == [1.0, 2.0, 4.0]
    assert line.get_ydata()[0] == pytest.approx(0.3)
    assert [marker for marker, _, _ in marks_of(ax)] == ["s", "^"]  # p50 is 0


def test_infinite_states_are_beyond_every_value_and_counted():
    ax = tail_curves(states([1.0, 2.0, 3.0, 4.0], [1.0, INF, 3.0, INF]))
    first, last = curves_of(ax)
    assert math.isnan(first.get_ydata()[-1])
    assert (last.get_xdata()[-1], last.get_ydata()[-1]) == (ax.get_xlim()[1], 0.5)
    assert ax.get_xlabel().endswith("\ninfinite at 0 and 2 states")


def test_undefined_states_are_left_out():
    (line,) = curves_of(tail_curves(states([1.0, NAN, 3.0, NAN])))
    assert line.get_xdata()[1:-1].tolist() == [1.0, 3.0]
    assert line.get_ydata()[:-1] == pytest.approx([1.0, 1.0, 0.5])


def test_a_single_state_is_a_line_that_ends_at_it():
    ax = tail_curves(states([3.0]))
    (line,) = curves_of(ax)
    assert line.get_xdata()[1:-1].tolist() == [3.0]
    assert marks_of(ax) == [("o", 3.0, 1.0)]
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.0, 0.0], "0 at every state"), ([INF], "infinite at every state"), ([NAN], "undefined: no state defines it"),
     ([], "undefined: no state defines it")],
)  # fmt: skip
def test_what_no_curve_can_show_is_said(values, said):
    ax = tail_curves(states(values))
    assert [text.get_text() for text in ax.texts] == [said]
    assert not ax.lines
    ax.figure.draw_without_rendering()


def test_one_checkpoint_of_zeros_leaves_the_other():
    ax = tail_curves(states([0.0, 0.0], [1.0, 2.0]))
    first, last = curves_of(ax)
    assert set(first.get_ydata()[:-1]) == {0.0}
    assert last.get_xdata()[1:-1].tolist() == [1.0, 2.0]
    ax.figure.draw_without_rendering()
