"""Rules on teachers side by side, on rows made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag import stats
from opd_diag.tables.teachers import DISTANCE_COLUMNS
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.teachers import likeness, pulled_back, teachers_alike

NAN = math.nan


def row(first="a", second="b", kl=(0.5, 0.4, 0.6), relative=(0.8, 0.7, 0.9), correlation=(0.5, 0.4, 0.6), prompts=40):
    alike = (0.9, 0.8, 1.0)
    cells = [first, second, *kl, *relative, *alike, *correlation, NAN, NAN, NAN, NAN, NAN, 900, prompts]
    return pd.Series(dict(zip(DISTANCE_COLUMNS, cells, strict=True)))


def lead(value, low, high):
    return stats.Estimate(value, low, high, (high - low) / 4, 40, 40, 0, degrees_of_freedom=39.0)


@pytest.mark.parametrize(
    ("relative", "kl", "outcome", "status"),
    [
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "different", "pass"),
        ((0.05, 0.03, 0.07), (0.5, 0.4, 0.6), "equivalent", "warn"),
        ((0.8, 0.7, 0.9), (0.002, 0.001, 0.003), "inconclusive", "unknown"),
        ((0.1, 0.02, 0.18), (0.002, 0.001, 0.003), "equivalent", "warn"),
        ((NAN, NAN, NAN), (0.0, 0.0, 0.0), "equivalent", "warn"),
        ((0.1, 0.05, 0.15), (0.5, 0.4, 0.6), "inconclusive", "unknown"),
        ((0.8, 0.7, 0.9), (0.01, 0.005, 0.015), "inconclusive", "unknown"),
        ((0.8, NAN, NAN), (0.5, NAN, NAN), "inconclusive", "unknown"),
        ((0.0, NAN, NAN), (0.0, NAN, NAN), "inconclusive", "unknown"),
    ],
)
def test_three_answers(relative, kl, outcome, status):
    found = row(relative=relative, kl=kl)
    assert likeness(found, DEFAULTS)[1] == outcome
    assert teachers_alike(found, DEFAULTS).status == status


def test_copies_without_any_distance_are_equivalent():
    found = row(relative=(0.0, 0.0, 0.0), kl=(0.0, 0.0, 0.0))
    assert teachers_alike(found, DEFAULTS).status == "warn"


def test_evidence():
    assert teachers_alike(row(), DEFAULTS).evidence == (
        "They differ at δ = 0.1: at the student's states the KL between a and b, 0.50 [0.40, 0.60] nats, is "
        "0.80 [0.70, 0.90] of their mean distance from the student, and what they would reward correlates by "
        "0.50 [0.40, 0.60] (900 states, 40 prompts)."
    )
    few = teachers_alike(row(relative=(0.8, NAN, NAN), kl=(0.5, NAN, NAN), prompts=3), DEFAULTS)
    assert few.evidence.endswith("3 prompts); 3 prompts are too few, at least 5 are needed.")
    open_ = teachers_alike(row(relative=(0.08, 0.03, 0.13)), DEFAULTS)
    assert open_.evidence.endswith("prompts would tell.")


def test_what_is_tiny_altogether_is_said_to_be():
    found = teachers_alike(row(relative=(0.8, 0.7, 0.9), kl=(0.002, 0.001, 0.003)), DEFAULTS)
    assert found.evidence.endswith("all of it is within 0.01 nats or so, which counts as no difference.")


def test_fewest_prompts_are_held():
    limits = Thresholds.from_mapping({"prompts": 50})
    assert teachers_alike(row(), limits).status == "unknown"
    assert "40 prompts are too few, at least 50 are needed" in teachers_alike(row(), limits).evidence
    assert pulled_back("big", "past", ROWS, BETTER, limits).status == "unknown"


ROWS = pd.DataFrame(
    [
        row("s", "past", kl=(0.3, 0.2, 0.4), relative=(NAN,) * 3, correlation=(NAN,) * 3),
        row("s", "big", kl=(0.4, 0.3, 0.5), relative=(NAN,) * 3, correlation=(NAN,) * 3),
        row("big", "past"),
    ]
)
ALIKE = pd.concat([ROWS.iloc[:2], row("big", "past", relative=(0.02, 0.01, 0.03)).to_frame().T], ignore_index=True)
BETTER, WORSE, OPEN = lead(0.2, 0.1, 0.3), lead(-0.2, -0.3, -0.1), lead(0.0, -0.1, 0.1)


@pytest.mark.parametrize(
    ("teacher", "rows", "of", "status"),
    [
        ("big", ROWS, BETTER, "pass"),
        ("big", ROWS, WORSE, "fail"),
        ("big", ROWS, OPEN, "unknown"),
        ("big", ROWS, None, "unknown"),
        ("big", ALIKE, None, "fail"),
        ("big", ALIKE, OPEN, "fail"),
        ("big", ALIKE, BETTER, "unknown"),
        ("past", ROWS, None, "fail"),
        ("past", ROWS, WORSE, "fail"),
        ("past", ROWS, BETTER, "unknown"),
    ],
)
def test_back_or_not(teacher, rows, of, status):
    found = pulled_back(teacher, "past", rows, of, DEFAULTS)
    assert found.status == status
    assert "the student's own past is 0.30 [0.20, 0.40] nats away" in found.evidence


def test_a_student_that_did_not_move_has_no_way_back():
    still = ROWS.assign(symmetric_kl_ci_low=0.0)
    found = pulled_back("big", "past", still, WORSE, DEFAULTS)
    assert found.status == "unknown"
    assert "no way back to speak of" in found.evidence


class TestBehindServers:
    """Two teachers that were not held against each other, as one stands behind a server."""

    def test_alike_or_not_is_left_open_with_what_is_known(self):
        found = teachers_alike(row(kl=(NAN,) * 3, relative=(NAN,) * 3), DEFAULTS)
        assert found.status == "unknown"
        assert found.evidence == (
            "Not known: a teacher behind a server is not held against another one in full. At the student's states the "
            "top tokens of a and b overlap by 0.90 [0.80, 1.00], and what they would reward correlates by 0.50 "
            "[0.40, 0.60] (900 states, 40 prompts)."
        )
        assert found.advice == "Read both numbers, or load both teachers here: then the KL between them is known."

    @pytest.mark.parametrize(("of", "status"), [(WORSE, "fail"), (lead(0.3, 0.2, 0.4), "unknown"), (None, "unknown")])
    def test_pulled_back_hangs_on_accuracy_alone(self, of, status):
        past = row("s", "past", kl=(0.3, 0.2, 0.4), relative=(NAN,) * 3, correlation=(NAN,) * 3)
        pair = row("big", "past", kl=(NAN,) * 3, relative=(NAN,) * 3)
        found = pulled_back("big", "past", pd.DataFrame([past, pair]), of, DEFAULTS)
        assert found.status == status
        assert (
            "big is not held against past in full, as one of them stands behind a server (their top tokens overlap by "
            "0.90 [0.80, 1.00], rewards correlate by 0.50 [0.40, 0.60])"
        ) in found.evidence
        if status == "unknown":
            assert found.advice == (
                "Give answers in the prompts file, more prompts, or more responses."
                if of is None
                else "Read both numbers, or load both teachers here: then the KL between them is known."
            )

    def test_a_past_behind_a_server_is_far_where_its_lower_bound_is(self):
        past = row("s", "past", kl=(NAN, 0.2, math.inf), relative=(NAN,) * 3, correlation=(NAN,) * 3)
        past["bound_low"], past["bound_high"] = 0.3, math.inf
        found = pulled_back("past", "past", pd.DataFrame([past]), WORSE, DEFAULTS)
        assert found.status == "fail"
        assert "the student's own past is at least 0.30 nats away from it" in found.evidence
