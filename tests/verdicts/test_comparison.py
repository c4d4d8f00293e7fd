"""Whether two runs end differently, on rows made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.tables.comparison import COMPARISON_COLUMNS
from opd_diag.verdicts import DEFAULTS
from opd_diag.verdicts.comparison import runs_differ, settled
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE

NAN = math.nan


def row(value, low, high, *, metric="reverse_kl", states="on-policy", prompts=40, paired=True, sides=None):
    cells = [states, metric, "a", "b", 0.5, 0.5 + value, value, low, high, NAN, False, paired, prompts]
    cells += [*(sides or [prompts, prompts]), NAN, NAN]
    return pd.Series(dict(zip(COMPARISON_COLUMNS, cells, strict=True)))


@pytest.mark.parametrize(
    ("given", "status", "end"),
    [
        (row(-0.3, -0.4, -0.2), "pass", "40 shared prompts: b is ahead."),
        (row(0.3, 0.2, 0.4), "pass", "40 shared prompts: a is ahead."),
        (row(0.3, 0.2, 0.4, metric="accuracy"), "pass", "40 shared prompts: b is ahead."),
        (row(0.0, -0.005, 0.005), "pass", "40 shared prompts: no difference, equivalent within δ = 0.02."),
        (row(0.02, -0.05, 0.09), "unknown", "more prompts than are practical would be needed."),
        (row(0.01, -0.05, 0.07), "unknown", "prompts would tell."),
        (row(0.3, NAN, NAN, prompts=3), "unknown", "3 prompts are too few, at least 5 are needed."),
        (row(-0.3, -0.4, -0.2, paired=False), "pass", "40 prompts, none shared: b is ahead."),
        (
            row(-0.3, -0.4, -0.2, paired=False, sides=[36, 4]),
            "unknown",
            "40 prompts, none shared: 4 prompts are too few, at least 5 are needed.",
        ),
    ],
)
def test_answers(given, status, end):
    found = runs_differ(given, DEFAULTS)
    assert found.status == status
    assert found.evidence.endswith(end)


def test_the_sentence_names_metric_states_and_both():
    assert runs_differ(row(-0.3, -0.4, -0.2, states="teacher"), DEFAULTS).evidence == (
        "Reverse KL on the teacher's states: a 0.500, b 0.200, difference −0.30 [−0.40, −0.20], "
        "40 shared prompts: b is ahead."
    )


def test_one_of_many_must_hold_as_such():
    given = row(-0.3, -0.4, -0.2)
    assert settled(given, DEFAULTS, 0.04) == ("pass", "b is ahead")
    status, how = settled(given, DEFAULTS, 0.06)
    assert status == "unknown"
    assert how == "inconclusive as one of several asked (p = 0.06), more prompts would tell"


def bounded(low, high, error=0.01, **more):
    cells = {"first_value": NAN, "second_value": NAN, "bound_low": low, "bound_high": high}
    return pd.Series(dict(row(NAN, low - error, high + error, **more)) | cells)


@pytest.mark.parametrize(
    ("given", "status", "end"),
    [
        (bounded(-0.4, -0.2), "pass", "difference −0.40 to −0.20, 40 shared prompts: b is ahead."),
        (bounded(0.2, 0.4), "pass", "difference +0.20 to +0.40, 40 shared prompts: a is ahead."),
        (bounded(0.2, math.inf), "pass", "difference at least +0.20, 40 shared prompts: a is ahead."),
        (bounded(-0.004, 0.003, 0.001), "pass", "no difference, equivalent within δ = 0.02."),
        (bounded(-0.4, 0.2), "unknown", "difference −0.40 to +0.20, 40 shared prompts: bounds leave it open."),
        (bounded(-math.inf, math.inf), "unknown", "difference not bounded, 40 shared prompts: bounds leave it open."),
        (bounded(-0.3, -0.2, 0.25), "unknown", "40 shared prompts: inconclusive, more prompts would tell."),
        (bounded(-0.3, -0.2, prompts=4), "unknown", "4 prompts are too few, at least 5 are needed."),
    ],
)
def test_between_bounds_what_holds_wherever_the_truth_lies(given, status, end):
    found = runs_differ(given, DEFAULTS)
    assert (found.status, math.isnan(found.value)) == (status, True)
    assert found.evidence.endswith(end)
    assert "nan" not in found.evidence
    open_ = "bounds leave it open" in end
    assert found.advice == (BOUNDS_ADVICE if open_ else ADVICE[status])


ADVICE = {
    "pass": "Read the other metrics with it: no single one tells which run is the better one.",
    "unknown": "Report on more prompts, the same ones for both.",
}
