"""Self-tests: what fails takes down what rests on it, and says why."""

from __future__ import annotations

import math

import pytest

from opd_diag.records.selftest import SelfTest
from opd_diag.verdicts import RESTS_ON, judge
from opd_diag.verdicts.inputs import aligned_inputs

from .synthetic import PASSED, run

ALL = ("self_teacher", "shift", "vocabulary", "template", "batches", "repeatability", "ends", "logprobs")


def failed(name, model="teacher"):
    return SelfTest(name, model, "fail", 1.0, 0.0, "It fits best at +1.", "Shift it back.")


def warned(name):
    return SelfTest(name, "teacher", "warn", 1.0, 0.0, "It stops by another.", "Give both the same.")


def judged(*selftests):
    return {v.name: v for v in judge(run(), step_zero_known=True, selftests=selftests)}


def test_every_verdict_but_two_rests_on_something():
    assert set(RESTS_ON) == set(judged()) - {"healthy", "aligned_inputs"}
    assert {name for tests in RESTS_ON.values() for name in tests} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_failed_self_test_makes_unknown_what_rests_on_it_and_nothing_else(name):
    sound, found = judged(*PASSED), judged(*PASSED, failed(name))
    for verdict, tests in RESTS_ON.items():
        if name in tests:
            assert found[verdict].status == "unknown", verdict
            assert f"{name} (teacher): It fits best at +1." in found[verdict].evidence
            assert found[verdict].advice == "Shift it back."
            assert math.isnan(found[verdict].value)
        else:
            assert found[verdict] == sound[verdict]
    assert found["aligned_inputs"].status == "fail"
    assert found["healthy"].status == "fail"


def test_what_could_not_be_asked_takes_nothing_down():
    unasked = SelfTest("shift", "teacher", "unknown", math.nan, math.nan, "Too short.", "Longer.")
    found = judged(*PASSED, unasked)
    assert found["alignment_on_policy"].status == "pass"
    assert found["aligned_inputs"].status == "pass"
    assert "1 could not be asked" in found["aligned_inputs"].evidence


@pytest.mark.parametrize("name", ["ends", "template"])
def test_what_is_of_the_pair_warns_and_takes_nothing_down(name):
    found, sound = judged(*PASSED, warned(name)), judged(*PASSED)
    assert found["aligned_inputs"].status == "warn"
    assert found["aligned_inputs"].evidence.startswith(f"Of {len(PASSED) + 1} self-tests 1 warned: {name} (")
    assert found["aligned_inputs"].advice == warned(name).advice
    kept = set(found) - {"aligned_inputs", "healthy"}
    assert all(found[name] == sound[name] for name in kept)
    assert judged(failed(name, "step 20"))["termination"].status == "unknown"


def test_beside_a_real_failure_the_pair_does_not_soften_it():
    found = judged(warned("template"), failed("shift"))["aligned_inputs"]
    assert found.status == "fail"
    assert found.advice == failed("shift").advice
    assert found.evidence.startswith("Of 2 self-tests 1 failed and 1 warned: shift (")


def test_several_failures_are_all_named():
    found = judged(failed("shift"), failed("template", "student and teacher"))
    assert "Of 2 self-tests 2 failed" in found["aligned_inputs"].evidence
    assert "template" in found["aligned_inputs"].evidence
    assert found["alignment_on_policy"].evidence.endswith("So did template.")


def test_without_self_tests_nobody_knows():
    found = aligned_inputs(())
    assert found.status == "unknown"
    assert "doctor" in found.advice
    unasked = aligned_inputs([SelfTest("shift", "t", "unknown", 0.0, 0.0, "No.", "")])
    assert (unasked.status, unasked.evidence) == ("unknown", "None of 1 self-tests could be asked.")
    assert aligned_inputs(PASSED).status == "pass"
