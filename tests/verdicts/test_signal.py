"""Rules on the signal: temperature, few tokens, depth."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from opd_diag.verdicts import DEFAULTS, Thresholds, judge

from .synthetic import numbers_in, run, without

NAN = math.nan


def verdict(name, tables, *, thresholds=DEFAULTS):
    return {v.name: v for v in judge(tables, step_zero_known=True, thresholds=thresholds)}[name]


@pytest.mark.parametrize(
    ("temperature", "share", "status", "said"),
    [
        (1.5, 0.9, "warn", "The student is over-sharp"),
        (0.6, 0.9, "warn", "The student is over-flat"),
        (1.5, 0.3, "warn", "The student is over-sharp"),
        (1.5, 0.1, "pass", "It is"),
        (1.02, 0.9, "pass", "It is"),
        (1.5, 0.24, "unknown", "Inconclusive"),
        (1.25, 0.9, "unknown", "Inconclusive"),
    ],
)
def test_sharpness(temperature, share, status, said):
    found = verdict("sharpness", run(temperature=(1.0, temperature), share=share))
    assert found.status == status
    assert found.evidence.startswith(said)
    assert found.value == temperature
    assert f"at step 0 τ* = {1.0:.2f}" in found.evidence


def test_sharpness_says_whether_it_was_so_before_training():
    assert "over-sharp (" not in verdict("sharpness", run(temperature=(1.5,), share=0.9)).evidence
    assert verdict("sharpness", run(temperature=(1.5,), share=0.9)).evidence.endswith(", over-sharp.")
    assert verdict("sharpness", run(temperature=(1.0, 1.5), share=0.9)).evidence.endswith("].")


def test_a_temperature_of_hardly_any_kl_means_nothing():
    tables = run(temperature=(1.5,), share=0.9)
    assert verdict("sharpness", tables).status == "warn"
    assert verdict("sharpness", replace(tables, fits=tables.fits.assign(reverse_kl=0.015))).status == "pass"


def test_the_last_own_states_count():
    tables = run(temperature=(1.0, 1.5), share=0.9)
    elsewhere = tables.fits.assign(states="start", fitted_temperature=0.2)
    assert verdict("sharpness", replace(tables, fits=pd.concat([tables.fits, elsewhere]))).value == 1.5


def test_where_own_states_do_not_tell_the_starts_may():
    tables = run(temperature=(1.0,), share=0.9)
    flat = tables.fits.assign(states="start", fitted_temperature=0.5)
    ends = {"fitted_temperature_ci_low": 0.49, "fitted_temperature_ci_high": 0.51}
    found = verdict("sharpness", replace(tables, fits=pd.concat([tables.fits, flat.assign(**ends)])))
    assert (found.status, found.value) == ("warn", 0.5)
    assert "of the start's states" in found.evidence
    assert found.evidence.startswith("The student is over-flat")


@pytest.mark.parametrize("fits", [pd.DataFrame(), run().fits.iloc[:0], run().fits.assign(fitted_temperature=NAN)])
def test_without_a_second_pass_nothing_is_known_of_it(fits):
    assert verdict("sharpness", replace(run(), fits=fits)).status == "unknown"


@pytest.mark.parametrize(
    ("top", "zero", "status", "threshold"),
    [
        (0.95, 0.5, "warn", DEFAULTS.top_advantage_share),
        (0.5, 0.95, "warn", DEFAULTS.near_zero_advantage),
        (0.9, 0.5, "unknown", DEFAULTS.top_advantage_share),
        (0.5, 0.5, "pass", DEFAULTS.top_advantage_share),
        (NAN, 0.95, "warn", DEFAULTS.near_zero_advantage),
        (NAN, NAN, "unknown", NAN),
    ],
)
def test_concentrated_signal(top, zero, status, threshold):
    own = {"top_advantage_share": (top, 0.2, 0.99), "near_zero_advantage_rate": (zero, 0.2, 0.98)}
    found = verdict("concentrated_signal", run(own))
    assert found.status == status
    assert found.threshold == pytest.approx(threshold, nan_ok=True)
    if status != "unknown":
        assert "(at last 0.98); at step 0, 32 prompts" in found.evidence


def test_concentration_that_an_older_report_lacks():
    tables = without(without(run(), "top_advantage_share"), "near_zero_advantage_rate")
    assert verdict("concentrated_signal", tables).status == "unknown"


@pytest.mark.parametrize(
    ("depth", "status", "rise", "beyond"),
    [
        ((0.5, 0.5, 0.5, 0.5), "pass", 0.0, 0.0),
        ((0.5, 1.5, 0.5, 0.5), "warn", 1.0, 1.0),
        ((0.5, 1.5, 0.5, 1.5), "pass", 1.0, 0.0),
        ((0.5, 1.5, 1.5, 0.5), "warn", 1.0, 2.0),
        ((1.5, 0.5, 0.5, 0.5), "pass", -1.0, -1.0),
        ((0.5, 0.602, 0.5, 0.5), "unknown", 0.1, 0.1),
    ],
)
def test_depth_decay(depth, status, rise, beyond):
    found = verdict("depth_decay", run(depth=depth))
    assert found.status == status
    assert found.value == pytest.approx(beyond, abs=0.01)
    assert numbers_in(found.evidence.split("changes by")[1])[0] == pytest.approx(rise, abs=0.01)
    assert "first 8 tokens" in found.evidence
    assert ("break at position 4" in found.evidence) is (status == "warn")


def test_a_student_that_breaks_at_a_depth_everywhere_is_held_against_the_start():
    """It breaks on the teacher's responses too, so that these are no control; the first checkpoint's own are."""
    tables = run(depth=(0.5, 1.5, 0.5, 1.5))
    first = tables.states["label"] == "step 0"
    states = tables.states.assign(reverse_kl=tables.states["reverse_kl"].mask(first, 0.5))
    found = verdict("depth_decay", replace(tables, states=states))
    assert (found.status, found.value) == ("warn", pytest.approx(1.0, abs=0.01))
    assert "more than at the first checkpoint" in found.evidence


def test_only_rollouts_that_reach_that_depth_are_compared():
    """Short responses with a high KL throughout would make the early half look worse than the late one."""
    tables = run(depth=(0.5, 1.5, 0.5, 0.5), prompts=32)
    short = tables.states[(tables.states["prompt_index"] < 12) & (tables.states["position"] < 2)]
    short = short.assign(rollout_index=1, reverse_kl=9.0)
    found = verdict("depth_decay", replace(tables, states=pd.concat([short, tables.states], ignore_index=True)))
    assert found.value == pytest.approx(1.0, abs=0.01)


def test_depth_needs_the_teachers_own_responses_of_that_length():
    tables = run()
    states = tables.states[(tables.states["states"] != "teacher") | (tables.states["position"] < 3)]
    assert verdict("depth_decay", replace(tables, states=states)).status == "unknown"
    assert verdict("depth_decay", replace(tables, states=pd.DataFrame())).status == "unknown"


@pytest.mark.parametrize(
    ("name", "field", "value", "tables"),
    [
        ("sharpness", "temperature", 0.6, {"temperature": (1.5,), "share": 0.9}),
        ("sharpness", "temperature_share", 0.95, {"temperature": (1.5,), "share": 0.9}),
        ("depth_decay", "depth_change", 1.2, {"depth": (0.5, 1.5, 0.5, 0.5)}),
        ("concentrated_signal", "top_advantage_share", 0.99, {"changes": {"top_advantage_share": (0.95,)}}),
        ("concentrated_signal", "near_zero_advantage", 0.99, {"changes": {"near_zero_advantage_rate": (0.95,)}}),
    ],
)
def test_thresholds_decide(name, field, value, tables):
    made = run(**tables)
    assert verdict(name, made).status == "warn"
    assert verdict(name, made, thresholds=Thresholds(**{field: value})).status == "pass"


def test_one_prompt_is_one():
    tables = run(prompts=8)
    long = (tables.states["prompt_index"] == 0) | (tables.states["states"] != "teacher")
    found = verdict("depth_decay", replace(tables, states=tables.states[long]))
    assert found.status == "unknown"
    assert found.evidence.startswith("Only 1 prompt has responses of 8 tokens by both models")
