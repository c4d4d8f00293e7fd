"""What a page says of a teacher of which a part came back: what, what that leaves open, and which K would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opd_diag import plots
from opd_diag.report.panel import Panel
from opd_diag.report.wording import STATES_NAMES
from opd_diag.stats.rounding import between
from opd_diag.tables.assembled import Tables
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.k_sweep import SWEPT, sufficient
from opd_diag.verdicts.established import plain
from opd_diag.verdicts.evidence import row_of_kl
from opd_diag.verdicts.thresholds import DEFAULTS

if TYPE_CHECKING:
    from opd_diag.report.content import Report

SETS = ("on-policy", "start", "teacher")
"""State sets whose bounds are shown."""

DRAWN = ("forward_kl", "jensen_shannon")
"""Metrics whose bounds are drawn against K."""


EFFECTS = {
    "forward_kl": DEFAULTS.forward_kl_change,
    "reverse_kl": DEFAULTS.reverse_kl_change,
    "jensen_shannon": DEFAULTS.reverse_kl_change / 4,
    "common_mass": DEFAULTS.overlap_mass_change,
    "teacher_entropy": DEFAULTS.entropy_gap_change,
}
"""Widths of bounds that would do: the changes that count. Of small distances the Jensen–Shannon divergence is a quarter
of the mean of both KL, to the second order; the common mass counts as the masses do, an entropy as its gap."""


@dataclass(frozen=True)
class SweepRow:
    """One metric: its bounds at the last checkpoint, and which K leaves them no wider than what counts."""

    metric: str
    bounds: list[str]
    """One a state set of the page."""
    least: str
    """The width that would do."""
    needed: str
    """The smallest K that leaves no more on any state set; what is said where none does."""


@dataclass(frozen=True)
class OfServer:
    """What there is to say where the teacher's top K alone came back."""

    top: int
    sentence: str
    states: list[str]
    """What pages call the state sets, in the order of the rows' bounds."""
    rows: list[SweepRow]


def of_server(report: Report) -> OfServer | None:
    """Say what the teacher's top K leaves open; None where whole distributions were seen, or no sweep is known."""
    tables = report.tables
    if tables.sweep.empty:
        return None
    top = int(tables.sweep["top"].max())
    sets = [states for states in SETS if (tables.sweep["states"] == states).any()]
    return OfServer(
        top,
        f"Of the teacher the {top} most probable ids came back at each state. Overlap, and both masses on the shared "
        f"tokens, are exact for every k up to {top}. What hangs on the rest of the vocabulary lies between the bounds "
        "below, whatever the rest is; nothing was filled in."
        f"{_estimated(tables)}",
        [STATES_NAMES[states] for states in sets],
        [_row(tables, metric, sets) for metric in SWEPT],
    )


def _estimated(tables: Tables) -> str:
    """Say where the mean of reverse KL is estimated."""
    rows = {states: row_of_kl(tables, states, -1) for states in SETS}
    sets = [STATES_NAMES[states] for states, row in rows.items() if row is not None and row["metric"] == ESTIMATE]
    if not sets:
        return ""
    where = " and ".join(filter(None, (", ".join(sets[:-1]), sets[-1])))
    return (
        f" The mean of reverse KL, which no top K bounds from above, is estimated without bias on {where}: by the "
        "tail-sampled reverse KL, on which verdicts on reverse KL rest there."
    )


def bound_panels(tables: Tables) -> list[Panel]:
    """Draw how bounds close in as K grows; nothing where whole distributions were seen."""
    return [] if tables.sweep.empty else [_panel(tables, metric) for metric in DRAWN]


def _row(tables: Tables, metric: str, sets: list[str]) -> SweepRow:
    rows = tables.sweep[(tables.sweep["metric"] == metric) & tables.sweep["states"].isin(sets)]
    last = rows[(rows["label"] == rows["label"].iloc[-1]) & (rows["top"] == rows["top"].max())].set_index("states")
    least, endless = EFFECTS[metric], bool(np.isinf(last["bound_high"]).any())
    return SweepRow(
        metric=metric,
        bounds=[between(*last.loc[states, ["bound_low", "bound_high"]]) for states in sets],
        least=plain(least),
        needed=_needed(sufficient(rows, metric, least), int(rows["top"].max()), endless),
    )


def _needed(enough: int | None, top: int, endless: bool) -> str:
    if enough is not None:
        return f"K = {enough}"
    return "the whole vocabulary" if endless else f"more than {top}"


def _panel(tables: Tables, metric: str) -> Panel:
    what = plots.quantity(metric)
    last = tables.sweep[(tables.sweep["metric"] == metric) & (tables.sweep["states"] == tables.sweep["states"].iloc[0])]
    last = last[last["label"] == last["label"].iloc[-1]].sort_values("top")
    first_and_last = last.iloc[[0, -1]].to_dict("records")
    ends = [f"{between(row['bound_low'], row['bound_high'])} at K = {row['top']}" for row in first_and_last]
    states = str(last["states"].iloc[0])
    return Panel.of(
        f"bounds-{metric}",
        f"{what.title} between bounds, by K",
        metric,
        f"At {last['label'].iloc[0]}, {STATES_NAMES[states]}: {', '.join(ends)}.",
        plots.bounds_by_top(tables.sweep, metric, states=states),
    )
