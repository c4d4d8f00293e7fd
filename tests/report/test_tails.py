"""What is said of the farthest states."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from opd_diag.report.tails import tail_panels, tail_reading
from opd_diag.tables.assembled import Tables
from opd_diag.tables.states import IDENTITY
from opd_diag.tables.tails import TAIL_COLUMNS, tail_table

NAN = math.nan


def row(
    label="step 9",
    step=9,
    p=(0.0064, 0.186, 5.4),
    held=(0.21, 0.2, 0.23, 0.919, 0.913, 0.925),
    rough=(False, False),
    n=4140,
    infinite=0,
):
    shares = (*held[:3], rough[0], *held[3:], rough[1])
    return (step, label, "big", "on-policy", "reverse_kl", *p, *shares, n, 64, 0, infinite)


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


@pytest.mark.parametrize(("rough", "marks"), [((True, False), ("~", "")), ((False, True), ("", "~"))])
def test_an_approximate_interval_is_marked_each_for_itself(rough, marks):
    first, second = marks
    held = f"hold 0.21 {first}[0.20, 0.23], the farthest 10 % hold 0.919 {second}[0.913, 0.925] of"
    assert held in reading(row(rough=rough))


def test_of_few_states_no_hundredth_and_no_tenth_is_told():
    """A hundredth of 99 states is no state."""
    tenth = (NAN, NAN, NAN, 0.5, NAN, NAN)
    begin = "At step 9 half of the states lie at 0.0064 nats or above"
    assert reading(row(held=tenth, n=100)).startswith(f"{begin}, a tenth at 0.19, a hundredth at 5.40; the farthest")
    assert reading(row(held=tenth, n=99)) == (
        f"{begin}, a tenth at 0.19; the farthest 10 % hold 0.50 of all reverse KL (99 states, 64 prompts)."
    )
    assert reading(row(held=tenth, n=10)).startswith(f"{begin}, a tenth at 0.19; the farthest")
    assert reading(row(held=(NAN,) * 6, n=9)) == f"{begin} (9 states, 64 prompts)."
    assert reading(row(p=(0.0,) * 3, held=(NAN,) * 6, n=99)) == (
        "At step 9 it is 0 at every state (99 states, 64 prompts)."
    )


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


def test_a_set_of_checkpoints_in_between_is_told_of_those():
    """Neither the first nor the last checkpoint of the run has it."""

    def rows(step, of):
        values = {"step": step, "label": f"step {step}", "teacher": "big", "states": of}
        return pd.DataFrame({**values, "prompt_index": range(4), "reverse_kl": [1.0 + step, 2.0, 3.0, 4.0]})

    run = [rows(0, "on-policy"), rows(5, "start"), rows(7, "start"), rows(9, "on-policy")]
    panels = tail_panels(tables_of(pd.concat(run).astype({"step": "Int64"})), ("on-policy", "start", "teacher"))
    assert [(panel.name, panel.reading) for panel in panels] == [
        ("tails-on-policy", "At step 9 half of the states lie at 3.00 nats or above (4 states, 4 prompts)."),
        ("tails-start", "At step 7 half of the states lie at 3.00 nats or above (4 states, 4 prompts)."),
    ]


def test_without_states_there_is_no_picture():
    states = pd.DataFrame(columns=[*IDENTITY, "prompt_index", "reverse_kl"])
    assert tail_panels(tables_of(states), ("on-policy",)) == []


def tables_of(states):
    none = pd.DataFrame()
    return Tables(states, none, none, none, none, none, tails=tail_table(states))
