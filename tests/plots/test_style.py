from __future__ import annotations

import pandas as pd
import pytest

from opd_diag.plots.style import checkpoints_of, drawable, legend_below, new_axes, spread, step_colours, step_positions


def test_colours_tell_neighbours_apart_and_end_at_the_darkest():
    colours = step_colours(6)
    assert len(set(colours)) == 6
    assert colours[-1] == step_colours(1)[0]


@pytest.mark.parametrize("n", [1, 2, 6, 7, 200])
def test_spread_keeps_both_ends_and_repeats_none(n):
    items = [str(i) for i in range(n)]
    picked = spread(items, 6)
    assert len(picked) == min(n, 6)
    assert len(set(picked)) == len(picked)
    assert (picked[0], picked[-1]) == (items[0], items[-1])


def test_checkpoints_keep_the_order_of_the_rows():
    table = pd.DataFrame({"label": ["b", "a", "b"], "step": [1, 2, 1], "x": 0}).astype({"step": "Int64"})
    assert list(checkpoints_of(table).label) == ["b", "a"]


def test_ranks_when_one_step_is_unknown():
    table = pd.DataFrame({"label": ["step 20", "final"], "step": [20, pd.NA]}).astype({"step": "Int64"})
    positions = step_positions(new_axes(), table)
    assert dict(positions) == {"step 20": 0.0, "final": 1.0}


def test_everything_drawable_has_a_glyph():
    assert drawable("\x00\x1b\u202e🧪名") == "□" * 5
    assert drawable("_hidden").lstrip() == "_hidden"


def test_names_that_differ_at_their_end_alone_stay_apart():
    names = [f"run-with-a-very-long-name/checkpoint-{i}" for i in range(20)]
    assert len({drawable(name, 16) for name in names}) == 20
    assert all(len(drawable(name, most)) == most for name in names for most in (12, 16, 24))


def test_rows_of_a_legend_are_of_one_length():
    """Not five and one."""
    ax = new_axes()
    for i in range(6):
        ax.plot([0, 1], label=f"{i}000")
    legend_below(ax)
    ax.figure.draw_without_rendering()
    rows = [round(text.get_window_extent().y0) for text in ax.get_legend().get_texts()]
    assert sorted(map(rows.count, set(rows))) == [3, 3]
