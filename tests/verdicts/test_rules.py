"""Every rule at each of its answers, from tables made up for it."""

from __future__ import annotations

import math

import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run

NAN = math.nan
NAMES = [
    "alignment_on_policy", "alignment_at_start", "accuracy", "patterns_compatible", "shared_mass", "entropy_gap",
]  # fmt: skip


def verdict(name, tables, *, known=True, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds)}[name]


def test_every_question_is_answered_in_a_fixed_order():
    verdicts = judge(run(), step_zero_known=True)
    assert [v.name for v in verdicts] == NAMES
    assert [v.status for v in verdicts] == ["pass"] * 6
    for v in verdicts:
        assert v.question.endswith("?")
        assert v.advice.endswith(".")
        assert v.evidence.endswith(".")
        assert "2604.13016" in v.reference
        assert math.isfinite(v.value)
        assert v.ci_low < v.value < v.ci_high


ALIGNMENT = [
    pytest.param((0.4, 0.5, 0.6), (1.0, 0.7, 0.5), "pass", "progress", id="both better"),
    pytest.param((0.4, 0.4, 0.4), (1.0, 0.7, 0.5), "pass", "progress", id="KL alone"),
    pytest.param((0.4, 0.5, 0.6), (1.0, 1.0, 1.0), "pass", "progress", id="overlap alone"),
    pytest.param((0.6, 0.5, 0.4), (0.5, 0.7, 1.0), "fail", "regress", id="both worse"),
    pytest.param((0.4, 0.4, 0.4), (0.5, 0.7, 1.0), "fail", "regress", id="KL worse"),
    pytest.param((0.6, 0.5, 0.4), (1.0, 1.0, 1.0), "warn", "no clear change", id="overlap alone worse"),
    pytest.param((0.4, 0.5, 0.6), (0.5, 0.7, 1.0), "warn", "mixed", id="overlap better, KL worse"),
    pytest.param((0.6, 0.5, 0.4), (1.0, 0.7, 0.5), "warn", "mixed", id="overlap worse, KL better"),
    pytest.param((0.4, 0.4, 0.4), (1.0, 1.0, 1.0), "warn", "no clear change", id="nothing moves"),
    pytest.param((0.4, 0.405, 0.415), (1.0, 0.99, 0.985), "warn", "no clear change", id="less than the least change"),
    pytest.param(
        (0.4, 0.4, 0.4), (1.0, 0.2, 0.3, 0.4, 0.9), "warn", "no clear change", id="against the order of the steps"
    ),
]


@pytest.mark.parametrize(("overlap", "kl", "status", "word"), ALIGNMENT)
@pytest.mark.parametrize(("name", "states"), [("alignment_on_policy", "on-policy"), ("alignment_at_start", "start")])
def test_alignment(name, states, overlap, kl, status, word):
    moved = {"overlap_ratio": overlap, "reverse_kl": kl}
    tables = run(moved, checkpoints=len(kl)) if states == "on-policy" else run(None, moved, checkpoints=len(kl))
    found = verdict(name, tables)
    if name == "alignment_at_start" and status == "pass" and kl[-1] == 1.0:
        status, word = "warn", "progress in part"  # nothing of the fall of the KL on own states holds
    assert found.status == status
    assert found.evidence.split(":")[0].endswith(word)
    assert found.value == pytest.approx(kl[-1] - kl[0])
    assert found.threshold == -DEFAULTS.reverse_kl_change
    assert "32 prompts" in found.evidence
    assert f"{len(kl)} checkpoints" in found.evidence


def test_an_interval_that_holds_0_establishes_nothing():
    moved = {"overlap_ratio": (0.4, 0.5, 0.6), "reverse_kl": (1.0, 0.7, 0.5)}
    assert verdict("alignment_on_policy", run(moved, error=0.6)).status == "warn"
    assert verdict("alignment_on_policy", run(moved, error={"overlap_ratio": 0.3, "reverse_kl": 0.4})).status == "pass"
    assert verdict("alignment_on_policy", run(moved, error={"overlap_ratio": 0.3, "reverse_kl": 0.5})).status == "warn"


def test_two_checkpoints_have_no_order_to_go_by():
    found = verdict("alignment_on_policy", run({"reverse_kl": (1.0, 0.5), "overlap_ratio": (0.4, 0.4)}, checkpoints=2))
    assert found.status == "pass"
    assert "τ" not in found.evidence
    assert numbers_in(verdict("alignment_on_policy", run()).evidence.split("τ")[1]) == [-1.0]


def test_evidence_shows_the_numbers():
    found = verdict("alignment_on_policy", run())
    path, shift = found.evidence.split("; ")
    assert numbers_in(path) == pytest.approx([1.0, 0.3, 0.4, 0.7])
    assert numbers_in(shift.split(", 32 prompts")[0]) == pytest.approx([-0.7, -0.71, -0.69, 0.3, 0.29, 0.31])


@pytest.mark.parametrize(
    ("last", "status", "share"),
    [(0.3, "pass", "all"), (0.6, "pass", "57%"), (0.75, "warn", "36%"), (0.97, "warn", "4%"), (1.5, "fail", "0%")],
)
def test_how_much_holds_at_the_start(last, status, share):
    start = {"reverse_kl": (1.0, (1 + last) / 2, last), "overlap_ratio": (0.4, 0.4, 0.4)}
    found = verdict("alignment_at_start", run(None, start))
    assert found.status == status
    assert f"({share} of the fall of reverse KL on own states)" in found.evidence
    assert ("in part" in found.evidence) is (status == "warn")


def test_share_is_left_out_where_own_states_do_not_progress():
    stalled = {"reverse_kl": (1.0, 1.0, 1.0), "overlap_ratio": (0.4, 0.4, 0.4)}
    found = verdict("alignment_at_start", run(stalled, {"reverse_kl": (1.0, 0.7, 0.5)}))
    assert found.status == "pass"
    assert "of the fall" not in found.evidence


@pytest.mark.parametrize("name", ["alignment_at_start", "patterns_compatible"])
def test_step_zero_is_needed(name):
    found = verdict(name, run(), known=False)
    assert found.status == "unknown"
    assert "Step 0 is unknown" in found.evidence
    assert "--student" in found.advice
    assert all(math.isnan(v) for v in (found.value, found.ci_low, found.ci_high, found.threshold))


@pytest.mark.parametrize("name", ["alignment_on_policy", "accuracy", "shared_mass", "entropy_gap"])
def test_step_zero_is_not_needed_by_others(name):
    assert verdict(name, run(), known=False) == verdict(name, run())


@pytest.mark.parametrize("name", NAMES)
def test_too_few_prompts_are_no_evidence(name):
    found = verdict(name, run(prompts=4))
    assert found.status == "unknown"
    assert found.evidence.startswith("4 prompts are too few")
    assert verdict(name, run(prompts=5)).status == "pass"


@pytest.mark.parametrize("name", ["alignment_on_policy", "alignment_at_start", "accuracy", "entropy_gap"])
def test_one_checkpoint_cannot_be_compared(name):
    found = verdict(name, run(checkpoints=1))
    assert found.status == "unknown"
    assert "one checkpoint" in found.evidence


@pytest.mark.parametrize("name", ["patterns_compatible", "shared_mass"])
def test_one_checkpoint_has_its_masses(name):
    assert verdict(name, run(checkpoints=1)).status == "pass"


@pytest.mark.parametrize("scored", [("on-policy",), ("start",)])
def test_states_that_were_not_scored_are_unknown(scored):
    verdicts = {v.name: v for v in judge(run(states=scored), step_zero_known=True)}
    missing = [name for name in NAMES if (name == "alignment_at_start") is (scored == ("on-policy",))]
    for name in NAMES:
        assert (verdicts[name].status == "unknown") is (name in missing), name
    other = "start" if scored == ("on-policy",) else "on-policy"
    for name in missing:
        assert verdicts[name].evidence == f"The {other} states were not scored."
        assert f"{other} in --states" in verdicts[name].advice


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


def test_held_share_decides():
    made = run(None, {"reverse_kl": (1.0, 0.7, 0.5)})  # 5/7 of the fall holds
    assert verdict("alignment_at_start", made).status == "pass"
    assert verdict("alignment_at_start", made, thresholds=Thresholds(held_share=0.75)).status == "warn"
