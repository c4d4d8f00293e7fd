"""Pictures of teachers, on their artists."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.plots import model_distances, teaching_conditions
from opd_diag.tables.teachers import DISTANCE_COLUMNS

NAN = math.nan


def placed(*rows):
    columns = ["teacher", "mass", "mass_ci_low", "mass_ci_high", "lead", "lead_ci_low", "lead_ci_high"]
    return pd.DataFrame(rows, columns=columns)


TWO = placed(("near $", 0.95, 0.93, 0.97, 0.3, 0.2, 0.4), ("far", 0.3, 0.2, 0.4, 0.4, 0.3, 0.5))


class TestConditions:
    def test_a_mark_a_teacher_with_both_intervals(self):
        ax = teaching_conditions(TWO, mass=0.9, lead=0.1)
        marks = [line.get_xydata()[0].tolist() for line in ax.lines[:2]]
        assert marks == [[0.95, 0.3], [0.3, 0.4]]
        spans = [s.tolist() for c in ax.collections for s in c.get_segments()]
        assert [[0.93, 0.3], [0.97, 0.3]] in spans
        assert [[0.95, 0.2], [0.95, 0.4]] in spans
        assert [t.get_text() for t in ax.texts][:2] == [r"near \$", "far"]

    def test_dashed_lines_stand_at_the_thresholds(self):
        ax = teaching_conditions(TWO, mass=0.9, lead=0.1)
        dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert dashed[0].get_xdata()[0] == 0.9
        assert dashed[1].get_ydata()[0] == 0.1

    def test_without_leads_there_is_one_axis(self):
        ax = teaching_conditions(placed(("a", 0.9, 0.8, 0.95, NAN, NAN, NAN)), mass=0.9, lead=0.1)
        assert ax.get_ylabel() == ""
        assert len(ax.get_yticks()) == 0

    def test_nothing(self):
        assert teaching_conditions(placed(), mass=0.9, lead=0.1).texts[0].get_text() == "no teacher was measured"


class TestDistances:
    def table(self):
        rest = [NAN] * 14
        rows = [
            ("s", "a", 0.5, 0.4, 0.6, *rest, 9, 9),
            ("s", "b", 4.0, 3.0, 5.0, *rest, 9, 9),
            ("a", "b", 0.001, 0.0, 0.0, *rest, 9, 9),
        ]
        return pd.DataFrame(rows, columns=DISTANCE_COLUMNS)

    def test_the_field_is_symmetric_and_says_its_numbers(self):
        ax = model_distances(self.table())
        field = np.asarray(ax.images[0].get_array())
        assert np.array_equal(field, field.T)
        assert field[0, 1] == pytest.approx(math.log10(0.5))
        assert field[0, 2] == field.max() == pytest.approx(math.log10(4))
        assert sorted(t.get_text() for t in ax.texts) == ["0.001", "0.001", "0.5", "0.5", "4", "4"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["s", "a", "b"]

    def test_what_a_top_k_leaves_open_is_at_least_and_what_was_not_measured_says_so(self):
        table = self.table().astype({"bound_low": float})
        table.loc[0, ["symmetric_kl", "bound_low"]] = NAN, 0.25
        table.loc[2, "symmetric_kl"] = NAN
        ax = model_distances(table)
        assert sorted(t.get_text() for t in ax.texts) == ["4", "4", *["not\nmeasured"] * 2, "≥ 0.25", "≥ 0.25"]
        assert np.asarray(ax.images[0].get_array())[0, 1] == pytest.approx(math.log10(0.25))

    def test_dark_fields_have_light_letters(self):
        texts = {t.get_text(): t.get_color() for t in model_distances(self.table()).texts}
        assert texts["4"] == "white"
        assert texts["0.001"] != "white"

    def test_nothing(self):
        empty = pd.DataFrame(columns=DISTANCE_COLUMNS)
        assert model_distances(empty).texts[0].get_text() == "nothing was measured"
