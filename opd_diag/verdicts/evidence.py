"""Reading tables for evidence: what a metric is, how it changed over the run, and how to say it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from opd_diag.stats.rounding import between, decimals_for, known_between, number, with_interval
from opd_diag.tables import BY_NAME, Tables
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.floors import floors_of, is_small, near

OWN, START, TEACHER = "on-policy", "start", "teacher"


@dataclass(frozen=True)
class Change:
    """How a metric changed from the first to the last checkpoint on one state set."""

    metric: str
    values: tuple[float, ...]
    """Its mean at each checkpoint, in their order."""
    difference: float
    """Last minus first, paired by prompt; NaN with one checkpoint."""
    ci_low: float
    ci_high: float
    n_prompts: int
    floor: float = math.nan
    """Precision floor of the metric; NaN where there is none."""
    p_adjusted: float = math.nan
    """p-value adjusted for all primary metrics; NaN for others, and in tables that have none."""
    depends_on_average: bool = False
    """Whether token, rollout and prompt averages lead to different conclusions."""
    approximate: bool = False
    """Whether the interval may cover less often than it says."""
    bounds: tuple[tuple[float, float], ...] = ()
    """Bounds at each checkpoint, and last those of the difference, where one of them is known between bounds alone;
    then `difference` is NaN, and the interval holds whatever lies between them."""

    @property
    def first(self) -> float:
        """Value at the first checkpoint."""
        return self.values[0] if self.values else math.nan

    @property
    def last(self) -> float:
        """Value at the last checkpoint."""
        return self.values[-1] if self.values else math.nan

    @property
    def n_checkpoints(self) -> int:
        """Checkpoints that have a row."""
        return len(self.values)

    @property
    def within_floor(self) -> bool:
        """Whether rounding alone may have made the difference."""
        return is_small(self.difference, self.floor)

    @property
    def path(self) -> str:
        """Say where it went: name, first and last value, rounded by the interval."""
        if self.bounds:
            return f"{called(self.metric)} {self.ends}"
        return f"{called(self.metric)} {self._said(self.last) if math.isnan(self.difference) else self.ends}"

    @property
    def ends(self) -> str:
        """First and last value alone."""
        if self.bounds:
            return f"{between(*self.bounds[0])} → {between(*self.bounds[-2])}"
        return f"{self._said(self.first)} → {self._said(self.last)}"

    @property
    def shift(self) -> str:
        """Say how far: the difference with its interval, rounded by it."""
        if self.bounds:
            return between(*self.bounds[-1], signed=True)
        return with_interval(self.difference, self.ci_low, self.ci_high, signed=True, near=self.within_floor)

    def _said(self, value: float) -> str:
        # Two digits at least: an end of .046 beside a difference of 9.0 must not read as 0.0.
        by_error, by_size = decimals_for(value, self.ci_low, self.ci_high), decimals_for(value, math.nan, math.nan)
        return number(value, max(by_error, by_size))

    def thin(self, prompts: float) -> bool:
        """Whether there is nothing to compare, or fewer than `prompts` prompts to tell."""
        return self.n_prompts < prompts or self.n_checkpoints < 2


def change(tables: Tables, metric: str, states: str) -> Change:
    """Read the change of `metric` on `states` between the first and the last checkpoint."""
    rows = rows_of(tables, metric, states)
    labels, prompts = list(rows["label"]), int(rows["n_prompts"].max()) if len(rows) else 0
    difference = low = high = adjusted = math.nan
    depends = approximate = False
    bounds: tuple[tuple[float, float], ...] = ()
    row = _difference(tables.differences, metric, states, labels[0], labels[-1]) if len(labels) > 1 else None
    if row is not None:
        difference, low, high, prompts = row["value"], row["ci_low"], row["ci_high"], int(row["n_prompts"])
        adjusted = _number(row.get("p_adjusted"))
        if known_between(row):
            ends = [
                (r["bound_low"], r["bound_high"]) if known_between(r) else (r["value"],) * 2 for _, r in rows.iterrows()
            ]
            bounds = (*ends, (row["bound_low"], row["bound_high"]))
        depends, approximate = (_number(row.get(name)) == 1 for name in ("depends_on_average", "approximate"))
    return Change(
        metric=metric,
        values=tuple(float(v) for v in rows["value"]),
        difference=float(difference),
        ci_low=float(low),
        ci_high=float(high),
        n_prompts=prompts,
        floor=floors_of(rows).get(metric, math.nan),
        p_adjusted=adjusted,
        depends_on_average=depends,
        approximate=approximate,
        bounds=bounds,
    )


def change_of_kl(tables: Tables, states: str) -> Change:
    """Read the change of reverse KL on `states`; of its estimate where a server leaves only bounds, if there is one."""
    seen = change(tables, "reverse_kl", states)
    estimated = change(tables, ESTIMATE, states) if seen.bounds else seen
    return seen if math.isnan(estimated.difference) else estimated


def _difference(table: pd.DataFrame, metric: str, states: str, first: str, last: str) -> pd.Series | None:
    """Find the row of a difference; None of what does not change, as the teacher's own responses."""
    rows = table[
        (table["metric"] == metric)
        & (table["states"] == states)
        & (table["from_label"] == first)
        & (table["to_label"] == last)
    ]
    return rows.iloc[0] if len(rows) else None


@dataclass(frozen=True)
class Part:
    """One part of the change of a metric on own states, from the first to the last checkpoint."""

    value: float
    ci_low: float
    ci_high: float
    floor: float = math.nan
    """Precision floor of the metric; NaN where there is none."""

    @property
    def within_floor(self) -> bool:
        """Whether rounding alone may have made it."""
        return is_small(self.value, self.floor)

    @property
    def fell(self) -> bool:
        """Whether it is below 0 beyond doubt."""
        return self.ci_high < 0 and not self.within_floor

    @property
    def said(self) -> str:
        """The part with its interval, rounded by it."""
        return with_interval(self.value, self.ci_low, self.ci_high, signed=True, near=self.within_floor)


def split_change(tables: Tables, metric: str, part: str) -> Part:
    """Read one part of the change of `metric` on own states; NaN where it was not split.

    In the first order, policy before states, whether or not ``back`` was scored: no verdict may hang on an option.
    """
    split = tables.split
    rows = split[(split["metric"] == metric) & (split["part"] == part) & (split["orders"] == 1)]
    if rows.empty:
        return Part(math.nan, math.nan, math.nan)
    floor = floors_of(tables.summary).get(metric, math.nan)
    value, low, high = (float(v) for v in rows.iloc[-1][["value", "ci_low", "ci_high"]])
    return Part(value, low, high, floor)


def split_of_kl(tables: Tables, part: str) -> Part:
    """Read one part of the change of reverse KL on own states, or of its estimate as in :func:`change_of_kl`."""
    return split_change(tables, ESTIMATE if is_partly_known(tables) else "reverse_kl", part)


def is_scored(tables: Tables, states: str) -> bool:
    """Whether the run was scored on these states at all."""
    return bool((tables.summary["states"] == states).any())


def rows_of(tables: Tables, metric: str, states: str) -> pd.DataFrame:
    """Give the summary rows of a metric on a state set, in the order of the checkpoints."""
    return tables.summary[(tables.summary["metric"] == metric) & (tables.summary["states"] == states)]


def row_at(tables: Tables, metric: str, states: str, place: int) -> pd.Series | None:
    """Give the summary row of a checkpoint, by its place in the order (0: first, -1: last).

    None where there is none, or nothing in it is defined: older and partial reports lack some. Its value is NaN where
    only bounds are known.
    """
    rows = rows_of(tables, metric, states)
    if rows.empty or (pd.isna(rows.iloc[place]["value"]) and not known_between(rows.iloc[place])):
        return None
    return rows.iloc[place]


def row_of_kl(tables: Tables, states: str, place: int) -> pd.Series | None:
    """Give the summary row of reverse KL, or of its estimate, as :func:`row_at` and :func:`change_of_kl`."""
    seen = row_at(tables, "reverse_kl", states, place)
    estimated = None if seen is None or not known_between(seen) else row_at(tables, ESTIMATE, states, place)
    return seen if estimated is None else estimated


def is_partly_known(tables: Tables) -> bool:
    """Whether the teacher's server returned a part of its distributions, so that reverse KL lies between bounds."""
    rows = tables.summary[tables.summary["metric"] == "reverse_kl"]
    return "bound_low" in rows and bool(rows["bound_low"].notna().any())


def baseline(tables: Tables, metric: str, which: str, label: str) -> pd.Series | None:
    """Give a baseline of a metric on a checkpoint's own states; None where it was not measured."""
    table = tables.baselines
    if table.empty:
        return None
    found = table[
        (table["metric"] == metric)
        & (table["baseline"] == which)
        & (table["states"] == OWN)
        & (table["label"] == label)
        & table["value"].notna()
    ]
    return found.iloc[0] if len(found) else None


def said(row: pd.Series) -> str:
    """Write the value of a row with its interval, rounded by it; bounds where no value is known."""
    if known_between(row):
        return between(row["bound_low"], row["bound_high"])
    return with_interval(row["value"], row["ci_low"], row["ci_high"], near=near(row))


def called(metric: str) -> str:
    """Name a metric inside a sentence."""
    name = BY_NAME[metric].title if metric in BY_NAME else metric.replace("_", " ")
    return name if name[1:2].isupper() else name[0].lower() + name[1:]


def _number(value: Any) -> float:
    """Give a cell as a number; NaN where it is missing."""
    return math.nan if value is None or pd.isna(value) else float(value)
