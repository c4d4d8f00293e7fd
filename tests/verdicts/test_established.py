"""When a change is established, when its absence is, and when neither."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy.stats import t as student_t

from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.established import caution, delta, estimate_of, outcome, prompts_for, side, told
from opd_diag.verdicts.evidence import Change

NAN = math.nan
FALLING, RISING, BOUNCING = (1.0, 0.9, 0.8, 0.6, 0.5), (0.5, 0.6, 0.8, 0.9, 1.0), (1.0, 0.3, 0.6, 0.4, 0.5)


def changed(low, high, values=(1.0, 0.5), **more):
    return Change("reverse_kl", values, (low + high) / 2, low, high, more.pop("prompts", 32), **more)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(changed(-0.6, -0.4), "fall", id="fall"),
        pytest.param(changed(0.4, 0.6), "rise", id="rise"),
        pytest.param(changed(-0.6, -0.021), "fall", id="just beyond delta"),
        pytest.param(changed(-0.6, -0.019), "inconclusive", id="the interval reaches into delta"),
        pytest.param(changed(-0.6, 0.1), "inconclusive", id="the interval holds 0"),
        pytest.param(changed(-0.005, 0.005), "equivalent", id="within delta"),
        pytest.param(changed(0.002, 0.008), "equivalent", id="a change, but within delta"),
        pytest.param(changed(0.0, 0.0), "equivalent", id="nothing at all"),
        pytest.param(changed(-0.019, 0.021), "equivalent", id="90 % within delta, 95 % not"),
        pytest.param(changed(NAN, NAN), "inconclusive", id="no interval"),
        pytest.param(changed(-0.6, -0.4, FALLING), "fall", id="in order"),
        pytest.param(changed(0.4, 0.6, RISING), "rise", id="a rise in order"),
        pytest.param(changed(-0.6, -0.4, BOUNCING), "unordered fall", id="out of order"),
        pytest.param(changed(0.4, 0.6, BOUNCING[::-1]), "unordered rise", id="a rise out of order"),
        pytest.param(changed(-0.6, -0.4, p_adjusted=0.04), "fall", id="one of many, small p"),
        pytest.param(changed(-0.6, -0.4, p_adjusted=0.06), "inconclusive", id="one of many, large p"),
    ],
)
def test_outcome(seen, expected):
    assert outcome(seen, DEFAULTS, direction=-1) == expected


def test_the_order_can_be_left_out():
    assert outcome(changed(-0.6, -0.4, BOUNCING), DEFAULTS, ordered=False) == "fall"


def test_delta_is_the_effect_or_twice_the_floor():
    seen = changed(-0.6, -0.4)
    assert delta(seen, DEFAULTS) == DEFAULTS.reverse_kl_change
    assert delta(seen, Thresholds(reverse_kl_change=0.3)) == 0.3
    for floor, expected in ((0.1, 0.2), (0.001, 0.02), (NAN, 0.02)):
        assert delta(changed(-0.6, -0.4, floor=floor), DEFAULTS) == expected
    assert outcome(changed(-0.6, -0.4, floor=0.25), DEFAULTS) == "inconclusive"
    assert outcome(changed(-0.6, -0.4, floor=0.15), DEFAULTS) == "fall"


def test_the_estimate_has_the_error_that_the_interval_came_from():
    made = estimate_of(changed(-0.6, -0.4, prompts=21))
    assert made.standard_error == pytest.approx(0.1 / student_t.ppf(0.975, 20))
    low, high = made.interval(0.9)
    assert high - low == pytest.approx(2 * made.standard_error * student_t.ppf(0.95, 20))
    assert low > -0.6


def test_what_is_said_of_no_change():
    def words(seen):
        return told(seen, DEFAULTS, outcome(seen, DEFAULTS, direction=-1))

    assert words(changed(-0.005, 0.005)) == "no change, equivalent within δ = 0.02"
    assert words(changed(-0.6, -0.4, BOUNCING)) == "a fall, but no steady one"
    assert words(changed(-0.6, -0.4, p_adjusted=0.5)).startswith("inconclusive at δ = 0.02, as one of many")
    needed = words(changed(-0.1, 0.1))
    assert needed.startswith("inconclusive at δ = 0.02, some ")
    assert 32 < int(needed.split("some ")[1].split(" prompts")[0].replace(",", "")) < 1000
    assert words(changed(NAN, NAN)) == "without an interval"


def test_more_prompts_are_needed_for_a_wider_interval():
    def needed(half):
        seen = changed(-half, half)
        return int(told(seen, DEFAULTS, "inconclusive").split("some ")[1].split(" prompts")[0].replace(",", ""))

    assert needed(0.2) == pytest.approx(4 * needed(0.1), rel=0.1)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.9, 0.95, "above"), (0.8, 0.89, "below"), (0.85, 0.95, "unclear")]
)
def test_sides(low, high, expected):
    row = pd.Series({"value": (low + high) / 2, "ci_low": low, "ci_high": high, "n_prompts": 32})
    assert side(row, 0.9) == expected


def test_prompts_for_a_level():
    row = pd.Series({"value": 0.85, "ci_low": 0.75, "ci_high": 0.95, "n_prompts": 30})
    assert prompts_for(row, 0.9) == 120
    assert prompts_for(row, 0.85) is None
    assert side(pd.Series({"value": 0.85, "ci_low": NAN, "ci_high": NAN, "n_prompts": 3}), 0.9) == "unclear"


def test_cautions_of_a_change():
    assert caution(changed(-0.6, -0.4), "A.") == "A. It describes these checkpoints of this run, not another seed."
    assert "approximate" in caution(changed(-0.6, -0.4, approximate=True))
