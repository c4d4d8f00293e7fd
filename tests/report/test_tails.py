"""What is said of the farthest states."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.report.tails import tail_panels, tail_reading
from opd_diag.tables.tails import TAIL_COLUMNS

NAN = math.nan


def row(
    label="step 9", step=9, p=(0.0064, 0.186, 5.4), held=(0.21, 0.2, 0.23, 0.919, 0.913, 0.925), n=4140, infinite=0
):
    return (step, label, "big", "on-policy", "reverse_kl", *p, *held, n, 64, 0, infinite)


def reading(*rows):
    return tail_reading(pd.DataFrame(rows, columns=TAIL_COLUMNS).astype({"step": "Int64"}))


FIRST = row("step 0", 0, held=(0.024, 0.0, 0.1, 0.16, 0.1, 0.2))


def test_where_the_percentiles_lie_and_what_the_farthest_hold():
    assert reading(FIRST, row()) == (
        "At step 9 half of the states lie at 0.0064 nats or above, a tenth at 0.19, a hundredth at 5.40; the farthest "
        "1 % hold 0.21 [0.20, 0.23], the farthest 10 % hold 0.919 [0.913, 0.925] of all reverse KL, against 0.02 and "
        "0.16 at step 0 (4,140 states, 64 prompts)."
    )


def test_of_one_checkpoint_nothing_is_compared():
    assert reading(row()).endswith("[0.913, 0.925] of all reverse KL (4,140 states, 64 prompts).")


def test_of_few_states_no_hundredth_is_told():
    few = row(held=(NAN, NAN, NAN, 0.5, NAN, NAN), n=50)
    assert "; the farthest 10 % hold 0.50 of all reverse KL (50 states" in reading(few)
    assert reading(row(held=(NAN,) * 6, n=1)).endswith("a hundredth at 5.40 (1 state, 64 prompts).")


def test_zero_infinite_and_undefined_are_said():
    nothing = (NAN,) * 6
    assert reading(row(p=(0.0,) * 3, held=nothing)) == (
        "At step 9 it is 0 at 99 % of the states (4,140 states, 64 prompts)."
    )
    assert reading(row(p=(0.1, 0.2, math.inf), held=nothing, infinite=90)) == (
        "At step 9 half of the states lie at 0.10 nats or above, a tenth at 0.20, a hundredth at ∞; it is infinite at "
        "90 (4,140 states, 64 prompts)."
    )
    assert reading(row(p=(NAN,) * 3, held=nothing, n=0)) == "Undefined: no state defines it."


@pytest.mark.parametrize("columns", [["states", "label"], ["states", "label", "reverse_kl"]])
def test_without_states_or_metric_there_is_no_picture(columns):
    assert tail_panels(pd.DataFrame(columns=columns), ("on-policy",)) == []
