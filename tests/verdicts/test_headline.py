"""The one sentence at the top, for every way the verdicts can fall."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from opd_diag.records.verdict import Verdict
from opd_diag.verdicts import headline, judge
from opd_diag.verdicts.headline import BEHIND, OUTWEIGHS
from opd_diag.verdicts.titles import TITLES

from .synthetic import run

STATUSES = ("pass", "warn", "fail", "unknown")
NAMES = [v.name for v in judge(run(), step_zero_known=True)]
PASSES = "The student grows like its teacher, and better at the task"
READ = ("alignment_on_policy", "alignment_at_start", "accuracy")
"""Verdicts that make the title; an alarm of any other stands behind it."""


def verdicts(own="pass", start="pass", task="pass", **others):
    """Verdicts with these statuses; a warning about own or the start's states is that nothing moves, unless told."""
    named = {name: "pass" for name in NAMES} | others
    named |= {"alignment_on_policy": own, "alignment_at_start": start, "accuracy": task}
    alarms = {s for n, s in named.items() if n != "healthy"} & {"warn", "fail"}
    named["healthy"] = "fail" if "fail" in alarms else "warn" if alarms else named["healthy"]
    made = []
    for n, status in named.items():
        value = math.nan if status == "nothing" else 0.001 if status == "warn" else -0.5
        shown = {"mixed": "warn", "nothing": "unknown"}.get(status, status)
        made.append(Verdict(n, "Is it?", shown, value, value, value, -0.02, f"evidence of {n}", "Go on.", ""))
    return made


@pytest.mark.parametrize(
    ("own", "start", "task", "status", "said"),
    [
        ("nothing", "pass", "pass", "unknown", "Nothing to compare yet"),
        ("pass", "pass", "fail", "fail", "The student gets worse at the task while it looks more aligned"),
        ("warn", "warn", "fail", "fail", "The student gets worse at the task"),
        ("fail", "pass", "pass", "fail", "The student moves away from its teacher"),
        ("warn", "pass", "pass", "warn", "Better at the task, with no gain in alignment"),
        ("warn", "warn", "warn", "warn", "Alike from the start, and nothing is learned"),
        ("unknown", "warn", "unknown", "warn", "Alike from the start, and nothing is learned"),
        ("mixed", "warn", "unknown", "warn", "No steady course on own states"),
        ("pass", "pass", "pass", "pass", PASSES),
        ("pass", "pass", "warn", "warn", "More alike, and no better at the task"),
        ("pass", "pass", "unknown", "unknown", "More alike; whether anything was learned"),
        ("pass", "unknown", "pass", "unknown", "More alike on own states; whether that is progress"),
        ("pass", "fail", "pass", "fail", "More alike on own states, less at the start's"),
        ("pass", "warn", "pass", "warn", "Better at the task, and alike where the student goes now"),
        ("pass", "warn", "unknown", "warn", "More alike where the student goes now"),
        ("unknown", "pass", "pass", "unknown", "Better at the task, and more alike at equal states"),
        ("unknown", "pass", "unknown", "unknown", "More alike at equal states; on own states no trend"),
        ("unknown", "fail", "unknown", "fail", "At equal states the student moves away"),
        ("unknown", "unknown", "pass", "unknown", "Better at the task; no trend in alignment"),
        ("unknown", "unknown", "unknown", "unknown", "Nothing is established yet"),
    ],
)
def test_every_branch(own, start, task, status, said):
    found = headline(
        [replace(v, value=-0.5) if own == "mixed" and v.status == "warn" else v for v in verdicts(own, start, task)]
    )
    assert found.status == status
    assert found.title.startswith(said)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"indistinguishable_teacher": "warn", "new_capability": "warn"}, "Nothing to learn"),
        ({"new_capability": "warn"}, "Nothing happens: the teacher has nothing new to give"),
        ({"patterns_compatible": "warn"}, "Nothing happens: no gain"),
    ],
)
def test_why_nothing_is_learned(others, said):
    assert headline(verdicts("warn", "warn", "unknown", **others)).title.startswith(said)


def test_a_teacher_of_another_pattern_is_named_where_progress_does_not_hold_at_equal_states():
    found = headline(verdicts("pass", "warn", "unknown", patterns_compatible="warn"))
    assert (found.status, found.title) == (
        "warn",
        "A teacher of another pattern: the student went where agreeing is easier; at equal states it came closer in "
        "part at most",
    )


@pytest.mark.parametrize("patterns", ["pass", "warn"])
@pytest.mark.parametrize("high", [0.1, math.nan])
def test_that_agreeing_became_easier_is_said_only_where_the_state_change_is_established(patterns, high):
    made = verdicts("pass", "warn", "unknown", patterns_compatible=patterns)
    found = headline([replace(v, ci_high=high) if v.name == "false_success" else v for v in made])
    assert (found.status, found.title) == ("warn", "More alike on own states; at equal states no clear progress")


def test_success_needs_all_three():
    for combination in itertools.product(STATUSES, repeat=3):
        found = headline(verdicts(*combination))
        assert found.status in STATUSES
        assert found.title
        assert (found.status == "pass") is (combination == ("pass", "pass", "pass")), combination


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("healthy", *READ, *OUTWEIGHS)])
@pytest.mark.parametrize("status", ["warn", "fail"])
def test_success_with_an_alarm_is_not_green(name, status):
    found = headline(verdicts(**{name: status}))
    assert found.status == "warn"
    assert found.title == f"{PASSES}, but see {TITLES[name]}"


def test_several_alarms_are_named_by_their_titles():
    found = headline(verdicts(shared_mass="warn", depth_decay="warn"))
    assert found.title == f"{PASSES}, but see signal in the depth of responses, mass on shared tokens"


def test_success_with_something_that_gets_worse_is_not_green():
    found = headline(verdicts(false_success="warn"))
    assert (found.status, found.title) == ("warn", f"{PASSES}, but something else gets worse")


def test_success_that_could_not_be_asked_whole_is_not_green():
    found = headline(verdicts(aligned_inputs="unknown", healthy="unknown"))
    assert (found.status, found.title) == ("unknown", f"{PASSES}, as far as could be asked")


def test_what_failed_is_never_green_or_unknown_to_the_reader():
    for own, start, task in itertools.product(STATUSES, repeat=3):
        if "fail" in (own, task):
            assert headline(verdicts(own, start, task)).status == "fail"


def test_facts_are_the_evidence_behind_it_without_intervals():
    made = [replace(v, evidence=f"evidence of {v.name}; difference +1.0 [0.9, 1.1], 32 prompts.") for v in verdicts()]
    assert headline(made).facts == tuple(f"evidence of {n}." for n in BEHIND)


def test_what_was_wrong_before_training_comes_first_with_what_to_do():
    for name, status in (("patterns_compatible", "warn"), ("indistinguishable_teacher", "warn")):
        made = [replace(v, advice=f"advice of {v.name}") for v in verdicts("warn", "warn", "unknown", **{name: status})]
        alike = [] if name == "patterns_compatible" else ["patterns_compatible"]
        found = headline(made)
        assert found.facts == tuple(f"evidence of {n}." for n in (*alike, name, *BEHIND))
        assert found.advice == f"advice of {name}"


def test_nothing_is_to_be_done_where_all_passes():
    assert headline(verdicts()).advice == ""
    warned = [replace(v, status="pass") if v.name == "healthy" else v for v in verdicts(patterns_compatible="warn")]
    found = headline(warned)
    assert (found.status, found.advice, len(found.facts)) == ("pass", "", len(BEHIND))


def test_without_a_reason_before_training_the_first_alarm_says_what_to_do():
    made = [replace(v, advice=f"advice of {v.name}") for v in verdicts("pass", "warn", "unknown", shared_mass="warn")]
    found = headline(made)
    assert found.facts == tuple(f"evidence of {n}." for n in BEHIND)
    assert found.advice == "advice of alignment_at_start"


def test_what_fails_says_what_to_do_before_the_pair_does():
    made = [
        replace(v, advice=f"advice of {v.name}.")
        for v in verdicts("pass", "warn", "fail", patterns_compatible="warn", false_success="warn")
    ]
    assert headline(made).advice == "advice of accuracy. advice of patterns_compatible."
    alone = [replace(v, status="pass") if v.name == "patterns_compatible" else v for v in made]
    assert headline(alone).advice == "advice of accuracy."


def test_only_intervals_are_left_out_of_facts():
    said = "At a [v1] it is 0.28 ~[0.24, 0.31], then −0.5 [−∞, +1.5e-08]; and more."
    made = [replace(v, evidence=said) if v.name == "accuracy" else v for v in verdicts()]
    assert headline(made).facts[-1] == "At a [v1] it is 0.28, then −0.5."


def test_a_false_success_says_what_was_wrong_before_training_and_what_to_do():
    made = [
        replace(v, advice=f"advice of {v.name}")
        for v in verdicts("pass", "fail", "unknown", false_success="fail", patterns_compatible="warn")
    ]
    found = headline(made)
    assert found.facts == tuple(f"evidence of {n}." for n in ("false_success", "patterns_compatible", *BEHIND))
    assert found.advice == "advice of false_success"


def test_misaligned_inputs_outweigh_a_false_success_and_that_a_degeneration():
    order = list(OUTWEIGHS)
    assert order == ["aligned_inputs", "false_success", "degeneration"]
    for combination in itertools.product(STATUSES, repeat=3):
        for i, name in enumerate(order):
            found = headline(verdicts(*combination, **dict.fromkeys(order[i:], "fail")))
            assert (found.status, found.title) == ("fail", OUTWEIGHS[name])
            assert found.facts[0] == f"evidence of {name}."
        for other in ("pass", "warn", "unknown"):
            assert headline(verdicts(*combination, **dict.fromkeys(order, other))).title not in OUTWEIGHS.values()


@pytest.mark.parametrize(
    ("task", "value", "status", "said"),
    [
        ("pass", math.nan, "unknown", "Alignment cannot be told: reverse KL is infinite"),
        ("unknown", math.inf, "unknown", "Alignment cannot be told: reverse KL is infinite"),
        ("fail", math.nan, "fail", "The student gets worse at the task"),
    ],
)
def test_an_infinite_kl_is_not_nothing(task, value, status, said):
    made = verdicts("unknown", "unknown", task)
    endless = [replace(v, value=value, evidence="reverse KL ∞.") if v.name == BEHIND[0] else v for v in made]
    found = headline(endless)
    assert (found.status, found.title[: len(said)]) == (status, said)


@pytest.mark.parametrize("kl", [(math.inf,), (0.3, math.inf)])
def test_it_is_read_off_a_run_with_an_infinite_kl(kl):
    tables = run({"reverse_kl": kl})
    rows = (tables.differences["metric"] == "reverse_kl") & (tables.differences["states"] == "on-policy")
    tables.differences.loc[rows, ["ci_low", "ci_high"]] = math.nan
    found = headline(judge(tables, step_zero_known=True))
    assert found.title.startswith("Alignment cannot be told")
    assert "∞" in found.facts[0]
