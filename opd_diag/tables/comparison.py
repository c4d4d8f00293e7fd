"""Two runs held against each other at one checkpoint each, paired on the prompts that both answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.rows import sample_of

COMPARISON_COLUMNS = [
    "states", "metric", "first", "second", "first_value", "second_value", "value", "ci_low", "ci_high", "p_value",
    "approximate", "paired", "n_prompts", "first_prompts", "second_prompts",
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
        is about, intervals are 95 %, over prompts.
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
    sides = []
    for side in (first, second):
        table = side.states[states]
        of = {rollout.prompt_index: numbers[rollout.prompt_text] for rollout in side.rollouts[states]}
        values, _, weights = sample_of(table)
        sides.append((values, table["prompt_index"].map(of).to_numpy(), weights))
    for metric in metrics:
        column = METRIC_NAMES.index(metric)
        yield {"metric": metric} | _difference([(v[:, [column]], p, w[:, [column]]) for v, p, w in sides])


def _accuracy(first: Side, second: Side, numbers: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    sides = []
    for side in (first, second):
        graded = [r for r in side.rollouts["on-policy"] if r.is_correct is not None]
        right = np.array([[float(bool(r.is_correct))] for r in graded]).reshape(-1, 1)
        sides.append((right, np.array([numbers[r.prompt_text] for r in graded], dtype=int), np.ones_like(right)))
    if all(len(values) for values, _, _ in sides):
        yield {"metric": ACCURACY} | _difference(sides, share=True)


def _difference(sides: list[tuple[Any, Any, Any]], *, share: bool = False) -> dict[str, Any]:
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
    return {
        "first_value": means[0].value,
        "second_value": means[1].value,
        "value": found.value,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "p_value": found.p_value,
        "approximate": found.is_approximate,
        "paired": bool(len(common)),
        "n_prompts": found.n_clusters,
        "first_prompts": means[0].n_clusters,
        "second_prompts": means[1].n_clusters,
    }


def _numbers(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Give the prompts of both runs numbers, equal text the same one."""
    return {text: i for i, text in enumerate(dict.fromkeys(r.prompt_text for r in rollouts))}


def direction_of(metric: str) -> int:
    """Say which way is better: 1 up, -1 down, 0 neither."""
    if metric == ACCURACY:
        return 1
    return {"up": 1, "down": -1}.get(str(BY_NAME[metric].better), 0)
