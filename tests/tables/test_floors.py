"""Floors beside values, and which values and differences rounding alone may have made."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.floors import aligned_number, floors_of, is_near, is_small, near, with_floors

FLOORS = {
    "overlap_ratio": 0.01, "student_overlap_mass": 0.001, "reverse_kl": 1e-3, "entropy_difference": 0.01,
    "student_entropy": 0.05, "student_topk_mass": 0.01, "top1_agreement": math.nan,
}  # fmt: skip
CURVE = pd.DataFrame(
    {"label": ["a", "a", "b"], "states": "start", "k": [8, 16, 16], "student_topk_mass": [0.9, 0.97, 0.5]}
)


def summary(*rows):
    table = pd.DataFrame([{"label": "a", "states": "start", "k": pd.NA} | row for row in rows])
    return table.astype({"k": "Int64"})


def marked(metric, value, **about):
    table = with_floors(summary({"metric": metric, "value": value} | about), FLOORS, CURVE)
    assert list(table.columns[-2:]) == ["floor", "within_floor"]
    assert table["within_floor"].dtype == "boolean"
    mark = table["within_floor"].iloc[0]
    return None if mark is pd.NA else bool(mark)


@pytest.mark.parametrize(
    ("metric", "value", "mark"),
    [
        pytest.param("reverse_kl", 0.0015, True, id="a divergence near 0"),
        pytest.param("reverse_kl", 0.0025, False, id="a divergence beyond"),
        pytest.param("overlap_ratio", 0.985, True, id="a ratio near 1"),
        pytest.param("overlap_ratio", 0.97, False, id="a ratio below"),
        pytest.param("overlap_ratio", 0.005, False, id="a ratio near 0 is far from agreement"),
        pytest.param("entropy_difference", -0.015, True, id="a signed one near 0"),
        pytest.param("entropy_difference", -0.025, False, id="a signed one beyond"),
        pytest.param("student_entropy", 0.0, None, id="an entropy of one model"),
        pytest.param("student_topk_mass", 0.97, None, id="a mass of one model"),
        pytest.param("top1_agreement", 1.0, None, id="no floor"),
        pytest.param("accuracy", 1.0, None, id="a fact on responses"),
        pytest.param("reverse_kl", math.nan, None, id="no value"),
    ],
)
def test_values_near_agreement_are_marked(metric, value, mark):
    assert marked(metric, value) is mark


def test_an_overlap_mass_is_held_against_the_mass_of_the_own_tokens():
    assert marked("student_overlap_mass", 0.969, k=16) is True
    assert marked("student_overlap_mass", 0.96, k=16) is False
    assert marked("student_overlap_mass", 0.8985, k=8) is True
    assert marked("student_overlap_mass", 0.5, k=16, label="b") is True
    assert marked("student_overlap_mass", 0.97, k=10) is None  # not on the grid of the curve


def test_float32_is_never_finer_than_its_own_steps():
    assert is_near(1 - 2e-7, 1.0, floor=0.0)
    assert not is_near(1 - 3e-7, 1.0, floor=0.0)
    assert is_near(0.0, 0.0, floor=0.0)
    assert not is_near(1e-12, 0.0, floor=0.0)


def test_floors_stand_beside_every_row_of_their_metric():
    table = with_floors(
        summary({"metric": "reverse_kl", "value": 1.0}, {"metric": "accuracy", "value": 1.0}), FLOORS, CURVE
    )
    np.testing.assert_array_equal(table["floor"], [1e-3, math.nan])
    assert floors_of(table) == {"reverse_kl": 1e-3}


def test_without_floors_nothing_is_marked():
    table = with_floors(summary({"metric": "reverse_kl", "value": 0.0}), None, CURVE)
    assert table["floor"].isna().all()
    assert table["within_floor"].isna().all()
    assert floors_of(table) == {}


def test_a_table_made_by_hand_has_no_floor_and_no_mark():
    table = summary({"metric": "reverse_kl", "value": 0.0})
    assert floors_of(table) == {}
    assert near(table.iloc[0]) is False


def test_a_difference_is_small_up_to_two_floors_unless_it_is_none():
    assert is_small(0.002, floor=0.001)
    assert is_small(-0.002, floor=0.001)
    assert not is_small(0.0021, floor=0.001)
    assert not is_small(0.0, floor=0.001)
    assert not is_small(1e-9, floor=math.nan)
    assert not is_small(math.nan, floor=0.001)


def test_what_metrics_are_between_equal_models():
    assert aligned_number("reverse_kl") == 0.0
    assert aligned_number("overlap_ratio") == 1.0
    for name in ("student_entropy", "teacher_overlap_mass", "accuracy"):
        assert math.isnan(aligned_number(name))
