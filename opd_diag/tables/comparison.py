"""Two runs held against each other at one checkpoint each, paired on the prompts that both answered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.tables.bounds import Ends, bounded_metrics, ends_of_states, outer
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.rows import sample_of

COMPARISON_COLUMNS = [
    "states", "metric", "first", "second", "first_value", "second_value", "value", "ci_low", "ci_high", "p_value",
    "approximate", "paired", "n_prompts", "first_prompts", "second_prompts", "bound_low", "bound_high",
]  # fmt: skip

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Side:
    """One run at one checkpoint."""

    name: str
    states: Mapping[str, pd.DataFrame]
    """State tables by state set."""
    rollouts: Mapping[str, Sequence[Rollout]]
    """Whose states these are, by state set."""


def comparison_table(first: Side, second: Side, metrics: Sequence[str]) -> pd.DataFrame:
    """Give every metric of both, and the second less the first.

    Prompts are the same where their text as the models see it is. Where runs share prompts the difference is paired by
    prompt and over these alone; where they share none, it is that of two independent means (Welch),
    of which a share that is 0 or 1 keeps what so few prompts leave open.

    Parameters
    ----------
    first, second
        The two.
    metrics
        Of the catalogue; accuracy is added where both can be graded.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; `first_value` and `second_value` are over the prompts that the difference
        is about, intervals are 95 %, over prompts. Where a teacher's server left bounds alone, of either run, there is
        no value, and the difference lies between the least and the greatest there can be.
    """
    rows: list[dict[str, Any]] = []
    for states in (name for name in first.states if name in second.states):
        numbers = _numbers([*first.rollouts[states], *second.rollouts[states]])
        about = {"states": states, "first": first.name, "second": second.name}
        rows += [about | row for row in _metrics(first, second, states, numbers, metrics)]
        if states == "on-policy":
            rows += [about | row for row in _accuracy(first, second, numbers)]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _metrics(
    first: Side, second: Side, states: str, numbers: Mapping[str, int], metrics: Sequence[str]
) -> Iterator[dict[str, Any]]:
    tables, sides = (first.states[states], second.states[states]), []
    for side, table in zip((first, second), tables, strict=True):
        of = {rollout.prompt_index: numbers[rollout.prompt_text] for rollout in side.rollouts[states]}
        values, _, weights = sample_of(table)
        sides.append((values, table["prompt_index"].map(of).to_numpy(), weights))
    bounded = bounded_metrics(*tables)
    for metric in metrics:
        if metric in bounded:
            ends = [ends_of_states(table, [metric]) for table in tables]
            yield {"metric": metric} | _between(ends, [prompts for _, prompts, _ in sides])
            continue
        column = METRIC_NAMES.index(metric)
        yield {"metric": metric} | _difference([(v[:, [column]], p, w[:, [column]]) for v, p, w in sides]).columns


def _accuracy(first: Side, second: Side, numbers: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    sides = []
    for side in (first, second):
        graded = [r for r in side.rollouts["on-policy"] if r.is_correct is not None]
        right = np.array([[float(bool(r.is_correct))] for r in graded]).reshape(-1, 1)
        sides.append((right, np.array([numbers[r.prompt_text] for r in graded], dtype=int), np.ones_like(right)))
    if all(len(values) for values, _, _ in sides):
        yield {"metric": ACCURACY} | _difference(sides, share=True).columns


@dataclass(frozen=True)
class _Difference:
    """The second less the first, with the means of both."""

    means: tuple[stats.Estimate, stats.Estimate]
    found: stats.Estimate
    paired: bool

    @property
    def columns(self) -> dict[str, Any]:
        first, second = self.means
        return {
            "first_value": first.value,
            "second_value": second.value,
            "value": self.found.value,
            "ci_low": self.found.ci_low,
            "ci_high": self.found.ci_high,
            "p_value": self.found.p_value,
            "approximate": self.found.is_approximate,
            "paired": self.paired,
            "n_prompts": self.found.n_clusters,
            "first_prompts": first.n_clusters,
            "second_prompts": second.n_clusters,
        }


def _between(ends: Sequence[tuple[Ends, Ends]], prompts: Sequence[Any]) -> dict[str, Any]:
    """Give what lies between the second's least less the first's greatest, and the other way round."""
    (first_low, first_high), (second_low, second_high) = ends
    least, most = (
        _difference([(of, p, np.ones_like(of)) for of, p in zip(sides, prompts, strict=True)])
        for sides in ((first_high, second_low), (first_low, second_high))
    )
    first, second = ((one.value, other.value) for one, other in zip(least.means, most.means, strict=True))
    known = {
        name: low if low == high else math.nan
        for name, (low, high) in (("first_value", first), ("second_value", second))
    }
    return least.columns | outer(least.found, most.found) | known


def _difference(sides: list[tuple[Any, Any, Any]], *, share: bool = False) -> _Difference:
    common = np.intersect1d(sides[0][1], sides[1][1])
    kept = sides
    if len(common):
        kept = [(v[np.isin(p, common)], p[np.isin(p, common)], w[np.isin(p, common)]) for v, p, w in sides]
    means = [stats.clustered_mean(v[:, 0], p, weights=w[:, 0]) for v, p, w in kept]
    if len(common):
        found = stats.clustered_contrasts(kept, (-1.0, 1.0))[0]
        if share:
            shares = [pd.Series(v[:, 0]).groupby(p).mean().to_numpy() for v, p, _ in kept]
            found = stats.paired_share_difference(found, shares[0], shares[1])
    else:
        of = [stats.open_share(m, v) if share else m for m, (v, _, _) in zip(means, kept, strict=True)]
        found = stats.unpaired_difference(of[0], of[1])
    return _Difference((means[0], means[1]), found, bool(len(common)))


def _numbers(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Give the prompts of both runs numbers, equal text the same one."""
    return {text: i for i, text in enumerate(dict.fromkeys(r.prompt_text for r in rollouts))}


def direction_of(metric: str) -> int:
    """Say which way is better: 1 up, -1 down, 0 neither."""
    if metric == ACCURACY:
        return 1
    return {"up": 1, "down": -1}.get(str(BY_NAME[metric].better), 0)
