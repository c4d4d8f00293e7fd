"""What the page says of the trainer's own log: which numbers are drawn, under which of our names, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from opd_diag.report.wording import count, one_line
from opd_diag.runs.logged.reading import OVERRIDDEN
from opd_diag.stats.rounding import number
from opd_diag.tables.logged import OURS, logged_curve

if TYPE_CHECKING:
    from opd_diag.report.content import Report


@dataclass(frozen=True)
class LoggedLine:
    """One name of the trainer's that means a quantity of ours, or looks as if it did."""

    metric: str
    """Our quantity; empty where it is none."""
    key: str
    """The trainer's name."""
    points: str
    """How many numbers there are, and on which steps."""
    source: str
    """Where they stand."""
    said: str
    """How its definition differs, or why it is not drawn."""


@dataclass(frozen=True)
class LoggedTable:
    """The trainer's log as the page shows it."""

    lines: tuple[LoggedLine, ...]
    others: int
    """Names that mean nothing to us; they are in ``logged.csv``."""
    drawn: bool
    """Whether any of it is drawn, for which checkpoints must have steps."""


def logged_lines(report: Report) -> LoggedTable | None:
    """Say of each of the trainer's numbers what it is here; those that are drawn first. None where there is no log."""
    logged = report.tables.logged
    if logged.empty:
        return None
    lines = list(_lines(logged))
    drawn = [line for line in lines if line.metric]
    told = [line for line in lines if not line.metric and line.said]
    placed = bool(report.tables.summary["step"].notna().all())
    return LoggedTable((*drawn, *told), len(lines) - len(drawn) - len(told), placed and bool(drawn))


def drawn_only_here(logged: pd.DataFrame, groups: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Name the metrics that the trainer logged and that no group of pictures has."""
    shown = {name for names in groups.values() for name in names}
    found = dict.fromkeys(logged["metric"])
    return tuple(name for name in found if name not in shown and len(logged_curve(logged, name)))


def _lines(logged: pd.DataFrame) -> Iterator[LoggedLine]:
    for (metric, key), rows in logged.groupby(["metric", "trainer_key"], sort=False):
        sources = list(dict.fromkeys(rows["source"]))
        more = f" and {count(len(sources) - 1, 'more file')}" if len(sources) > 1 else ""
        note = str(rows["note"].iloc[0]).removesuffix(OVERRIDDEN).strip()
        yield LoggedLine(
            metric=str(metric) if metric in OURS else "",
            key=one_line(key, 120),
            points=_points(rows),
            source=one_line(sources[0], 120) + more,
            said=note,
        )


def _points(rows: pd.DataFrame) -> str:
    """Say how many numbers there are, on which steps, and what the first and the last of them is.

    Examples
    --------
    >>> _points(pd.DataFrame({"step": [5, 10, 15], "value": [0.5, float("nan"), 0.25]}))
    '2 points, steps 5 to 15: 0.500 → 0.250; 1 undefined'
    """
    known = rows[rows["value"].notna()]
    undefined = len(rows) - len(known)
    left = f"{undefined:,} undefined" if undefined else ""
    if known.empty:
        return left
    steps, values = ([column.iloc[0], column.iloc[-1]] for column in (known["step"], known["value"]))
    if len(known) == 1:
        told = f"1 point, step {steps[0]}: {number(values[0], 3)}"
    else:
        told = f"{len(known):,} points, steps {steps[0]} to {steps[1]}: "
        told += f"{number(values[0], 3)} → {number(values[1], 3)}"
    return "; ".join(filter(None, (told, left)))
