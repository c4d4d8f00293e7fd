"""How the pair moves on each state set, from tables made up for it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run

NAN = math.nan


def verdict(name, tables, *, known=True, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds)}[name]


ALIGNMENT = [
    pytest.param((0.4, 0.5, 0.6), (1.0, 0.6, 0.4), "pass", "progress", id="both better"),
    pytest.param((0.4, 0.4, 0.4), (1.0, 0.6, 0.4), "pass", "progress", id="KL alone"),
    pytest.param((0.4, 0.5, 0.6), (1.0, 1.0, 1.0), "pass", "progress", id="overlap alone"),
    pytest.param((0.6, 0.5, 0.4), (0.5, 0.7, 1.0), "fail", "regress", id="both worse"),
    pytest.param((0.4, 0.4, 0.4), (0.5, 0.7, 1.0), "fail", "regress", id="KL worse"),
    pytest.param((0.6, 0.5, 0.4), (1.0, 1.0, 1.0), "warn", "equivalent within δ = 0.02", id="overlap alone worse"),
    pytest.param((0.4, 0.5, 0.6), (0.5, 0.7, 1.0), "warn", "mixed", id="overlap better, KL worse"),
    pytest.param((0.6, 0.5, 0.4), (1.0, 0.6, 0.4), "warn", "mixed", id="overlap worse, KL better"),
    pytest.param((0.4, 0.4, 0.4), (1.0, 1.0, 1.0), "warn", "equivalent within δ = 0.02", id="nothing moves"),
    pytest.param(
        (0.4, 0.405, 0.415), (1.0, 0.99, 0.975), "unknown", "prompts would tell", id="around the least change"
    ),
    pytest.param((0.4,), (1.0, 0.2, 0.3, 0.4, 0.9), "unknown", "a fall, but no steady one", id="bounces"),
    pytest.param((0.4,), (0.9, 1.7, 1.6, 1.5, 1.0), "warn", "a rise, but no steady one", id="bounces up"),
    pytest.param(
        (0.4, 0.5, 0.6, 0.7, 0.8), (0.9, 1.7, 1.6, 1.5, 1.1), "warn", "mixed", id="overlap better, KL bounces up"
    ),
    pytest.param(
        (0.6, 0.2, 0.3, 0.25, 0.4), (1.0, 0.9, 0.8, 0.7, 0.6), "warn", "mixed", id="overlap bounces down, KL better"
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
    assert "not another seed" in found.caution
    assert found.value == pytest.approx(kl[-1] - kl[0])
    assert found.threshold == -DEFAULTS.reverse_kl_change
    assert "32 prompts" in found.evidence
    assert f"{len(kl)} checkpoints" in found.evidence


@pytest.mark.parametrize(("name", "states"), [("alignment_on_policy", "on-policy"), ("alignment_at_start", "start")])
def test_nothing_progresses_where_reverse_kl_is_not_known(name, states):
    """As where a masked id makes it infinite: a rise of the overlap ratio alone must not pass then."""
    tables = run()
    rows = (tables.differences["metric"] == "reverse_kl") & (tables.differences["states"] == states)
    tables.differences.loc[rows, ["value", "ci_low", "ci_high"]] = NAN
    found = verdict(name, tables)
    assert found.status == "unknown"
    assert "without an interval" in found.evidence
    if states == "on-policy":
        assert verdict("false_success", tables).status == "unknown"
        assert "no interval of reverse KL" in verdict("false_success", tables).evidence


WITHIN_FLOOR = {
    "alignment_on_policy": ({"overlap_ratio": (0.4, 0.5, 0.6), "reverse_kl": (1.0, 0.6, 0.4)}, "warn"),
    "alignment_at_start": ({"overlap_ratio": (0.6, 0.5, 0.4), "reverse_kl": (0.4, 0.6, 1.0)}, "warn"),
    "alignment_at_teacher": ({"forward_kl": (0.4, 0.6, 1.0)}, "warn"),
    "entropy_gap": ({"entropy_gap": (0.4, 0.6, 1.0)}, "warn"),
}


@pytest.mark.parametrize("name", WITHIN_FLOOR)
def test_what_rounding_can_make_neither_passes_nor_fails(name):
    moved, status = WITHIN_FLOOR[name]
    tables = run(moved, start=moved, teacher=moved)
    assert verdict(name, tables).status in ("pass", "fail")
    assert not verdict(name, tables).within_floor
    rounded = verdict(name, replace(tables, summary=tables.summary.assign(floor=0.35)))
    assert rounded.status == status
    assert rounded.within_floor
    assert "≈" in rounded.evidence


def test_an_interval_that_reaches_into_delta_establishes_nothing():
    moved = {"overlap_ratio": (0.4, 0.5, 0.6), "reverse_kl": (1.0, 0.7, 0.5)}
    errors = [(0.6, 0.6, "unknown"), (0.3, 0.47, "pass"), (0.3, 0.49, "unknown")]
    for overlap, kl, status in errors:
        tables = run(moved, error={"overlap_ratio": overlap, "reverse_kl": kl})
        assert verdict("alignment_on_policy", tables).status == status


def test_two_checkpoints_have_no_order_to_go_by():
    found = verdict("alignment_on_policy", run({"reverse_kl": (1.0, 0.5), "overlap_ratio": (0.4, 0.4)}, checkpoints=2))
    assert found.status == "pass"
    assert "τ" not in found.evidence
    assert numbers_in(verdict("alignment_on_policy", run()).evidence.split("τ")[1]) == [-1.0]


def test_five_checkpoints_have_an_order_with_a_p_value():
    kl = {"reverse_kl": (1.0, 0.8, 0.6, 0.5, 0.4), "overlap_ratio": (0.4,)}
    found = verdict("alignment_on_policy", run(kl, checkpoints=5))
    assert found.status == "pass"
    assert numbers_in(found.evidence.split("τ")[1]) == [-1.0, 0.01]


@pytest.mark.parametrize("name", ["alignment_on_policy", "alignment_at_start", "alignment_at_teacher"])
def test_what_depends_on_the_average_does_not_pass(name):
    marks = {"depends_on_average": {"reverse_kl": True, "forward_kl": True}}
    found = verdict(name, run(marks=marks))
    assert found.status == "unknown"
    assert "token, rollout and prompt averages lead to different conclusions" in found.evidence
    elsewhere = {"depends_on_average": {"entropy_gap": True}}
    assert verdict(name, run(marks=elsewhere)).status == "pass"


@pytest.mark.parametrize("name", ["alignment_on_policy", "alignment_at_start", "alignment_at_teacher"])
def test_primary_metrics_are_read_together(name):
    same = {"overlap_ratio": (0.4,)}
    for p, status in ((0.04, "pass"), (0.06, "unknown")):
        marks = {"p_adjusted": {"reverse_kl": p, "forward_kl": p}}
        assert verdict(name, run(same, marks=marks)).status == status


def test_evidence_shows_the_numbers():
    found = verdict("alignment_on_policy", run())
    path, shift = found.evidence.split("; ")
    assert numbers_in(path) == pytest.approx([1.0, 0.3, 0.4, 0.7])
    assert numbers_in(shift.split(", 32 prompts")[0]) == pytest.approx([-0.7, -0.71, -0.69, 0.3, 0.29, 0.31])


@pytest.mark.parametrize(
    ("last", "status", "share"),
    [
        (0.3, "pass", "all"),
        (0.45, "pass", "79%"),
        (0.6, "pass", "57%"),
        (0.75, "warn", "36%"),
        (0.97, "warn", "4%"),
        (1.5, "fail", "none"),
    ],
)
def test_how_much_holds_at_the_start(last, status, share):
    start = {"reverse_kl": (1.0, (1 + last) / 2, last), "overlap_ratio": (0.4, 0.4, 0.4)}
    found = verdict("alignment_at_start", run(None, start))
    assert found.status == status
    assert f"(policy change: {share} of the fall of reverse KL on own states)" in found.evidence
    assert ("in part" in found.evidence) is (status == "warn")


def test_share_is_left_out_where_own_states_do_not_progress():
    stalled = {"reverse_kl": (1.0, 1.0, 1.0), "overlap_ratio": (0.4, 0.4, 0.4)}
    found = verdict("alignment_at_start", run(stalled, {"reverse_kl": (1.0, 0.7, 0.5)}))
    assert found.status == "pass"
    assert "of the fall" not in found.evidence


def test_share_is_left_out_where_the_fall_on_own_states_is_within_its_error():
    own = {"reverse_kl": (1.0, 0.97, 0.95), "overlap_ratio": (0.4, 0.5, 0.6)}
    tables = run(own, {"reverse_kl": (1.0, 0.7, 0.5)}, error={"reverse_kl": 0.06})
    assert verdict("alignment_on_policy", tables).status == "pass"  # by the overlap ratio
    assert "of the fall" not in verdict("alignment_at_start", tables).evidence


def test_held_share_decides():
    made = run(None, {"reverse_kl": (1.0, 0.7, 0.5)})  # 5/7 of the fall holds
    assert verdict("alignment_at_start", made).status == "pass"
    assert verdict("alignment_at_start", made, thresholds=Thresholds(held_share=0.75)).status == "warn"


def test_a_state_change_within_its_error_takes_nothing_away():
    start = {"reverse_kl": (1.0, 0.8, 0.7), "overlap_ratio": (0.4, 0.5, 0.6)}  # 3/7 of the fall, the rest is -0.4
    assert verdict("alignment_at_start", run(None, start, error={"reverse_kl": 0.39})).status == "warn"
    assert verdict("alignment_at_start", run(None, start, error={"reverse_kl": 0.41})).status == "pass"


def test_the_start_says_how_the_change_splits():
    evidence = verdict("alignment_at_start", run(None, {"reverse_kl": (1.0, 0.7, 0.5)})).evidence
    policy, state = evidence.split(", policy ")[1].split(" and states ")
    assert numbers_in(policy) == pytest.approx([-0.5, -0.51, -0.49])
    assert numbers_in(state.split(", 32 prompts")[0]) == pytest.approx([-0.2, -0.21, -0.19])


def test_no_verdict_hangs_on_whether_back_was_scored():
    tables = run(None, {"reverse_kl": (1.0, 0.8, 0.7)})
    averaged = tables.split.assign(orders=2, value=0.0, ci_low=-1.0, ci_high=1.0)
    both = replace(tables, split=pd.concat([tables.split, averaged], ignore_index=True))
    assert judge(both, step_zero_known=True) == judge(tables, step_zero_known=True)


@pytest.mark.parametrize(
    ("kl", "status"),
    [
        ((1.0, 0.7, 0.5), "pass"),
        ((0.5, 0.7, 1.0), "fail"),
        ((1.0, 1.0, 1.0), "warn"),
        ((1.0, 0.995, 0.98), "unknown"),
        ((1.0, 0.2, 0.3, 0.4, 0.9), "unknown"),
        ((0.9, 1.7, 1.6, 1.5, 1.0), "fail"),
    ],
)
def test_alignment_at_the_teachers_states_goes_by_forward_kl(kl, status):
    opposite = tuple(reversed(kl))
    tables = run(None, None, {"forward_kl": kl, "reverse_kl": opposite}, checkpoints=len(kl))
    found = verdict("alignment_at_teacher", tables)
    assert found.status == status
    assert found.value == pytest.approx(kl[-1] - kl[0])
    assert "forward KL" in found.evidence
    assert "teacher state coverage 0.50 → 0.50" in found.evidence
    assert "32 prompts" in found.evidence


def test_coverage_that_was_not_looked_at_is_not_mentioned():
    found = verdict("alignment_at_teacher", run({"teacher_state_coverage": (NAN,)}))
    assert "coverage" not in found.evidence


def test_forward_kl_threshold_decides():
    found = verdict("alignment_at_teacher", run(), thresholds=Thresholds(forward_kl_change=0.9))
    assert found.status == "warn"
    assert found.evidence.endswith("equivalent within δ = 0.9.")
    assert found.threshold == -0.9


STILL = (1.0, 0.6, 0.301, 0.300, 0.302)


def states_with(tables, metric, means):
    """The same tables, a metric of all state sets with these means by checkpoint in the table of states."""
    states = tables.states.copy()
    by_label = dict(zip(dict.fromkeys(states["label"]), means, strict=True))
    states[metric] = states["label"].map(by_label) + 0.001 * np.cos(7.0 * states["prompt_index"])
    return replace(tables, states=states)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("alignment_on_policy", "reverse_kl"),
        ("alignment_at_start", "reverse_kl"),
        ("alignment_at_teacher", "forward_kl"),
    ],
)
def test_a_curve_that_stands_still_at_its_end_is_said_to(name, metric):
    tables = run({metric: (1.0, 0.6, 0.4, 0.35, 0.3)}, checkpoints=5)
    moving, still = (
        verdict(name, states_with(tables, metric, means)) for means in ((1.0, 0.8, 0.6, 0.4, 0.302), STILL)
    )
    assert still.status == moving.status == "pass"
    assert still.evidence.endswith(", and stands still since step 20, equivalent within δ = 0.02.")
    assert "stands still" not in moving.evidence
    level = verdict(name, states_with(tables, metric, (0.3,) * 5))
    assert "stands still" not in level.evidence, "no part of it moves"
    assert verdict(name, replace(tables, states=tables.states.iloc[:0])).evidence == moving.evidence
    assert verdict(name, tables).evidence == moving.evidence, "nothing is said where the states lack the metric"


def test_three_checkpoints_are_too_few_to_stand_still():
    tables = run({"reverse_kl": (1.0, 0.3, 0.3)})
    assert (
        "stands still" not in verdict("alignment_on_policy", states_with(tables, "reverse_kl", (1, 0.3, 0.3))).evidence
    )


@pytest.mark.parametrize(
    ("kl", "overlap", "said"),
    [
        ((1.0, 0.9, 0.85), (0.4,), "The progress on own states comes mostly from visiting other states"),
        ((1.0, 0.6, 0.4), (0.6, 0.5, 0.4), "Reverse KL and overlap ratio disagree there"),
    ],
    ids=["the state change", "mixed"],
)
def test_advice_at_the_starts_states_says_what_the_evidence_does(kl, overlap, said):
    own = {"reverse_kl": (1.0, 0.6, 0.4), "overlap_ratio": (0.4, 0.5, 0.6)}
    found = verdict("alignment_at_start", run(own, {"reverse_kl": kl, "overlap_ratio": overlap}))
    assert found.status == "warn"
    assert found.advice.startswith(said)
