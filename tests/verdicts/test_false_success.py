"""When a run only looks like a success, and what it takes to say so."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import run

NAN = math.nan
RISES = {"reverse_kl": (1.0, 1.5, 2.0), "overlap_ratio": (0.4, 0.3, 0.2)}
"""At the start's states; on own states both get better."""
FORWARD = {"forward_kl": (1.0, 2.0, 3.0)}
"""At the teacher's states."""
UNSEEN = {"states": ("on-policy", "start")}


def verdict(tables, *, known=True, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=known, thresholds=thresholds)}["false_success"]


def made(*, start=RISES, teacher=None, entropy=(5.0,), accuracy=(0.3,), theirs=5.0, **options):
    own = {"unigram_entropy": entropy, "accuracy": accuracy}
    return run(own, start, {"forward_kl": (1.0,), "unigram_entropy": (theirs,)} | (teacher or {}), **options)


SIGNS = {
    "forward KL": {"teacher": FORWARD},
    "unigram entropy": {"entropy": (5.0, 3.0, 2.0)},
    "accuracy": {"accuracy": (0.6, 0.3, 0.1)},
}


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_suffices_where_progress_does_not_hold(sign):
    found = verdict(made(**SIGNS[sign]))
    assert found.status == "fail"
    assert "does not hold at the start's, and something gets worse" in found.evidence
    named = [name for name in SIGNS if name in found.evidence.split("; ", 1)[1]]
    assert named == [sign]
    assert "reverse KL 1.00 → 0.30 on own states, 1.00 → 2.00 at the start's" in found.evidence
    assert found.value == pytest.approx(-1.7)  # the state change: -0.7 in all, of which the policy +1.0


def test_all_signs_are_named():
    options = {name: value for sign in SIGNS.values() for name, value in sign.items()}
    evidence = verdict(made(**options)).evidence
    assert all(name in evidence for name in SIGNS)
    said = r"unigram entropy 5\.0+ → 2\.0+ of the responses \(the teacher's 5\.0+\), −3\.0+ "
    assert re.search(said, evidence)


@pytest.mark.parametrize("n", range(4))
def test_progress_that_holds_is_never_a_false_success(n):
    for chosen in itertools.combinations(SIGNS.values(), n):
        options = {name: value for sign in chosen for name, value in sign.items()}
        found = verdict(made(start=None, **options))
        assert found.status == ("warn" if chosen else "pass")
        assert "holds at the start" in found.evidence


def test_no_progress_is_no_success_and_so_no_false_one():
    own = {"reverse_kl": (1.0, 1.5, 2.0), "overlap_ratio": (0.4,), "accuracy": (0.6, 0.3, 0.1)}
    found = verdict(run(own, RISES, FORWARD))
    assert found.status == "pass"
    assert "No progress on own states" in found.evidence


def test_without_a_sign_it_is_a_warning():
    found = verdict(made())
    assert found.status == "warn"
    assert "nothing is seen to get worse" in found.evidence
    assert all(name in found.evidence for name in SIGNS)  # what was looked at


def test_without_the_teachers_states_nothing_is_known_unless_something_else_tells():
    found = verdict(made(**UNSEEN))
    assert found.status == "unknown"
    assert "teacher in --states" in found.advice
    assert "forward KL" not in found.evidence
    assert verdict(made(accuracy=(0.6, 0.3, 0.1), **UNSEEN)).status == "fail"
    assert verdict(made(start=None, **UNSEEN)).status == "pass"


@pytest.mark.parametrize(
    ("entropy", "theirs", "status"),
    [
        ((5.0, 4.5, 4.0), 5.0, "fail"),
        ((5.0, 4.5, 4.0), 4.2, "fail"),
        ((5.0, 4.5, 4.0), 4.0, "warn"),
        ((5.0, 4.5, 4.0), 3.0, "warn"),
        ((5.0, 4.97, 4.95), 6.0, "warn"),
        ((5.0, 5.5, 6.0), 9.0, "warn"),
        ((NAN,), 5.0, "warn"),
        ((5.0, 4.5, 4.0), NAN, "fail"),
    ],
)
def test_diversity_must_fall_and_fall_below_the_teachers(entropy, theirs, status):
    assert verdict(made(entropy=entropy, theirs=theirs)).status == status


def test_less_diversity_than_the_teachers_within_their_error_is_no_sign():
    options = {"entropy": (5.0, 4.5, 4.0), "theirs": 4.2}
    assert verdict(made(**options, error={"unigram_entropy": 0.09})).status == "fail"
    assert verdict(made(**options, error={"unigram_entropy": 0.11})).status == "warn"


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_within_its_error_is_none(sign):
    options = SIGNS[sign]
    metric = {"forward KL": "forward_kl", "unigram entropy": "unigram_entropy", "accuracy": "accuracy"}[sign]
    assert verdict(made(**options, error={metric: 9.0})).status == "warn"


@pytest.mark.parametrize(
    ("field", "value", "sign"),
    [
        ("forward_kl_change", 2.5, "forward KL"),
        ("unigram_entropy_change", 3.5, "unigram entropy"),
        ("accuracy_change", 0.6, "accuracy"),
    ],
)
def test_thresholds_decide(field, value, sign):
    assert verdict(made(**SIGNS[sign]), thresholds=Thresholds(**{field: value})).status == "warn"


@pytest.mark.parametrize(("last", "status"), [(0.3, "warn"), (0.36, "warn"), (0.38, "fail"), (0.9, "fail")])
def test_a_tenth_of_the_progress_from_other_states_is_suspect(last, status):
    """The fall on own states is 0.7: from .37 on, a tenth of it or more is state change."""
    start = {"reverse_kl": (1.0, (1 + last) / 2, last), "overlap_ratio": (0.4,)}
    found = verdict(made(start=start, teacher=FORWARD))
    assert found.status == status
    assert found.evidence.startswith("The progress on own states holds in part at the start's") is (status == "fail")


def test_the_share_that_is_suspect_can_be_set():
    start = {"reverse_kl": (1.0, 0.8, 0.6), "overlap_ratio": (0.4,)}  # 3/7 of the fall is state change
    assert verdict(made(start=start, teacher=FORWARD)).status == "fail"
    assert verdict(made(start=start, teacher=FORWARD), thresholds=Thresholds(state_share=0.5)).status == "warn"


def test_a_state_change_within_its_error_is_not_suspect():
    start = {"reverse_kl": (1.0, 0.8, 0.6), "overlap_ratio": (0.4,)}
    found = verdict(made(start=start, teacher=FORWARD, error={"reverse_kl": 0.31}))
    assert found.status == "warn"
    assert "holds at the start's, but" in found.evidence


def test_a_run_that_bounces_deceives_as_well():
    bouncing = {"reverse_kl": (3.0, 0.5, 1.0, 1.5, 2.0), "overlap_ratio": (0.4,), "accuracy": (0.6, 0.0)}
    verdicts = {v.name: v for v in judge(run(bouncing, RISES, FORWARD, checkpoints=5), step_zero_known=True)}
    assert verdicts["alignment_on_policy"].status == "unknown"
    assert verdicts["false_success"].status == "fail"


def test_a_run_that_bounces_at_the_starts_states_may_hold_as_well():
    bouncing = {"reverse_kl": (1.0, 0.1, 0.15, 0.2, 0.3), "overlap_ratio": (0.4,)}
    found = verdict(made(start=bouncing, teacher=FORWARD, checkpoints=5))
    assert found.status == "warn"
    assert "holds at the start's, but something gets worse" in found.evidence


def test_what_holds_in_part_is_said_of_the_starts_states_alone():
    """Both orders averaged, the policy change may fall where reverse KL at the start's states rises."""
    tables = made(start={"reverse_kl": (1.0, 1.1, 1.2), "overlap_ratio": (0.4,)}, teacher=FORWARD)
    value = tables.split["value"].mask(tables.split["part"] == "policy_change", -0.1)
    found = verdict(replace(tables, split=tables.split.assign(value=value)))
    assert found.status == "fail"
    assert found.evidence.startswith("The progress on own states does not hold at the start's")


def test_what_was_not_looked_at_is_not_said_to_be_well():
    found = verdict(made(start=None, entropy=(NAN,), accuracy=(NAN,), **UNSEEN))
    assert found.status == "pass"
    assert "get worse" not in found.evidence
    found = verdict(made(entropy=(NAN,), accuracy=(NAN,), **UNSEEN))
    assert found.status == "unknown"
    assert "nothing that might get worse could be looked at" in found.evidence


def test_progress_that_holds_in_part_needs_the_teachers_states_to_be_believed():
    start = {"reverse_kl": (1.0, 0.75, 0.5), "overlap_ratio": (0.4,)}  # 2/7 of the fall is state change
    assert verdict(made(start=start, teacher=FORWARD)).status == "fail"
    assert verdict(made(start=start)).status == "pass"
    found = verdict(made(start=start, **UNSEEN))
    assert found.status == "unknown"
    assert "teacher in --states" in found.advice


def test_step_zero_is_needed():
    found = verdict(made(teacher=FORWARD), known=False)
    assert found.status == "unknown"
    assert "--student" in found.advice
