"""Bounds against K, on the artists of the picture."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from opd_diag.errors import InputError
from opd_diag.plots import bounds_by_top
from opd_diag.plots.style import step_colours
from opd_diag.report.svg import svg_of
from opd_diag.tables.k_sweep import SWEEP_COLUMNS

TOPS = (1, 2, 4, 8, 16)
FAR, NEAR = 0.9, 0.3


def sweep(*, labels=("step 0", "step 10", "step 20"), tops=TOPS, states=("on-policy", "start"), endless=()):
    """Bounds that close in on a value that falls from checkpoint to checkpoint."""
    rows = []
    for i, label in enumerate(labels):
        for of in states:
            middle = FAR - (FAR - NEAR) * i / max(1, len(labels) - 1) + (of == "start")
            for top in tops:
                high = math.inf if top in endless else middle + 2 / top
                rows.append((10 * i, label, "big", of, "forward_kl", top, middle - 0.25 / top, high, 80))
    return pd.DataFrame(rows, columns=SWEEP_COLUMNS).astype({"step": "Int64"})


def areas(ax):
    return [c for c in ax.collections if isinstance(c, PolyCollection)]


def named(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_first_and_the_last_checkpoint_have_an_area_with_both_edges():
    ax = bounds_by_top(sweep())
    assert named(ax) == ["step 0", "step 20"]
    assert len(areas(ax)) == 2
    expected = [
        (side, [middle + share / top for top in TOPS])
        for side, middle in zip(step_colours(2), (FAR, NEAR), strict=True)
        for share in (-0.25, 2)
    ]
    found = [(line.get_color(), line.get_ydata()) for line in ax.lines]
    assert [colour for colour, _ in found] == [colour for colour, _ in expected]
    for (_, values), (_, truth) in zip(found, expected, strict=True):
        assert values == pytest.approx(truth)
    assert all(line.get_xdata().tolist() == [*TOPS] for line in ax.lines)
    corners = areas(ax)[1].get_paths()[0].vertices
    assert {*np.round(corners[corners[:, 0] == 4][:, 1], 9)} == {NEAR - 0.0625, NEAR + 0.5}


def test_what_it_is_about_is_written():
    ax = bounds_by_top(sweep())
    assert ax.get_title(loc="left") == "Forward KL, own states"
    assert ax.get_xlabel() == "K, ids that the server returns at each state"
    assert "(nats)" in ax.get_ylabel()
    assert ax.get_xscale() == "log"


def test_other_states_are_those_that_were_asked_for():
    ax = bounds_by_top(sweep(), states="start")
    assert ax.get_title(loc="left") == "Forward KL, start's states"
    assert ax.lines[0].get_ydata() == pytest.approx([1 + FAR - 0.25 / top for top in TOPS])


def test_a_single_checkpoint_is_drawn_once():
    ax = bounds_by_top(sweep(labels=("step 0",)))
    assert named(ax) == ["step 0"]
    assert (len(areas(ax)), len(ax.lines)) == (1, 2)


def test_without_an_upper_bound_there_is_the_lower_edge_alone_and_that_is_said():
    ax = bounds_by_top(sweep(endless=TOPS))
    assert areas(ax) == []
    assert len(ax.lines) == 2
    assert named(ax) == ["step 0, at least this: no upper bound", "step 20, at least this: no upper bound"]


def test_an_upper_bound_begins_where_there_is_one():
    ax = bounds_by_top(sweep(endless=(1, 2), labels=("step 0",)))
    low, high = ax.lines
    assert (low.get_xdata().tolist(), high.get_xdata().tolist()) == ([*TOPS], [4, 8, 16])
    assert areas(ax)[0].get_paths()[0].vertices[:, 0].min() == 4
    assert named(ax) == ["step 0"]


@pytest.mark.parametrize(
    ("tops", "shown"),
    [
        (TOPS, ["1", "2", "4", "8", "16"]),
        ((1, 2, 4, 8, 16, 20), ["1", "2", "4", "8", "20"]),
        ((64, 100, 128), ["64", "128"]),
        ((1,), ["1"]),
        ((2, 3), ["2", "3"]),
    ],
)
def test_ks_are_named_on_the_axis_where_there_is_room_and_the_last_one_always(tops, shown):
    ax = bounds_by_top(sweep(tops=tops))
    ax.get_figure(root=True).draw_without_rendering()
    assert [label.get_text() for label in ax.get_xticklabels()] == shown
    assert ax.lines[0].get_xdata().tolist() == [*tops]


def test_where_whole_distributions_were_seen_that_is_said():
    for ax in (
        bounds_by_top(sweep().iloc[:0]),
        bounds_by_top(sweep(), "reverse_kl"),
        bounds_by_top(sweep(), states="x"),
    ):
        (text,) = ax.texts
        assert text.get_text() == "whole distributions were seen"


def test_names_of_checkpoints_are_text_and_nothing_else():
    ax = bounds_by_top(sweep(labels=("_hidden $x^{", "<b>\x00" + "w" * 60)))
    assert named(ax) == [r" _hidden \$x^{", "<b>□wwwwwwww…wwwwwwwwwww"]
    assert "<b>" not in svg_of(ax)


def test_a_metric_that_does_not_exist():
    with pytest.raises(InputError):
        bounds_by_top(sweep(), "nonsense")
