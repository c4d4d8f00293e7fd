"""Reading tables for evidence: the change of a metric over the run, and how to say it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from opd_diag.stats import kendall_tau
from opd_diag.stats.rounding import decimals_for, number, with_interval
from opd_diag.tables import BY_NAME, Tables
from opd_diag.tables.floors import floors_of, is_small


@dataclass(frozen=True)
class Change:
    """How a metric changed from the first to the last checkpoint on one state set."""

    metric: str
    first: float
    last: float
    difference: float
    """Last minus first, paired by prompt; NaN with one checkpoint."""
    ci_low: float
    ci_high: float
    tau: float
    """Kendall's tau of the checkpoints' means with their order; NaN with fewer than three."""
    n_prompts: int
    n_checkpoints: int
    floor: float = math.nan
    """Precision floor of the metric; NaN where there is none."""

    @property
    def within_floor(self) -> bool:
        """Whether rounding alone may have made the difference."""
        return is_small(self.difference, self.floor)

    @property
    def path(self) -> str:
        """Say where it went: name, first and last value, rounded by the interval."""
        name = BY_NAME[self.metric].title if self.metric in BY_NAME else self.metric.replace("_", " ")
        name = name[0].lower() + name[1:]
        if math.isnan(self.difference):
            return f"{name} {self._said(self.last)}"
        return f"{name} {self.ends}"

    @property
    def ends(self) -> str:
        """First and last value alone."""
        return f"{self._said(self.first)} → {self._said(self.last)}"

    @property
    def shift(self) -> str:
        """Say how far: the difference with its interval, rounded by it."""
        return with_interval(self.difference, self.ci_low, self.ci_high, signed=True, near=self.within_floor)

    def _said(self, value: float) -> str:
        # Two digits at least: an end of .046 beside a difference of 9.0 must not read as 0.0.
        by_error, by_size = decimals_for(value, self.ci_low, self.ci_high), decimals_for(value, math.nan, math.nan)
        return number(value, max(by_error, by_size))

    def thin(self, prompts: float) -> bool:
        """Whether there is nothing to compare, or fewer than `prompts` prompts to tell."""
        return self.n_prompts < prompts or self.n_checkpoints < 2

    def direction(self, least: float, order: float) -> int:
        """Give 1 for a rise, -1 for a fall, 0 where neither is established.

        A change counts when it is at least `least` and more than rounding can do, its interval excludes 0, and from
        three checkpoints on the order of the means goes the same way with a tau of at least `order`.
        """
        if self.within_floor:
            return 0
        if math.isnan(self.ci_low) or abs(self.difference) < least or self.ci_low <= 0 <= self.ci_high:
            return 0
        sign = 1 if self.difference > 0 else -1
        return 0 if not math.isnan(self.tau) and sign * self.tau < order else sign


def change(tables: Tables, metric: str, states: str) -> Change:
    """Read the change of `metric` on `states` between the first and the last checkpoint."""
    rows = tables.summary[(tables.summary["metric"] == metric) & (tables.summary["states"] == states)]
    values = rows["value"].to_numpy(float)
    labels = list(rows["label"])
    difference, low, high, prompts = math.nan, math.nan, math.nan, int(rows["n_prompts"].max()) if len(rows) else 0
    row = _difference(tables.differences, metric, states, labels[0], labels[-1]) if len(labels) > 1 else None
    if row is not None:
        difference, low, high, prompts = row["value"], row["ci_low"], row["ci_high"], int(row["n_prompts"])
    return Change(
        metric=metric,
        first=float(values[0]) if len(values) else math.nan,
        last=float(values[-1]) if len(values) else math.nan,
        difference=float(difference),
        ci_low=float(low),
        ci_high=float(high),
        tau=kendall_tau(range(len(values)), values),
        n_prompts=prompts,
        n_checkpoints=len(labels),
        floor=floors_of(rows).get(metric, math.nan),
    )


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


def is_scored(tables: Tables, states: str) -> bool:
    """Whether the run was scored on these states at all."""
    return bool((tables.summary["states"] == states).any())


def summary_row(tables: Tables, metric: str, states: str, place: int) -> pd.Series:
    """Give the summary row of a checkpoint, by its place in the order (0: first, -1: last)."""
    rows = tables.summary[(tables.summary["metric"] == metric) & (tables.summary["states"] == states)]
    return rows.iloc[place]
