"""Verdicts on what a server left between bounds: given where any value between them would do, else left open."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest

from opd_diag.tables.summary import SUMMARY_COLUMNS
from opd_diag.verdicts import DEFAULTS, headline, judge
from opd_diag.verdicts.alignment import alignment_at_start, alignment_at_teacher, alignment_on_policy
from opd_diag.verdicts.established import bounds_decide, open_advice, outcome, told
from opd_diag.verdicts.evidence import ESTIMATE, Change, change, is_partly_known, row_at, said
from opd_diag.verdicts.false_success import false_success
from opd_diag.verdicts.pair import entropy_gap, indistinguishable_teacher
from opd_diag.verdicts.signal import depth_decay, sharpness
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE, needs_whole

from .synthetic import SETS, run

INF, NAN = math.inf, math.nan
MORE_PROMPTS = "Give more prompts or rollouts."
OPEN = ((0.9, INF), (0.5, INF), (0.2, INF))
"""Reverse KL as a server leaves it, by checkpoint."""


def test_the_advice_is_a_sentence_of_its_own():
    assert BOUNDS_ADVICE == (
        "Ask for the teacher's whole vocabulary (--teacher-top -1, where its server allows that), or name its folder "
        "with --teacher."
    )


NUMBERS = ["value", "ci_low", "ci_high"]


def between(tables, metric, states, ends, *, error=0.01, estimated=False):
    """The tables with a metric known between bounds alone, `ends` by checkpoint; intervals reach `error` beyond.

    Of reverse KL there is no estimate either, unless it is `estimated`.
    """
    summary, differences = tables.summary.copy(), tables.differences.copy()
    of = summary.index[(summary["metric"] == metric) & (summary["states"] == states)]
    for place, (low, high) in zip(of, ends, strict=True):
        summary.loc[place, ["value", "bound_low", "bound_high"]] = [NAN, low, high]
        summary.loc[place, ["ci_low", "ci_high"]] = [low - error, high + error]
    of = differences.index[(differences["metric"] == metric) & (differences["states"] == states)]
    for place, (low, high) in zip(of, ends[1:], strict=True):
        least, most = low - ends[0][1], high - ends[0][0]
        differences.loc[place, ["value", "bound_low", "bound_high"]] = [NAN, least, most]
        differences.loc[place, ["ci_low", "ci_high"]] = [least - error, most + error]
    found = replace(tables, summary=summary, differences=differences, split=without(tables.split, metric))
    return found if metric != "reverse_kl" or estimated else unestimated(found, states)


def unestimated(tables, states):
    """The tables without an estimate of reverse KL on one state set."""
    summary, differences = (
        without(of, ESTIMATE, of["states"] == states) for of in (tables.summary, tables.differences)
    )
    split = tables.split if states == "teacher" else without(tables.split, ESTIMATE)
    of_states = tables.states.assign(**{ESTIMATE: tables.states[ESTIMATE].mask(tables.states["states"] == states)})
    return replace(tables, summary=summary, differences=differences, split=split, states=of_states)


def without(table, metric, where=True):
    """The table with nothing known of a metric."""
    table = table.astype(dict.fromkeys(NUMBERS, float))
    table.loc[(table["metric"] == metric) & where, NUMBERS] = NAN
    return table


def behind(tables, *, estimated=()):
    """The tables of a run whose teacher's server returned its top K: no upper bound of reverse KL, no fits."""
    for states in SETS:
        tables = between(tables, "reverse_kl", states, OPEN, estimated=states in estimated)
    return replace(tables, states=tables.states.assign(reverse_kl=NAN), fits=tables.fits.iloc[:0])


def rough(tables):
    """The tables with an estimate that rests on few drawn tokens."""
    found = {}
    for name in ("summary", "differences"):
        table = getattr(tables, name)
        found[name] = table.assign(approximate=table["metric"] == ESTIMATE)
    return replace(tables, **found)


def falls(own, start=None, **more):
    """A run whose reverse KL falls on own states, and on the start's and teacher's, where `start` says otherwise."""
    start = own if start is None else start
    return run(
        dict.fromkeys(("reverse_kl", ESTIMATE), own) | more,
        dict.fromkeys(("reverse_kl", ESTIMATE), start),
        dict.fromkeys(("reverse_kl", ESTIMATE), start),
    )


RULES = {
    "alignment_on_policy": alignment_on_policy,
    "alignment_at_start": partial(alignment_at_start, step_zero_known=True),
    "alignment_at_teacher": alignment_at_teacher,
    "false_success": partial(false_success, step_zero_known=True),
    "indistinguishable_teacher": partial(indistinguishable_teacher, step_zero_known=True),
    "entropy_gap": entropy_gap,
    "sharpness": sharpness,
    "depth_decay": depth_decay,
}
"""Each alone: all of them take ten times as long."""


def verdict(name, tables):
    found = RULES[name](tables, DEFAULTS)
    assert found.name == name
    return found


def at_teacher(ends, **more):
    return verdict("alignment_at_teacher", between(run(), "forward_kl", "teacher", ends, **more))


class TestTheTeachersStates:
    def test_a_fall_wherever_between_the_bounds_passes(self):
        found = at_teacher(((1.2, 1.3), (0.8, 0.9), (0.4, 0.5)))
        assert (found.status, found.threshold) == ("pass", -0.02)
        assert math.isnan(found.value)
        assert (found.ci_low, found.ci_high) == pytest.approx((0.4 - 1.3 - 0.01, 0.5 - 1.2 + 0.01))
        assert found.evidence == (
            "At the teacher's states, forward KL 1.20 to 1.30 → 0.40 to 0.50, teacher state coverage 0.50 → 0.50; "
            "difference −0.90 to −0.70, 32 prompts."
        )

    def test_a_rise_fails(self):
        found = at_teacher(((0.4, 0.5), (0.8, 0.9), (1.2, 1.3)))
        assert found.status == "fail"
        assert found.evidence.endswith("difference +0.70 to +0.90, 32 prompts.")

    def test_bounds_on_both_sides_leave_it_open_and_it_takes_more_of_the_vocabulary(self):
        found = at_teacher(((1.0, 1.3), (0.95, 1.25), (0.9, 1.2)))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert found.evidence.endswith(
            "difference −0.40 to +0.20, 32 prompts; between bounds that leave a change of δ = 0.02 open."
        )

    def test_where_chance_alone_leaves_it_open_more_prompts_would_tell(self):
        found = at_teacher(((1.2, 1.3), (0.8, 0.9), (0.4, 0.5)), error=0.69)
        assert (found.status, found.advice) == ("unknown", MORE_PROMPTS)
        assert found.evidence.endswith("; inconclusive at δ = 0.02, more prompts would tell.")

    def test_no_upper_bound_leaves_it_open(self):
        found = at_teacher(((0.9, INF), (0.5, INF), (0.2, INF)))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert "forward KL at least 0.90 → at least 0.20" in found.evidence
        assert "difference not bounded" in found.evidence

    def test_bounds_that_hardly_differ_tell_that_nothing_changes(self):
        found = at_teacher(((0.5, 0.502),) * 3, error=0.002)
        assert found.status == "warn"
        assert found.evidence.endswith("; no change, equivalent within δ = 0.02.")

    def test_a_fall_that_turned_back_is_no_steady_one(self):
        found = at_teacher(((1.2, 1.3), (0.2, 0.3), (0.5, 0.6)))
        assert (found.status, found.advice) == ("unknown", MORE_PROMPTS)
        assert found.evidence.endswith("; a fall, but no steady one.")

    def test_a_fall_whose_course_the_bounds_leave_open_takes_more_of_the_vocabulary(self):
        found = at_teacher(((1.2, 1.3), (1.15, 1.25), (0.5, 0.6)))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert found.evidence.endswith("; a fall, in an order that bounds leave open.")


def changed(low, high, *, ends=((1.0, 1.1), (0.5, 0.6)), error=0.01, **more):
    bounds = (*ends, (low, high))
    return Change("reverse_kl", (NAN,) * len(ends), NAN, low - error, high + error, 32, bounds=bounds, **more)


DOWN, UP = ((1.0, 1.1), (0.7, 0.8), (0.4, 0.5)), ((0.4, 0.5), (0.7, 0.8), (1.0, 1.1))
MEETING, TURNING = ((1.0, 1.1), (0.9, 1.0), (0.4, 0.5)), ((1.0, 1.1), (0.2, 0.3), (0.4, 0.5))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(changed(-0.6, -0.4), "fall", id="fall"),
        pytest.param(changed(0.4, 0.6), "rise", id="rise"),
        pytest.param(changed(-0.6, -0.031), "fall", id="just beyond delta"),
        pytest.param(changed(-0.6, -0.029), "inconclusive", id="the interval reaches into delta"),
        pytest.param(changed(-0.6, 0.4), "inconclusive", id="the bounds straddle"),
        pytest.param(changed(-INF, INF), "inconclusive", id="nothing is known"),
        pytest.param(changed(-INF, -0.4), "fall", id="no lower bound of a fall"),
        pytest.param(changed(-0.005, 0.005), "equivalent", id="within delta"),
        pytest.param(changed(-0.005, 0.011), "inconclusive", id="within delta, the interval not"),
        pytest.param(changed(-0.7, -0.5, ends=DOWN), "fall", id="in order"),
        pytest.param(changed(0.5, 0.7, ends=UP), "rise", id="a rise in order"),
        pytest.param(changed(-0.7, -0.5, ends=MEETING), "unordered fall", id="bounds that meet are no order"),
        pytest.param(changed(-0.7, -0.5, ends=TURNING), "unordered fall", id="out of order"),
        pytest.param(changed(0.5, 0.7, ends=TURNING[::-1]), "unordered rise", id="a rise out of order"),
        pytest.param(changed(-0.6, -0.4, floor=0.25), "inconclusive", id="within twice the floor"),
    ],
)
def test_outcomes(seen, expected):
    assert outcome(seen, DEFAULTS, direction=-1) == expected


def test_the_order_can_be_left_out():
    for ends in (MEETING, TURNING):
        assert outcome(changed(-0.7, -0.5, ends=ends), DEFAULTS, ordered=False) == "fall"


@pytest.mark.parametrize(
    ("low", "high", "by_bounds"),
    [(-0.4, 0.2, True), (-0.4, -0.01, True), (0.01, 0.03, True), (-INF, INF, True), (-0.4, -0.03, False),
     (0.03, 0.4, False), (-0.01, 0.01, False), (0.03, INF, False)],
)  # fmt: skip
def test_whether_bounds_decide_or_chance(low, high, by_bounds):
    seen = changed(low, high, error=1.0)
    assert bounds_decide(seen, 0.02) is by_bounds
    assert open_advice(seen, DEFAULTS) == (BOUNDS_ADVICE if by_bounds else MORE_PROMPTS)
    assert told(seen, DEFAULTS, "inconclusive") == (
        "between bounds that leave a change of δ = 0.02 open"
        if by_bounds
        else "inconclusive at δ = 0.02, more prompts would tell"
    )


def test_of_what_is_known_bounds_decide_nothing():
    seen = Change("reverse_kl", (1.0, 0.9), -0.1, -0.4, 0.2, 32)
    assert not bounds_decide(seen, 0.02)
    assert open_advice(seen, DEFAULTS) == MORE_PROMPTS


class TestEvidence:
    def test_a_change_has_bounds_at_each_checkpoint_and_of_the_difference(self):
        ends = ((1.2, 1.3), (0.8, 0.9), (0.4, 0.5))
        seen = change(between(run(), "forward_kl", "teacher", ends), "forward_kl", "teacher")
        assert seen.bounds[:-1] == ends
        assert seen.bounds[-1] == pytest.approx((-0.9, -0.7))
        assert math.isnan(seen.difference)
        assert (seen.path, seen.ends) == ("forward KL 1.20 to 1.30 → 0.40 to 0.50", "1.20 to 1.30 → 0.40 to 0.50")
        assert (seen.shift, seen.n_checkpoints) == ("−0.90 to −0.70", 3)

    def test_a_checkpoint_that_is_known_has_its_value_as_both_bounds(self):
        tables = between(run(), "forward_kl", "teacher", ((1.2, 1.3), (0.8, 0.9), (0.4, 0.5)))
        of = tables.summary
        first = of.index[(of["metric"] == "forward_kl") & (of["states"] == "teacher")][0]
        of.loc[first, ["value", "bound_low", "bound_high"]] = [1.25, NAN, NAN]
        assert change(tables, "forward_kl", "teacher").bounds[0] == (1.25, 1.25)

    def test_where_values_are_known_there_are_no_bounds(self):
        assert change(run(), "forward_kl", "teacher").bounds == ()

    def test_a_row_of_bounds_is_a_row_and_one_of_nothing_is_none(self):
        tables = between(run(), "forward_kl", "teacher", ((1.2, 1.3), (NAN, NAN), (0.4, INF)))
        assert said(row_at(tables, "forward_kl", "teacher", 0)) == "1.20 to 1.30"
        assert row_at(tables, "forward_kl", "teacher", 1) is None
        assert said(row_at(tables, "forward_kl", "teacher", -1)) == "at least 0.40"

    def test_a_teacher_is_partly_known_where_reverse_kl_has_bounds(self):
        assert is_partly_known(between(run(), "reverse_kl", "start", OPEN))
        assert not is_partly_known(run())
        assert not is_partly_known(between(run(), "forward_kl", "teacher", ((1.2, 1.3), (0.8, 0.9), (0.4, 0.5))))
        older = run()
        columns = [name for name in SUMMARY_COLUMNS if not name.startswith("bound_")]
        assert not is_partly_known(replace(older, summary=older.summary[columns]))


class TestAlignment:
    @pytest.mark.parametrize("overlap", [(0.4, 0.55, 0.7), (0.7, 0.55, 0.4), (0.5, 0.5, 0.5)])
    @pytest.mark.parametrize("name", ["alignment_on_policy", "alignment_at_start"])
    def test_overlap_alone_decides_nothing_while_reverse_kl_is_open(self, name, overlap):
        found = verdict(name, behind(run({"overlap_ratio": overlap})))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert math.isnan(found.value)

    def test_what_was_seen_is_said(self):
        found = verdict("alignment_on_policy", behind(run()))
        assert found.evidence == (
            "On own states, between bounds that leave a change of δ = 0.02 open: reverse KL at least 0.90 → at least "
            "0.20, overlap ratio 0.40 → 0.70; differences not bounded and +0.30 [+0.29, +0.31], 32 prompts, 3 "
            "checkpoints."
        )

    @pytest.mark.parametrize(("ends", "status"), [(DOWN, "pass"), (UP, "fail")])
    def test_bounds_that_decide_reverse_kl_decide(self, ends, status):
        still = {"overlap_ratio": (0.5, 0.5, 0.5)}
        assert verdict("alignment_on_policy", between(run(still), "reverse_kl", "on-policy", ends)).status == status

    def test_a_fall_beside_a_loss_of_overlap_is_mixed_as_ever(self):
        falling = run({"overlap_ratio": (0.7, 0.55, 0.4)})
        found = verdict("alignment_on_policy", between(falling, "reverse_kl", "on-policy", DOWN))
        assert found.status == "warn"
        assert found.evidence.startswith("On own states, mixed: reverse KL 1.00 to 1.10 → 0.40 to 0.50, ")


class TestThePair:
    def with_first(self, first, **more):
        tables = between(run(), "reverse_kl", "on-policy", (first, (0.5, INF), (0.2, INF)), **more)
        return verdict("indistinguishable_teacher", tables)

    def test_a_lower_bound_alone_tells_that_they_differ(self):
        found = self.with_first((0.9, INF))
        assert found.status == "pass"
        assert math.isnan(found.value)
        assert (found.ci_low, found.ci_high) == (pytest.approx(0.89), INF)
        assert found.evidence.startswith(
            "They differ at δ = 0.01: at step 0 reverse KL at least 0.90 nats on own states, overlap ratio 0.40"
        )

    def test_an_upper_bound_below_delta_tells_that_they_do_not(self):
        found = self.with_first((0.001, 0.004), error=0.001)
        assert found.status == "warn"
        assert found.evidence.startswith("No difference at δ = 0.01: at step 0 reverse KL 0.001 to 0.004 nats on own")

    def test_a_lower_bound_below_delta_leaves_it_open(self):
        found = self.with_first((0.004, INF), error=0.001)
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert found.evidence.endswith("(640 states, 32 prompts); the bounds leave it open.")

    def test_a_lower_bound_that_is_above_it_by_chance_takes_more_prompts(self):
        found = self.with_first((0.015, INF), error=0.01)
        assert (found.status, found.advice) == ("unknown", MORE_PROMPTS)
        assert found.evidence.endswith("(640 states, 32 prompts); more prompts would tell.")

    def gap(self, ends, **more):
        tables = between(run(), "entropy_gap", "on-policy", ends, **more)
        return verdict("entropy_gap", between(tables, "entropy_difference", "on-policy", ((-0.1, 0.3),) * 3))

    def test_a_gap_is_small_by_its_upper_end(self):
        assert self.gap(((0.0, 0.6), (0.0, 0.3), (0.0, 0.04)), error=0.005).status == "pass"
        found = self.gap(((0.0, 0.6), (0.0, 0.3), (0.0, 0.06)), error=0.005)
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)

    def test_what_is_said_of_a_gap_between_bounds(self):
        found = self.gap(((0.0, 0.6), (0.0, 0.3), (0.0, 0.04)), error=0.005)
        assert found.evidence == (
            "On own states, entropy gap 0.00 to 0.60 → 0.00 to 0.04; difference −0.60 to +0.04, 32 prompts; it is "
            "small."
        )

    def test_a_gap_that_closes_or_opens_wherever_it_lies(self):
        ends = ((0.8, 0.9), (0.5, 0.6), (0.3, 0.4))
        assert self.gap(ends).status == "pass"
        assert self.gap(ends[::-1]).status == "fail"


class TestWhatTakesWholeDistributions:
    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("depth_decay", "reverse KL by depth"),
            ("false_success", "reverse KL on own states (at least 0.90 → at least 0.20)"),
        ],
    )
    def test_it_is_left_open_and_says_why(self, name, what):
        found = verdict(name, behind(run()))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert found.evidence == (
            f"Of the teacher only the most probable ids came back, and {what} needs whole distributions."
        )

    def test_no_server_gives_the_fitted_temperature(self):
        found = verdict("sharpness", behind(run()))
        assert (found.status, found.evidence) == ("unknown", "Nothing is known of the fitted temperature.")
        here = "It takes a teacher whose folder is named with --teacher: servers do not give it."
        assert found.advice == here
        whole = verdict("sharpness", replace(run(), fits=run().fits.iloc[:0]))
        assert whole.advice == f"Run report again. {here}", "of a server that gives the whole vocabulary, or another"

    def test_progress_between_bounds_cannot_be_held_against_its_parts(self):
        found = verdict("false_success", between(run(), "reverse_kl", "on-policy", DOWN))
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert "reverse KL on own states (1.00 to 1.10 → 0.40 to 0.50) needs whole" in found.evidence

    def test_no_progress_between_bounds_deceives_nobody(self):
        assert verdict("false_success", between(run(), "reverse_kl", "on-policy", UP)).status == "pass"

    def test_it_is_a_verdict_without_numbers(self):
        found = needs_whole("sharpness", "Is it?", "this")
        assert (found.name, found.question, found.status) == ("sharpness", "Is it?", "unknown")
        assert all(math.isnan(v) for v in (found.value, found.ci_low, found.ci_high, found.threshold))


class TestAnEstimate:
    """Where a token of the student's was drawn, the mean of reverse KL is estimated, and decides."""

    FALL = (0.9, 0.5, 0.2)

    def test_it_decides_on_own_states_in_place_of_the_bounds(self):
        found = verdict("alignment_on_policy", behind(falls(self.FALL), estimated=("on-policy",)))
        assert (found.status, found.value, found.threshold) == ("pass", pytest.approx(-0.7), -0.02)
        assert found.evidence.startswith("On own states, progress: tail-sampled reverse KL 0.90 → 0.20, ")
        risen = falls(self.FALL[::-1], overlap_ratio=(0.5,))
        rises = verdict("alignment_on_policy", behind(risen, estimated=("on-policy",)))
        assert rises.status == "fail"

    def test_elsewhere_the_bounds_stand_and_own_states_alone_do_not_clear_a_run(self):
        tables = behind(falls(self.FALL), estimated=("on-policy",))
        found = verdict("alignment_at_start", tables)
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        found = verdict("false_success", tables)
        assert (found.status, found.advice) == ("unknown", BOUNDS_ADVICE)
        assert found.evidence == (
            "Of the teacher only the most probable ids came back, and reverse KL at the start's states (at least 0.90 "
            "→ at least 0.20) needs whole distributions."
        )
        assert verdict("depth_decay", tables).advice == BOUNDS_ADVICE

    @pytest.mark.parametrize("start", [FALL, (0.9, 1.0, 1.1)])
    @pytest.mark.parametrize("name", ["alignment_on_policy", "alignment_at_start", "false_success", "depth_decay"])
    def test_on_every_set_verdicts_are_those_of_the_reverse_kl(self, name, start):
        tables = falls(self.FALL, start)
        whole, served = verdict(name, tables), verdict(name, behind(tables, estimated=SETS))
        assert (served.status, served.advice) == (whole.status, whole.advice)
        assert (served.value, served.ci_high) == pytest.approx((whole.value, whole.ci_high))
        kept = served.evidence.replace("tail-sampled reverse KL", "reverse KL")
        assert kept == whole.evidence

    def test_the_first_checkpoint_is_told_from_its_teacher_by_it(self):
        tables = behind(falls((0.002, 0.002, 0.002)), estimated=("on-policy",))
        found = verdict("indistinguishable_teacher", tables)
        assert found.evidence.startswith("Inconclusive at δ = 0.01: at step 0 tail-sampled reverse KL 0.0")

    def test_where_few_tokens_were_drawn_it_does_not_establish_that_there_is_nothing(self):
        tables = behind(falls((0.002,) * 3, overlap_ratio=(0.5,)), estimated=SETS)
        small = {of: verdict(of, rough(tables)) for of in ("alignment_on_policy", "indistinguishable_teacher")}
        sure = {of: verdict(of, tables) for of in small}
        assert {of: found.status for of, found in sure.items()} == dict.fromkeys(small, "warn") | {
            "indistinguishable_teacher": "unknown"
        }
        assert small["alignment_on_policy"].status == "unknown"
        assert "inconclusive at δ = 0.02, as few drawn tokens lie where the teacher is not known" in (
            small["alignment_on_policy"].evidence
        )
        tables = behind(falls((-0.002,) * 3, overlap_ratio=(0.5,)), estimated=SETS)
        assert verdict("indistinguishable_teacher", tables).status == "warn"
        found = verdict("indistinguishable_teacher", rough(tables))
        assert found.status == "unknown"
        assert found.evidence.endswith("; as few drawn tokens lie where the teacher is not known.")

    def test_no_progress_needs_nothing_of_the_start(self):
        tables = behind(falls((0.9, 0.9, 0.9), overlap_ratio=(0.5,)), estimated=("on-policy",))
        found = verdict("false_success", tables)
        assert found.status == "pass"
        assert found.evidence.startswith("No progress on own states is established that could deceive: tail-sampled")


class TestTheRun:
    TITLE = "Alignment cannot be told: of the teacher only its most probable tokens came back"

    def judged(self, tables):
        found = judge(tables, step_zero_known=True)
        return {v.name: v for v in found}, headline(found)

    def test_the_title_says_what_cannot_be_told_and_the_advice_how_to_get_it(self):
        named, told_first = self.judged(behind(run()))
        assert (told_first.status, told_first.title, told_first.advice) == ("unknown", self.TITLE, BOUNDS_ADVICE)
        assert told_first.facts[0].startswith("On own states, between bounds that leave a change of δ = 0.02 open")
        assert named["healthy"].status == "unknown"
        assert named["healthy"].evidence.startswith("Nothing alarms, but ")

    def test_what_does_not_hang_on_bounds_is_judged_as_ever(self):
        whole, _ = self.judged(run())
        named, _ = self.judged(behind(run()))
        for name in ("patterns_compatible", "shared_mass", "alignment_at_teacher", "accuracy", "degeneration"):
            assert named[name].status == whole[name].status == "pass", name

    def test_a_loss_at_the_task_comes_first(self):
        _, told_first = self.judged(behind(run({"accuracy": (0.6, 0.3, 0.1)})))
        assert (told_first.status, told_first.title) == ("fail", "The student gets worse at the task")

    def test_an_alarm_elsewhere_is_what_to_do_something_about(self):
        ends = ((0.4, 0.5), (0.8, 0.9), (1.2, 1.3))
        _, told_first = self.judged(between(behind(run()), "forward_kl", "teacher", ends))
        assert told_first.title == self.TITLE
        assert told_first.advice == (
            "The student loses what the teacher does: read the rollouts, lower the learning rate."
        )

    def test_one_checkpoint_is_nothing_to_compare(self):
        tables = run(checkpoints=1)
        for states in SETS:
            tables = between(tables, "reverse_kl", states, OPEN[:1])
        named, told_first = self.judged(tables)
        assert told_first.title == "Nothing to compare yet"
        assert named["alignment_on_policy"].evidence == "There is one checkpoint, so nothing can be compared."


def test_nothing_reads_a_mean_of_bounds_as_a_value():
    tables = behind(run())
    assert tables.summary[tables.summary["metric"] == "reverse_kl"]["value"].isna().all()
    for found in judge(tables, step_zero_known=True):
        assert "nan" not in found.evidence.lower(), found.name
        assert not pd.isna(found.status)
