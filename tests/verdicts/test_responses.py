"""Rules on the responses: what collapses by repetition or length, and who stops where."""

from __future__ import annotations

import math

import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import run, without

NAN = math.nan
SIGNS = {
    "repetition_rate": ((0.0, 0.2, 0.5), 0.0),
    "compression_ratio": ((2.0, 5.0, 12.0), 2.5),
    "truncation_rate": ((0.1, 0.5, 0.9), 0.1),
}
"""Where each goes in a collapse, and what the teacher's is."""


def verdict(name, tables, *, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=True, thresholds=thresholds)}[name]


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_suffices(sign):
    values, theirs = SIGNS[sign]
    found = verdict("degeneration", run({sign: values}, None, {sign: (theirs,)}))
    assert found.status == "fail"
    assert found.evidence.startswith("They do: ")
    assert [s for s in SIGNS if s.replace("_", " ") in found.evidence] == [sign]
    assert found.value == values[-1]
    assert found.threshold == pytest.approx(theirs + DEFAULTS.effect(sign))


def test_a_low_kl_is_said_to_be_no_success_where_it_falls():
    values, theirs = SIGNS["truncation_rate"]
    own, teacher = {"truncation_rate": values}, {"truncation_rate": (theirs,)}
    assert "a low KL that is no success" in verdict("degeneration", run(own, None, teacher)).evidence
    rising = run(own | {"reverse_kl": (0.3, 0.6, 1.0)}, None, teacher)
    assert verdict("degeneration", rising).status == "fail"
    assert "no success" not in verdict("degeneration", rising).evidence
    assert "no success" not in verdict("degeneration", run()).evidence


@pytest.mark.parametrize("sign", SIGNS)
def test_what_the_teacher_does_too_is_no_collapse(sign):
    values, _ = SIGNS[sign]
    assert verdict("degeneration", run({sign: values}, None, {sign: (values[-1],)})).status == "pass"


@pytest.mark.parametrize("sign", SIGNS)
def test_what_was_so_from_the_start_is_a_warning(sign):
    values, theirs = SIGNS[sign]
    found = verdict("degeneration", run({sign: (values[-1],)}, None, {sign: (theirs,)}))
    assert found.status == "warn"
    assert "no rise established" in found.evidence


@pytest.mark.parametrize("sign", SIGNS)
def test_without_the_teachers_responses_the_rise_alone_tells(sign):
    values, _ = SIGNS[sign]
    own_alone = ("on-policy", "start")
    assert verdict("degeneration", run({sign: values}, states=own_alone)).status == "fail"
    assert verdict("degeneration", run({sign: (values[-1],)}, states=own_alone)).status == "pass"


def test_a_sign_with_nothing_to_hold_it_against_says_nothing():
    """The first responses were too short to compress, and so were the teacher's."""
    own_alone = ("on-policy", "start")
    found = verdict("degeneration", run({"compression_ratio": (NAN, 2.1, 2.1)}, states=own_alone))
    assert found.status == "pass"
    assert "compression" not in found.evidence


@pytest.mark.parametrize("sign", SIGNS)
def test_a_rise_that_cannot_be_excluded_leaves_it_open_and_says_what_would_tell(sign):
    values, theirs = SIGNS[sign]
    found = verdict("degeneration", run({sign: values}, None, {sign: (theirs,)}, error={sign: 20.0}))
    assert found.status == "unknown"
    assert found.evidence.startswith("Inconclusive: ")
    assert [s for s in SIGNS if s.replace("_", " ") in found.evidence] == [sign]
    assert "prompts would tell" in found.evidence


# ± .02: its standard error is .0098 with 31 degrees of freedom, so that the one-sided bound lies .0166 above
@pytest.mark.parametrize(("last", "status"), [(0.08, "pass"), (0.09, "unknown"), (0.11, "unknown"), (0.13, "fail")])
def test_the_bound_of_the_rise_decides(last, status):
    own_alone = ("on-policy", "start")
    tables = run({"repetition_rate": (0.0, 0.0, last)}, states=own_alone, error={"repetition_rate": 0.02})
    found = verdict("degeneration", tables)
    assert found.status == status
    if status == "unknown":
        assert "no rise of δ = 0.1 (repetition rate) can be excluded, some" in found.evidence
        needed = int(found.evidence.split("some ")[1].split()[0])
        assert 32 < needed < 300


def test_what_the_teacher_does_as_clearly_excludes_harm():
    """A rise that is established is none of harm where the excess over the teacher's is excluded."""
    values = {"truncation_rate": (0.1, 0.5, 0.9)}
    for theirs, status in ((0.9, "pass"), (0.75, "pass"), (0.71, "unknown"), (0.6, "fail")):
        found = verdict("degeneration", run(values, None, {"truncation_rate": (theirs,)}))
        assert found.status == status, theirs
    wide = run(values, None, {"truncation_rate": (0.9,)}, error={"truncation_rate": 0.3})
    assert verdict("degeneration", wide).status == "unknown"


def test_one_checkpoint_shows_no_rise_and_the_teacher_alone_may_exclude_harm():
    assert verdict("degeneration", run(checkpoints=1)).status == "pass"
    assert verdict("degeneration", run(checkpoints=1, states=("on-policy", "start"))).status == "unknown"


@pytest.mark.parametrize("sign", SIGNS)
def test_the_other_signs_are_enough(sign):
    tables = without(run(), sign)
    assert verdict("degeneration", tables).status == "pass"
    for other in SIGNS:
        tables = without(tables, other)
    assert verdict("degeneration", tables).status == "unknown"


@pytest.mark.parametrize("sign", SIGNS)
def test_thresholds_decide(sign):
    values, theirs = SIGNS[sign]
    tables = run({sign: values}, None, {sign: (theirs,)})
    limits = Thresholds(**{f"{sign}_change": 20.0})
    assert verdict("degeneration", tables, thresholds=limits).status == "pass"


STOPS = [
    ({"teacher_stop_probability_at_stops": 0.01}, {}, "fail", "The teacher would not stop where the student does"),
    ({}, {"student_stop_probability_at_stops": 0.01}, "fail", "The student would not stop where the teacher does"),
    ({"teacher_stop_probability_at_truncation": 0.9}, {}, "fail", "The teacher would stop where the student runs on"),
    ({"teacher_stop_probability_at_stops": 0.1}, {}, "unknown", "It is not clear"),
    ({"student_stop_probability_at_stops": 0.01}, {"student_stop_probability_at_stops": 0.9}, "pass", "They stop"),
    ({"student_stop_probability_at_truncation": 0.9}, {}, "pass", "They stop alike"),
]


@pytest.mark.parametrize(("own", "theirs", "status", "said"), STOPS)
def test_termination(own, theirs, status, said):
    tables = run({m: (0.5, 0.5, v) for m, v in own.items()}, None, {m: (0.5, 0.5, v) for m, v in theirs.items()})
    found = verdict("termination", tables)
    assert found.status == status
    assert found.evidence.startswith(said)
    assert "at step 20, 32 prompts" in found.evidence


def test_what_no_response_could_show_is_left_out():
    tables = run({"teacher_stop_probability_at_stops": (NAN,), "teacher_stop_probability_at_truncation": (NAN,)})
    assert verdict("termination", tables).status == "pass"  # by the student at the teacher's stops
    nothing = run(
        {"teacher_stop_probability_at_stops": (NAN,), "teacher_stop_probability_at_truncation": (NAN,)},
        states=("on-policy", "start"),
    )
    assert verdict("termination", nothing).status == "unknown"


def test_what_stopping_means_can_be_set():
    assert verdict("termination", run(), thresholds=Thresholds(stop_never=0.6)).status == "fail"
    assert verdict("termination", run(), thresholds=Thresholds(stop_likely=0.4)).status == "fail"
