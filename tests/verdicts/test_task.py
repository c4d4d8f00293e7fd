"""Rules on the task: the student's gain and the teacher's lead."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run

NAN = math.nan


def verdict(name, tables, *, thresholds=DEFAULTS, known=True):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds)}[name]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ((0.1, 0.3), "pass"),
        ((0.3, 0.1), "fail"),
        ((0.3, 0.3), "warn"),
        ((0.3, 0.325), "unknown"),
        ((0.3, 0.275), "unknown"),
    ],
)
def test_accuracy(values, status):
    found = verdict("accuracy", run({"accuracy": values}, checkpoints=2))
    assert found.status == status
    assert found.value == pytest.approx(values[1] - values[0])
    assert "accuracy" in found.evidence
    assert "32 prompts" in found.evidence
    assert ("would tell" in found.evidence) is (status == "unknown")


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ((0.66, 0.01, 0.29, 0.74), 0.01, " (the teacher's {}), but 0.01 at step 10 on the way; difference"),
        ((0.66, 0.29, 0.01, 0.74), 0.01, " (the teacher's {}), but 0.01 at step 20 on the way; difference"),
        ((0.66, 0.70, 0.72, 0.74), 0.01, " of sampled responses (the teacher's {}); difference"),
        ((0.66, 0.60, 0.40, 0.30), 0.01, " of sampled responses (the teacher's {}); difference"),
        ((0.66, 0.01, 0.29, 0.74), 0.7, " of sampled responses (the teacher's {}); difference"),
    ],
)
def test_answers_lost_on_the_way_are_told(values, error, said):
    found = verdict("accuracy", run({"accuracy": values}, error={"accuracy": error}, checkpoints=4))
    assert said.format(f"{values[-1]:.2f}") in found.evidence  # here the teacher's responses are as good
    assert ("on the way" in found.evidence) is ("on the way" in said)


def test_accuracy_does_not_ask_for_an_order():
    assert verdict("accuracy", run({"accuracy": (0.3, 0.9, 0.8, 0.7, 0.4)}, checkpoints=5)).status == "pass"


def test_accuracy_within_its_error_is_unknown_with_the_prompts_it_would_take():
    found = verdict("accuracy", run({"accuracy": (0.1, 0.2, 0.3)}, error={"accuracy": 0.25}))
    assert found.status == "unknown"
    assert int(found.evidence.split("some ")[1].split(" prompts")[0]) > 32


def test_without_answers_nothing_is_said_of_the_task():
    tables = run({"accuracy": (NAN, NAN, NAN)}, answers=(NAN, NAN))
    for name in ("accuracy", "new_capability"):
        found = verdict(name, tables)
        assert found.status == "unknown"
        assert "no reference answers" in found.evidence
        assert "answers in the prompts file" in found.advice


@pytest.mark.parametrize(
    ("answers", "status"),
    [((0.25, 1.0), "pass"), ((0.5, 0.5), "warn"), ((1.0, 0.25), "warn"), ((0.5, 0.625), "unknown")],
)
def test_new_capability(answers, status):
    found = verdict("new_capability", run(answers=answers))
    assert found.status == status
    assert found.value == pytest.approx(answers[1] - answers[0])
    assert numbers_in(found.evidence)[:2] == pytest.approx(answers, abs=0.006)
    assert "32 prompts" in found.evidence


def test_the_lead_is_paired_by_prompt():
    """The same prompts answered: no error at all, where unpaired samples of 32 could tell nothing."""
    found = verdict("new_capability", run(answers=(0.5, 0.5)))
    assert (found.ci_low, found.ci_high) == (0.0, 0.0)


def test_the_lead_is_over_step_zero_alone():
    tables = run(answers=(0.25, 1.0))
    later = tables.rollouts.assign(label="step 20", is_correct=True)
    found = verdict("new_capability", replace(tables, rollouts=pd.concat([tables.rollouts, later])))
    assert found == verdict("new_capability", tables)


def test_a_task_that_nobody_solves_tells_nothing():
    """As where all responses are cut before their answer: that neither gains anything is no finding."""
    tables = run({"accuracy": (0.0,)}, answers=(0.0, 0.0))
    for name in ("accuracy", "new_capability"):
        found = verdict(name, tables)
        assert found.status == "unknown"
        assert found.evidence.startswith("No response of student or teacher is correct")
    assert verdict("accuracy", run({"accuracy": (0.0,)}, None, {"accuracy": (0.9,)})).status == "warn"
    assert verdict("accuracy", run({"accuracy": (0.6, 0.3, 0.0)}, None, {"accuracy": (0.0,)})).status == "fail"


def test_what_a_lead_must_be_can_be_set():
    tables = run(answers=(0.25, 1.0))
    assert verdict("new_capability", tables, thresholds=Thresholds(capability_change=0.99)).status == "warn"
    assert verdict("accuracy", run(), thresholds=Thresholds(accuracy_change=0.6)).status == "warn"


def test_a_lead_needs_rollouts_and_both_sets():
    assert verdict("new_capability", replace(run(), rollouts=pd.DataFrame())).status == "unknown"
    assert "teacher states" in verdict("new_capability", run(states=("on-policy", "start"))).evidence
    assert "Step 0" in verdict("new_capability", run(), known=False).evidence
