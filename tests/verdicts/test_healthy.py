"""The conjunction: everything that must pass, and nothing that alarms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from opd_diag.verdicts import judge
from opd_diag.verdicts.healthy import OF_THE_SETUP, PARTS, healthy
from opd_diag.verdicts.titles import TITLES

from .synthetic import PASSED, run


def parts(**statuses):
    """Verdicts of a healthy run, some with another status."""
    made = judge(run(), step_zero_known=True, selftests=PASSED)[1:]
    return [replace(v, status=statuses.get(v.name, v.status)) for v in made]


def test_a_healthy_run():
    found = healthy(parts())
    assert found.status == "pass"
    assert found.evidence == (
        "Aligned inputs, credibility of own states, soundness of responses, alignment on own states, alignment at the "
        "start's states and accuracy at the task passed, and nothing alarms."
    )


@pytest.mark.parametrize("name", [v.name for v in parts()])
@pytest.mark.parametrize("status", ["warn", "fail"])
def test_any_alarm_is_one(name, status):
    found = healthy(parts(**{name: status}))
    assert found.status == ("pass" if status == "warn" and name in OF_THE_SETUP else status)
    assert f"{TITLES[name]} {status}ed".lower() in found.evidence.lower()


def test_warnings_of_the_setup_are_said_and_are_no_alarm():
    found = healthy(parts(aligned_inputs="warn", patterns_compatible="warn"))
    assert found.status == "pass"
    assert found.evidence.endswith("; of the pair and its setup, aligned inputs and likeness before training warned.")
    assert "ligned inputs" not in found.evidence.split(";")[0]
    beside = healthy(parts(aligned_inputs="warn", shared_mass="warn"))
    assert beside.status == "warn"
    assert beside.evidence == "Mass on shared tokens warned; of the pair and its setup, aligned inputs warned."
    assert "setup" not in healthy(parts()).evidence
    assert healthy(parts(aligned_inputs="fail")).status == "fail"


@pytest.mark.parametrize("name", [v.name for v in parts()])
def test_an_unknown_part_leaves_it_open(name):
    found = healthy(parts(**{name: "unknown"}))
    assert found.status == ("unknown" if name in PARTS else "pass")


def test_a_failure_outweighs_a_warning_and_both_are_named():
    found = healthy(parts(degeneration="fail", shared_mass="warn"))
    assert found.status == "fail"
    assert found.evidence == "Soundness of responses failed; mass on shared tokens warned."


def test_without_answers_it_says_what_it_does_not_know():
    tables = run({"accuracy": (math.nan,)}, answers=(math.nan, math.nan))
    found = judge(tables, step_zero_known=True, selftests=PASSED)[0]
    assert found.status == "pass"
    assert "whether anything was learned at the task is not known" in found.evidence
