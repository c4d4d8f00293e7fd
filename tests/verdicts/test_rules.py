"""Every rule at each of its answers, from tables made up for it."""

from __future__ import annotations

import math

import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run

NAN = math.nan
NAMES = [
    "false_success", "alignment_on_policy", "alignment_at_start", "alignment_at_teacher", "accuracy",
    "patterns_compatible", "shared_mass", "entropy_gap",
]  # fmt: skip
NEEDED = {
    "false_success": ("on-policy", "start"), "alignment_at_start": ("start",), "alignment_at_teacher": ("teacher",),
}  # fmt: skip
"""State sets without which a verdict is unknown; own states where nothing is said."""


def verdict(name, tables, *, known=True, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds)}[name]


def test_every_question_is_answered_in_a_fixed_order():
    verdicts = judge(run(), step_zero_known=True)
    assert [v.name for v in verdicts] == NAMES
    assert [v.status for v in verdicts] == ["pass"] * len(NAMES)
    for v in verdicts:
        assert v.question.endswith("?")
        assert v.advice.endswith(".")
        assert v.evidence.endswith(".")
        assert "arXiv" in v.reference
        assert math.isfinite(v.value)
        assert v.ci_low < v.value < v.ci_high


@pytest.mark.parametrize("name", ["false_success", "alignment_at_start", "patterns_compatible"])
def test_step_zero_is_needed(name):
    found = verdict(name, run(), known=False)
    assert found.status == "unknown"
    assert "Step 0 is unknown" in found.evidence
    assert "--student" in found.advice
    assert all(math.isnan(v) for v in (found.value, found.ci_low, found.ci_high, found.threshold))


@pytest.mark.parametrize(
    "name", ["alignment_on_policy", "alignment_at_teacher", "accuracy", "shared_mass", "entropy_gap"]
)
def test_step_zero_is_not_needed_by_others(name):
    assert verdict(name, run(), known=False) == verdict(name, run())


@pytest.mark.parametrize("name", NAMES)
def test_too_few_prompts_are_no_evidence(name):
    found = verdict(name, run(prompts=4))
    assert found.status == "unknown"
    assert found.evidence.startswith("4 prompts are too few")
    assert verdict(name, run(prompts=5)).status == "pass"


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("patterns_compatible", "shared_mass")])
def test_one_checkpoint_cannot_be_compared(name):
    found = verdict(name, run(checkpoints=1))
    assert found.status == "unknown"
    assert "one checkpoint" in found.evidence


@pytest.mark.parametrize("name", ["patterns_compatible", "shared_mass"])
def test_one_checkpoint_has_its_masses(name):
    assert verdict(name, run(checkpoints=1)).status == "pass"


@pytest.mark.parametrize(
    "scored", [("on-policy",), ("start",), ("teacher",), ("on-policy", "start"), ("start", "teacher")]
)
def test_states_that_were_not_scored_are_unknown(scored):
    verdicts = {v.name: v for v in judge(run(states=scored), step_zero_known=True)}
    for name in NAMES:
        missing = [states for states in NEEDED.get(name, ("on-policy",)) if states not in scored]
        assert (verdicts[name].status == "unknown") is bool(missing), name
        if missing:
            assert verdicts[name].evidence == f"The {missing[0]} states were not scored."
            assert f"{missing[0]} in --states" in verdicts[name].advice


@pytest.mark.parametrize(
    ("values", "status"),
    [((0.1, 0.3), "pass"), ((0.3, 0.1), "fail"), ((0.3, 0.3), "warn"), ((0.3, 0.315), "warn"), ((0.3, 0.285), "warn")],
)
def test_accuracy(values, status):
    found = verdict("accuracy", run({"accuracy": values}, checkpoints=2))
    assert found.status == status
    assert found.value == pytest.approx(values[1] - values[0])
    assert "accuracy" in found.evidence
    assert "32 prompts" in found.evidence


def test_accuracy_does_not_ask_for_an_order():
    assert verdict("accuracy", run({"accuracy": (0.3, 0.9, 0.8, 0.7, 0.4)}, checkpoints=5)).status == "pass"


def test_accuracy_within_its_error_is_no_gain():
    assert verdict("accuracy", run({"accuracy": (0.1, 0.2, 0.3)}, error={"accuracy": 0.25})).status == "warn"


def test_accuracy_without_answers():
    found = verdict("accuracy", run({"accuracy": (NAN, NAN, NAN)}))
    assert found.status == "unknown"
    assert "no reference answers" in found.evidence


@pytest.mark.parametrize(
    ("student", "teacher", "status", "value"),
    [(0.95, 0.93, "pass", 0.93), (0.95, 0.89, "warn", 0.89), (0.5, 0.99, "warn", 0.5), (0.90, 0.97, "pass", 0.90)],
)
def test_masses_are_judged_by_the_lower(student, teacher, status, value):
    first = {"student_overlap_mass": (student, 0.9, 0.99), "teacher_overlap_mass": (teacher, 0.9, 0.99)}
    last = {"student_overlap_mass": (0.1, 0.2, student), "teacher_overlap_mass": (0.1, 0.2, teacher)}
    before, after = verdict("patterns_compatible", run(first)), verdict("shared_mass", run(last))
    for found, label in ((before, "step 0"), (after, "step 20")):
        assert (found.status, found.value) == (status, value)
        assert found.threshold == DEFAULTS.shared_mass
        assert f"At {label} " in found.evidence
        shown = [student, student - 0.01, student + 0.01, teacher, teacher - 0.01, teacher + 0.01]
        assert numbers_in(found.evidence)[:6] == pytest.approx(shown, abs=0.005)
        assert "640 own states, 32 prompts" in found.evidence
    assert numbers_in(before.evidence.split("reverse KL")[1])[0] == 1.0


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ((0.8, 0.6, 0.4), "pass"),
        ((0.4, 0.6, 0.8), "fail"),
        ((0.4, 0.4, 0.4), "warn"),
        ((0.4, 0.39, 0.385), "warn"),
        ((0.05, 0.05, 0.05), "pass"),
        ((0.01, 0.02, 0.045), "pass"),
        ((0.01, 0.03, 0.06), "fail"),
        ((0.8, 0.1, 0.2, 0.3, 0.7), "warn"),
    ],
)
def test_entropy_gap(values, status):
    found = verdict("entropy_gap", run({"entropy_gap": values}, checkpoints=len(values)))
    assert found.status == status
    assert found.value == pytest.approx(values[-1] - values[0])


@pytest.mark.parametrize(("difference", "words"), [(-0.25, "nats sharper"), (0.25, "nats flatter")])
def test_entropy_gap_says_which_side(difference, words):
    evidence = verdict("entropy_gap", run({"entropy_difference": (0.1, 0.1, difference)})).evidence
    assert words in evidence
    assert numbers_in(evidence)[-1] == 0.25


@pytest.mark.parametrize(
    ("name", "field", "value", "tables", "before", "after"),
    [
        ("alignment_on_policy", "reverse_kl_change", 0.8, {"overlap_ratio": (0.4,) * 3}, "pass", "warn"),
        ("alignment_on_policy", "overlap_ratio_change", 0.4, {"reverse_kl": (1.0,) * 3}, "pass", "warn"),
        ("alignment_on_policy", "order", 0.5, {"reverse_kl": (1.0, 0.2, 0.9), "overlap_ratio": (0.4,)}, "pass", "warn"),
        ("alignment_on_policy", "prompts", 33, {}, "pass", "unknown"),
        ("accuracy", "accuracy_change", 0.6, {}, "pass", "warn"),
        ("shared_mass", "shared_mass", 0.99, {}, "pass", "warn"),
        ("patterns_compatible", "shared_mass", 0.99, {}, "pass", "warn"),
        ("entropy_gap", "entropy_gap_change", 0.5, {}, "pass", "warn"),
        ("entropy_gap", "entropy_gap_small", 0.4, {"entropy_gap": (0.1, 0.2, 0.3)}, "fail", "pass"),
    ],
)  # fmt: skip
def test_thresholds_decide(name, field, value, tables, before, after):
    made = run(tables)
    assert verdict(name, made).status == before
    assert verdict(name, made, thresholds=Thresholds(**{field: value})).status == after
