"""Reading changes, rows and baselines off the tables, and saying them."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from opd_diag.verdicts.evidence import Change, Part, baseline, called, change, is_scored, row_at, said, split_change

from .synthetic import numbers_in, run, without

NAN = math.nan


def changed(difference, low, high, **more):
    return Change("reverse_kl", (1.0, 1.0 + difference), difference, low, high, 32, **more)


@pytest.mark.parametrize(("floor", "within"), [(0.2, False), (0.25, True), (NAN, False)])
def test_a_change_that_rounding_can_make_is_marked(floor, within):
    seen = changed(-0.5, -0.6, -0.4, floor=floor)
    assert seen.within_floor is within
    assert seen.shift.startswith("≈") is within


def test_a_part_that_rounding_can_make_has_not_fallen():
    assert Part(-0.5, -0.6, -0.4).fell
    assert Part(-0.5, -0.6, -0.4, floor=0.2).fell
    assert not Part(-0.5, -0.6, -0.4, floor=0.25).fell
    assert Part(-0.5, -0.6, -0.4, floor=0.25).said == "≈−0.50 [−0.60, −0.40]"


def test_floors_are_read_from_the_summary():
    tables = run()
    marked = replace(tables, summary=tables.summary.assign(floor=0.4))
    assert change(marked, "reverse_kl", "start").floor == 0.4
    assert change(marked, "reverse_kl", "start").within_floor
    assert split_change(marked, "reverse_kl", "policy_change").within_floor
    assert math.isnan(change(tables, "reverse_kl", "start").floor)


def test_change_reads_all_values_and_the_paired_difference():
    seen = change(run(checkpoints=3), "reverse_kl", "start")
    assert seen.values == (1.0, 0.6, 0.3)
    assert (seen.first, seen.last, seen.n_prompts, seen.n_checkpoints) == (1.0, 0.3, 32, 3)
    assert (seen.difference, seen.ci_low, seen.ci_high) == pytest.approx((-0.7, -0.71, -0.69))
    assert math.isnan(seen.p_adjusted)
    assert not seen.depends_on_average
    assert not seen.approximate


def test_change_reads_what_the_differences_say_of_themselves():
    marks = {"p_adjusted": {"reverse_kl": 0.03}, "depends_on_average": {"reverse_kl": True}}
    seen = change(run(marks=marks | {"approximate": {"reverse_kl": True}}), "reverse_kl", "start")
    assert (seen.p_adjusted, seen.depends_on_average, seen.approximate) == (0.03, True, True)
    other = change(run(marks=marks), "forward_kl", "start")
    assert math.isnan(other.p_adjusted)
    assert not other.depends_on_average


def test_older_tables_lack_these_columns():
    tables = run()
    older = tables.differences.drop(columns=["p_adjusted", "depends_on_average", "approximate"])
    assert change(replace(tables, differences=older), "reverse_kl", "start").difference == pytest.approx(-0.7)


def test_change_of_one_checkpoint():
    seen = change(run(checkpoints=1), "reverse_kl", "on-policy")
    assert (seen.first, seen.last, seen.n_checkpoints) == (0.3, 0.3, 1)
    assert all(math.isnan(v) for v in (seen.difference, seen.ci_low, seen.ci_high))
    assert seen.thin(5)
    assert seen.path.startswith("reverse KL")
    assert numbers_in(seen.path) == [0.3]


def test_change_of_what_was_not_scored():
    seen = change(run(states=("on-policy",)), "reverse_kl", "start")
    assert (seen.n_checkpoints, seen.n_prompts) == (0, 0)
    assert math.isnan(seen.last)
    assert seen.thin(0)


def test_sentence():
    seen = changed(-0.5, -0.625, -0.375)
    assert seen.path.startswith("reverse KL")
    assert numbers_in(seen.path) == pytest.approx([1.0, 0.5], abs=0.006)
    assert numbers_in(seen.shift) == pytest.approx([-0.5, -0.625, -0.375], abs=0.006)


def test_rows_by_place():
    tables = run()
    assert row_at(tables, "overlap_ratio", "on-policy", 0)["value"] == 0.40
    assert row_at(tables, "overlap_ratio", "on-policy", -1)["label"] == "step 20"
    assert is_scored(tables, "start")
    assert not is_scored(run(states=("on-policy",)), "start")


def test_a_row_that_is_not_there_or_undefined_is_none():
    assert row_at(run(states=("on-policy",)), "overlap_ratio", "start", 0) is None
    assert row_at(without(run(), "overlap_ratio"), "overlap_ratio", "on-policy", 0) is None
    assert row_at(run({"overlap_ratio": (NAN,)}), "overlap_ratio", "on-policy", -1) is None


def test_baselines_are_of_own_states_at_the_checkpoint():
    tables = run()
    assert baseline(tables, "overlap_ratio", "chance", "step 0")["value"] == 0.03
    assert baseline(tables, "overlap_ratio", "chance", "step 10") is None
    assert baseline(tables, "entropy_gap", "chance", "step 0") is None
    assert baseline(replace(tables, baselines=pd.DataFrame()), "overlap_ratio", "chance", "step 0") is None


def test_names_inside_a_sentence():
    assert called("reverse_kl") == "reverse KL"
    assert called("accuracy") == "accuracy"
    assert said(row_at(run(), "reverse_kl", "start", 0)) == "1.00 [0.99, 1.01]"
