"""Pictures of a study of depth, on their artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots import continuation_curves, metric_over_control
from opd_diag.plots.horizon import PREFIX_STYLES
from opd_diag.tables.continuations import CONTINUATION_COLUMNS, PREFIXES
from opd_diag.tables.excess import EXCESS_COLUMNS
from opd_diag.tables.horizon import SURVIVOR_COLUMNS


def excess(control="teacher", bins=6):
    rows = [
        (9, "step 9", "reverse_kl", control, 2 * i, 2 * i + 2, 0.5, 0.4, 0.6, 1.0 + i, 0.5 + i, 8, 16, 16)
        for i in range(bins)
    ]
    return pd.DataFrame(rows, columns=EXCESS_COLUMNS)


def survivors(depths=(0, 4, 8)):
    rows = [(9, "step 9", "on-policy", d, 16 - d, 8, 1 - d / 16) for d in depths]
    return pd.DataFrame(rows, columns=SURVIVOR_COLUMNS)


class TestMetricOverControl:
    def test_own_and_control_at_the_middle_of_each_bin(self):
        table = excess()
        ax = metric_over_control(table, survivors())
        assert [line.get_label() for line in ax.lines] == ["own responses", "teacher's own"]
        for line, name in zip(ax.lines, ("own", "than"), strict=True):
            assert line.get_xdata().tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]
            assert line.get_ydata().tolist() == table[name].tolist()
        assert ax.get_title(loc="left") == "Reverse KL, own and control"
        assert ax.get_ylim()[0] == 0.0

    def test_who_gets_that_far_stands_above(self):
        strip = metric_over_control(excess(), survivors()).child_axes[0]
        assert np.allclose(strip.lines[0].get_xydata(), survivors()[["depth", "survivors"]])

    def test_a_break_is_marked_with_its_interval(self):
        ax = metric_over_control(excess(), survivors(), (6, 5, 8))
        assert ax.lines[2].get_xdata() == [5.5, 5.5]  # between token 5 and token 6
        box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (box.x0, box.x1) == pytest.approx((4.5, 8.5))
        assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "break, 95 %"

    def test_another_checkpoint_is_named(self):
        ax = metric_over_control(excess("run $x$"), survivors())
        assert ax.lines[1].get_label() == r"run \$x\$'s own"

    def test_nothing_to_compare(self):
        ax = metric_over_control(excess(bins=0), survivors())
        assert ax.texts[0].get_text() == "no response of both is so long"


def continuations(kinds=PREFIXES):
    rows = [
        (kind, depth, "continuation_advantage", 0.3 - depth / 50, 0.1, 0.5, False, 9, 18, 72, 0.0)
        for kind in kinds
        for depth in ((0,) if kind == "none" else (4, 8))
    ]
    return pd.DataFrame(rows, columns=CONTINUATION_COLUMNS)


class TestContinuations:
    def test_every_kind_starts_from_the_empty_prefix(self):
        ax = continuation_curves(continuations())
        lines = ax.lines[: len(PREFIX_STYLES)]
        assert [line.get_label() for line in lines] == [style.name for style in PREFIX_STYLES.values()]
        for line in lines:
            assert line.get_xdata()[0] == 0.0
            assert np.allclose(line.get_xdata(), [0, 4, 8], atol=0.3)  # a little apart, so that intervals can be told
            assert np.allclose(line.get_ydata(), [0.3, 0.22, 0.14])

    def test_where_it_is_lost_is_marked(self):
        assert continuation_curves(continuations(), 4).lines[-1].get_xdata() == [4, 4]

    def test_kinds_that_were_not_tried_are_left_out(self):
        ax = continuation_curves(continuations(("none", "student", "filler")))
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["student's own", "filler"]

    def test_nothing_was_continued(self):
        ax = continuation_curves(continuations(()))
        assert ax.texts[0].get_text() == "nothing was continued that could be\ngraded"
