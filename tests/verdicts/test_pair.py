"""Rules on the pair: masses, entropies, and whether teacher and student differ at all."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run, without

NAN = math.nan


def verdict(name, tables, *, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=True, thresholds=thresholds)}[name]


@pytest.mark.parametrize(
    ("student", "teacher", "status", "value"),
    [
        (0.95, 0.93, "pass", 0.93),
        (0.95, 0.88, "warn", 0.88),
        (0.5, 0.99, "warn", 0.5),
        (0.92, 0.97, "pass", 0.92),
        (0.905, 0.97, "unknown", 0.905),
        (0.97, 0.895, "unknown", 0.895),
    ],
)
def test_masses_are_judged_by_the_lower(student, teacher, status, value):
    first = {"student_overlap_mass": (student, 0.9, 0.99), "teacher_overlap_mass": (teacher, 0.9, 0.99)}
    last = {"student_overlap_mass": (0.1, 0.2, student), "teacher_overlap_mass": (0.1, 0.2, teacher)}
    before, after = verdict("patterns_compatible", run(first)), verdict("shared_mass", run(last))
    for found, label in ((before, "step 0"), (after, "step 20")):
        assert (found.status, found.value) == (status, value)
        assert found.threshold == DEFAULTS.shared_mass
        word = {"pass": "Their patterns are alike: at", "warn": "Their patterns differ: at"}.get(status, "At")
        asked = word if found is before else "At"
        only = "only " if status == "warn" else ""
        assert found.evidence.startswith(f"{asked} {label} the tokens shared at k = 16 hold {only}{student:.2f} [")
        shown = [student, student - 0.01, student + 0.01, teacher, teacher - 0.01, teacher + 0.01]
        assert numbers_in(found.evidence)[:6] == pytest.approx(shown, abs=0.0051)
        assert "640 own states, 32 prompts" in found.evidence
        assert ("would tell" in found.evidence) is (status == "unknown")
    assert numbers_in(before.evidence.split("reverse KL")[1])[0] == 1.0


def test_step_zero_stands_beside_what_says_nothing_and_what_says_all():
    found = verdict("patterns_compatible", run()).evidence
    assert "overlap ratio 0.40 [0.39, 0.41] (0.030 by chance, 0.120 with a shuffled teacher, 0.990 in another" in found
    alone = verdict("patterns_compatible", replace(run(), baselines=pd.DataFrame())).evidence
    assert "overlap ratio 0.40 [0.39, 0.41], entropy gap" in alone


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ((0.8, 0.6, 0.4), "pass"),
        ((0.4, 0.6, 0.8), "fail"),
        ((0.4, 0.4, 0.4), "warn"),
        ((0.4, 0.39, 0.375), "unknown"),
        ((0.03, 0.03, 0.03), "pass"),
        ((0.01, 0.02, 0.035), "pass"),
        ((0.01, 0.03, 0.055), "unknown"),
        ((0.01, 0.03, 0.07), "fail"),
        ((0.8, 0.1, 0.2, 0.3, 0.7), "unknown"),
    ],
)
def test_entropy_gap(values, status):
    found = verdict("entropy_gap", run({"entropy_gap": values}, checkpoints=len(values)))
    assert found.status == status
    assert found.value == pytest.approx(values[-1] - values[0])
    assert ("it is small" in found.evidence) is (values[-1] < 0.04)


@pytest.mark.parametrize(("difference", "words"), [(-0.25, "nats sharper"), (0.25, "nats flatter")])
def test_entropy_gap_says_which_side(difference, words):
    evidence = verdict("entropy_gap", run({"entropy_difference": (0.1, 0.1, difference)})).evidence
    assert words in evidence
    assert numbers_in(evidence)[-1] == 0.25


def test_an_entropy_gap_that_depends_on_the_average_does_not_pass():
    marks = {"depends_on_average": {"entropy_gap": True}}
    assert verdict("entropy_gap", run(marks=marks)).status == "unknown"
    assert verdict("entropy_gap", run({"entropy_gap": (0.03,)}, marks=marks)).status == "pass"


@pytest.mark.parametrize(
    ("kl", "error", "status", "word"),
    [
        (0.5, 0.01, "pass", "They differ"),
        (0.005, 0.002, "warn", "No difference"),
        (0.005, 0.02, "unknown", "Inconclusive"),
        (0.012, 0.01, "unknown", "Inconclusive"),
        (0.5, NAN, "unknown", "32 prompts give no interval"),
    ],
)
def test_indistinguishable_teacher(kl, error, status, word):
    found = verdict("indistinguishable_teacher", run({"reverse_kl": (kl,)}, error={"reverse_kl": error}))
    assert found.status == status
    assert found.evidence.startswith(word)
    assert ("would tell" in found.evidence) is (word == "Inconclusive")


def test_a_difference_that_rounding_can_make_is_none():
    tables = run({"reverse_kl": (0.05,)})
    assert verdict("indistinguishable_teacher", tables).status == "pass"
    rounded = replace(tables, summary=tables.summary.assign(floor=0.04))
    assert verdict("indistinguishable_teacher", rounded).status == "warn"


@pytest.mark.parametrize("name", ["patterns_compatible", "shared_mass"])
def test_masses_that_an_older_report_lacks(name):
    found = verdict(name, without(run(), "teacher_overlap_mass"))
    assert found.status == "unknown"
    assert "teacher_overlap_mass" in found.evidence


@pytest.mark.parametrize(
    ("name", "field", "value", "tables", "before", "after"),
    [
        ("shared_mass", "shared_mass", 0.99, {}, "pass", "warn"),
        ("patterns_compatible", "shared_mass", 0.99, {}, "pass", "warn"),
        ("entropy_gap", "entropy_gap_change", 0.5, {}, "pass", "warn"),
        ("entropy_gap", "entropy_gap_small", 0.45, {"entropy_gap": (0.1, 0.2, 0.4)}, "fail", "pass"),
        ("indistinguishable_teacher", "indistinguishable_kl", 2.0, {}, "pass", "warn"),
    ],
)
def test_thresholds_decide(name, field, value, tables, before, after):
    made = run(tables)
    assert verdict(name, made).status == before
    assert verdict(name, made, thresholds=Thresholds(**{field: value})).status == after
