"""Reading the change of a metric, and when it counts as a rise or a fall."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from opd_diag.verdicts.evidence import Change, Part, change, is_scored, split_change, summary_row

from .synthetic import numbers_in, run

NAN = math.nan


def changed(difference, low, high, tau=NAN):
    return Change("reverse_kl", 1.0, 1.0 + difference, difference, low, high, tau, 32, 2 if math.isnan(tau) else 3)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(changed(0.5, 0.4, 0.6), 1, id="rise"),
        pytest.param(changed(-0.5, -0.6, -0.4), -1, id="fall"),
        pytest.param(changed(0.5, -0.1, 1.1), 0, id="interval holds 0"),
        pytest.param(changed(0.5, 0.0, 1.0), 0, id="interval ends at 0"),
        pytest.param(changed(0.05, 0.04, 0.06), 0, id="small"),
        pytest.param(changed(0.1, 0.04, 0.16), 1, id="just large enough"),
        pytest.param(changed(0.5, NAN, NAN), 0, id="no interval"),
        pytest.param(changed(NAN, NAN, NAN), 0, id="nothing"),
        pytest.param(changed(0.5, 0.4, 0.6, 1.0), 1, id="rise in order"),
        pytest.param(changed(0.5, 0.4, 0.6, 0.3), 1, id="rise, order just enough"),
        pytest.param(changed(0.5, 0.4, 0.6, 0.29), 0, id="rise out of order"),
        pytest.param(changed(0.5, 0.4, 0.6, -1.0), 0, id="rise against the order"),
        pytest.param(changed(-0.5, -0.6, -0.4, -0.3), -1, id="fall in order"),
        pytest.param(changed(-0.5, -0.6, -0.4, 0.3), 0, id="fall against the order"),
    ],
)
def test_direction(seen, expected):
    assert seen.direction(0.1, 0.3) == expected


@pytest.mark.parametrize(
    ("floor", "within"),
    [(0.2, False), (0.25, True), (NAN, False)],
)
def test_a_change_that_rounding_can_make_is_none(floor, within):
    seen = replace(changed(-0.5, -0.6, -0.4), floor=floor)
    assert seen.within_floor is within
    assert seen.direction(0.1, 0.3) == (0 if within else -1)
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


def test_change_reads_first_last_and_their_paired_difference():
    seen = change(run(checkpoints=3), "reverse_kl", "start")
    assert (seen.first, seen.last, seen.n_prompts, seen.n_checkpoints) == (1.0, 0.3, 32, 3)
    assert (seen.difference, seen.ci_low, seen.ci_high) == pytest.approx((-0.7, -0.71, -0.69))
    assert seen.tau == pytest.approx(-1)


def test_change_of_one_checkpoint():
    seen = change(run(checkpoints=1), "reverse_kl", "on-policy")
    assert (seen.first, seen.last, seen.n_checkpoints) == (0.3, 0.3, 1)
    assert all(math.isnan(v) for v in (seen.difference, seen.ci_low, seen.ci_high, seen.tau))
    assert seen.path.startswith("reverse KL")
    assert numbers_in(seen.path) == [0.3]


def test_change_of_what_was_not_scored():
    seen = change(run(states=("on-policy",)), "reverse_kl", "start")
    assert (seen.n_checkpoints, seen.n_prompts) == (0, 0)
    assert math.isnan(seen.last)
    assert seen.direction(0.0, 0.0) == 0


def test_sentence():
    seen = changed(-0.5, -0.625, -0.375)
    assert seen.path.startswith("reverse KL")
    assert numbers_in(seen.path) == pytest.approx([1.0, 0.5], abs=0.006)
    assert numbers_in(seen.shift) == pytest.approx([-0.5, -0.625, -0.375], abs=0.006)


def test_rows_by_place():
    tables = run()
    assert summary_row(tables, "overlap_ratio", "on-policy", 0)["value"] == 0.40
    assert summary_row(tables, "overlap_ratio", "on-policy", -1)["label"] == "step 20"
    assert is_scored(tables, "start")
    assert not is_scored(run(states=("on-policy",)), "start")
