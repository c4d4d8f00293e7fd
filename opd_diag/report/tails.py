"""How far the farthest states are: a picture of each state set, and what its tail carries in a sentence."""

from __future__ import annotations

import math

import pandas as pd

from opd_diag import plots
from opd_diag.plots.quantities import quantity
from opd_diag.report.panel import Panel
from opd_diag.report.readings import called, ends_of
from opd_diag.report.wording import count, told
from opd_diag.stats.rounding import decimals_for, number
from opd_diag.tables.assembled import Tables
from opd_diag.tables.tails import FEWEST

METRIC = "reverse_kl"

_PARTS = {50: "half of the states lie", 90: "a tenth", 99: "a hundredth"}
"""What a sentence calls the states at a percentile or beyond."""


def tail_name(states: str) -> str:
    """Name the picture of a state set."""
    return f"tails-{states}"


def tail_panels(tables: Tables, sets: tuple[str, ...]) -> list[Panel]:
    """Draw how reverse KL lies over the states of each set, at the first and the last checkpoint that has it.

    Parameters
    ----------
    tables
        Tables of the run.
    sets
        State sets to draw, those that occur.
    """
    shown = tables.states[tables.states["states"].isin(sets)]
    rows = {of: tables.tails[tables.tails["states"] == of] for of in sets}
    return [
        Panel.of(
            tail_name(of),
            f"{quantity(METRIC).title} of the farthest states",
            "farthest",
            tail_reading(tail[tail["label"].isin(ends_of(tail))]),
            plots.tail_curves(shown, METRIC, states=of),
        )
        for of, tail in rows.items()
        if len(tail)
    ]


def tail_reading(table: pd.DataFrame) -> str:
    """Say where the percentiles lie and what the farthest states hold; `table` is one state set, both ends."""
    last = table.iloc[-1]
    where = called(last["label"], last["step"])
    if not last["n_states"]:
        return f"Undefined: {quantity(METRIC).undefined}."
    n = f"{count(last['n_states'], 'state')}, {count(last['n_prompts'], 'prompt')}"
    if last["p99"] == 0.0:
        most = "99 % of the states" if last["n_states"] >= FEWEST[99] else "every state"
        return f"At {where} it is 0 at {most} ({n})."
    half, *others = (
        f"{part} at {_nats(last[f'p{percent}'])}" for percent, part in _PARTS.items()
        if last["n_states"] >= FEWEST[percent]
    )  # fmt: skip
    text = ", ".join([f"At {where} {half} nats or above", *others])
    if last["n_infinite"]:
        return f"{text}; it is infinite at {int(last['n_infinite']):,} ({n})."
    held = [
        f"the farthest {percent} % hold {told(last, name)}"
        for percent, name in ((1, "held_by_1"), (10, "held_by_10"))
        if not math.isnan(last[name])
    ]
    if not held:
        return f"{text} ({n})."
    return f"{text}; {', '.join(held)} of all reverse KL{_before(table)} ({n})."


def _before(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    known = [number(first[name], 2) for name in ("held_by_1", "held_by_10") if not math.isnan(first[name])]
    if len(table) == 1 or not known:
        return ""
    return f", against {' and '.join(known)} at {called(first['label'], first['step'])}"


def _nats(value: float) -> str:
    return number(value, decimals_for(value, math.nan, math.nan))
