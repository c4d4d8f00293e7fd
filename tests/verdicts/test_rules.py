"""All verdicts together: their order, what each needs, and that nothing missing breaks one."""

from __future__ import annotations

import functools
import math
from dataclasses import fields, replace

import pandas as pd
import pytest

from opd_diag.tables import METRIC_NAMES
from opd_diag.tables.responses import RESPONSE_METRICS
from opd_diag.verdicts import DEFAULTS, Thresholds, headline, judge

from .synthetic import PASSED, run, without

NAMES = [
    "healthy", "aligned_inputs", "false_success", "degeneration", "alignment_on_policy", "alignment_at_start",
    "alignment_at_teacher", "accuracy", "patterns_compatible", "indistinguishable_teacher", "new_capability",
    "sharpness", "termination", "concentrated_signal", "depth_decay", "shared_mass", "entropy_gap",
]  # fmt: skip
OF_TABLES = [name for name in NAMES if name not in ("healthy", "aligned_inputs")]
NEEDED = {
    "false_success": ("on-policy", "start"), "alignment_at_start": ("start",), "alignment_at_teacher": ("teacher",),
    "new_capability": ("on-policy", "teacher"), "depth_decay": ("on-policy", "teacher"),
}  # fmt: skip
"""State sets without which a verdict is unknown; own states where nothing is said."""
STEP_ZERO = [
    "false_success", "alignment_at_start", "patterns_compatible", "indistinguishable_teacher", "new_capability",
]  # fmt: skip
CHANGES = [
    "false_success", "alignment_on_policy", "alignment_at_start", "alignment_at_teacher", "accuracy", "entropy_gap",
]  # fmt: skip


@functools.cache
def sound():
    """Tables of a healthy run; nobody changes them."""
    return run()


def judged(tables, *, known=True, thresholds=DEFAULTS, selftests=PASSED):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds, selftests=selftests)}


def test_every_question_is_answered_in_a_fixed_order():
    verdicts = judge(run(), step_zero_known=True, selftests=PASSED)
    assert [v.name for v in verdicts] == NAMES
    assert [v.status for v in verdicts] == ["pass"] * len(NAMES)
    for v in verdicts:
        assert v.question.endswith("?")
        for sentence in (v.advice, v.evidence, v.caution):
            assert sentence.endswith("."), v.name
        assert "arXiv" in v.reference or "Ours" in v.reference, v.name
    assert headline(verdicts).status == "pass"


@pytest.mark.parametrize("name", [n for n in OF_TABLES if n != "degeneration"])
def test_values_lie_in_their_intervals(name):
    found = judged(sound())[name]
    assert found.ci_low < found.value < found.ci_high


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_said_to_be_of_one_run(name):
    assert "not another seed" in judged(sound())[name].caution


def test_step_zero_is_needed_by_some_and_no_others():
    sound, found = judged(run()), judged(run(), known=False)
    for name in OF_TABLES:
        if name not in STEP_ZERO:
            assert found[name] == sound[name]
            continue
        assert found[name].status == "unknown"
        assert "Step 0 is unknown" in found[name].evidence
        assert "--student" in found[name].advice
        assert all(math.isnan(getattr(found[name], f)) for f in ("value", "ci_low", "ci_high", "threshold"))


def test_too_few_prompts_are_no_evidence():
    few, enough = judged(run(prompts=4)), judged(run(prompts=5, depth=(0.5,) * 4, answers=(0.0, 1.0)))
    for name in OF_TABLES:
        assert few[name].status == "unknown", name
        assert "4 prompts" in few[name].evidence
        assert enough[name].status == "pass", name
    assert judged(run(prompts=1))["accuracy"].evidence.startswith("1 prompt is too few")


def test_how_few_can_be_set():
    found = judged(run(), thresholds=Thresholds(prompts=33))
    assert {found[name].status for name in OF_TABLES} == {"unknown"}


@pytest.mark.parametrize("name", CHANGES)
def test_one_checkpoint_cannot_be_compared(name):
    found = judged(run(checkpoints=1))[name]
    assert found.status == "unknown"
    assert "one checkpoint" in found.evidence


def test_one_checkpoint_has_its_levels():
    found = judged(run({"student_overlap_mass": (0.95,), "teacher_overlap_mass": (0.95,)}, checkpoints=1))
    assert {found[name].status for name in OF_TABLES if name not in CHANGES} == {"pass"}


@pytest.mark.parametrize(
    "scored", [("on-policy",), ("start",), ("teacher",), ("on-policy", "start"), ("start", "teacher")]
)
def test_states_that_were_not_scored_are_unknown(scored):
    found = judged(run(states=scored))
    for name in OF_TABLES:
        missing = [states for states in NEEDED.get(name, ("on-policy",)) if states not in scored]
        assert (found[name].status == "unknown") is bool(missing), name
        if missing:
            assert found[name].evidence == f"The {missing[0]} states were not scored."
            assert f"{missing[0]} in --states" in found[name].advice


@pytest.mark.parametrize("metric", [*METRIC_NAMES, *RESPONSE_METRICS])
def test_a_metric_that_is_missing_breaks_nothing_and_alarms_nobody(metric):
    verdicts = judge(without(sound(), metric), step_zero_known=True, selftests=PASSED)
    assert [v.name for v in verdicts] == NAMES
    assert {v.status for v in verdicts} <= {"pass", "unknown"}
    headline(verdicts)


@pytest.mark.parametrize("table", ["states", "rollouts", "differences", "split", "fits", "baselines", "summary"])
def test_a_table_that_is_empty_breaks_nothing_and_alarms_nobody(table):
    tables = sound()
    verdicts = judge(
        replace(tables, **{table: getattr(tables, table).iloc[:0]}), step_zero_known=True, selftests=PASSED
    )
    assert {v.status for v in verdicts} <= {"pass", "unknown"}
    headline(verdicts)


def test_tables_of_an_older_report_are_judged_as_far_as_they_go():
    tables = run()
    old = {f.name: pd.DataFrame() for f in fields(tables) if f.name in ("states", "rollouts", "fits", "baselines")}
    found = judged(replace(tables, **old), selftests=())
    unknown = {"healthy", "aligned_inputs", "new_capability", "sharpness", "depth_decay"}
    assert {name for name, v in found.items() if v.status != "pass"} == unknown
