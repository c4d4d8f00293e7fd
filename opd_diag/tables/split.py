"""How much of a change on own states is the policy's, and how much comes from going to other states."""

from __future__ import annotations

from typing import Any

import pandas as pd

from opd_diag import stats
from opd_diag.tables.catalogue import BY_NAME, METRIC_NAMES
from opd_diag.tables.rows import estimate_columns, sample_of

SPLIT_COLUMNS = [
    "from_step", "from_label", "step", "label", "teacher", "metric", "k", "part",
    "value", "ci_low", "ci_high", "approximate", "n_prompts", "orders",
]  # fmt: skip

PARTS = ("on_policy_change", "policy_change", "state_change", "order_difference")
"""What a change on own states is split into; the last exists only where `back` was scored."""

_SAMPLES = {
    "start at start": ("start", "first"),
    "now at start": ("start", "now"),
    "now at own": ("on-policy", "now"),
    "start at own": ("back", "now"),
}
"""Name of each sample: its state set, and whose row it is in: the first checkpoint's or the checkpoint's own."""

_ONE_ORDER = {
    "on_policy_change": (-1.0, 0.0, 1.0),
    "policy_change": (-1.0, 1.0, 0.0),
    "state_change": (0.0, -1.0, 1.0),
}
_BOTH_ORDERS = {
    "on_policy_change": (-1.0, 0.0, 1.0, 0.0),
    "policy_change": (-0.5, 0.5, 0.5, -0.5),
    "state_change": (-0.5, -0.5, 0.5, 0.5),
    "order_difference": (1.0, -1.0, 1.0, -1.0),
}
"""Weights of the samples, in the order of `_SAMPLES`."""


def split_table(states: pd.DataFrame) -> pd.DataFrame:
    """Split the change of every metric on own states, since the first checkpoint, into policy change and state change.

    Formula, with M_a(S_b) the mean of a metric of student a over the states of b (as the catalogue aggregates it: of
    tokens, or a ratio of sums), 0 the first checkpoint and c a later one: M_c(S_c) - M_0(S_0) = [M_c(S_0) - M_0(S_0)] +
    [M_c(S_c) - M_c(S_0)], the policy change at the start's states and the state change under the new policy. Where
    `back` was scored, the other order is as good, and rows of their own average both: policy change ½ [M_c(S_0) -
    M_0(S_0)] + ½ [M_c(S_c) - M_0(S_c)], state change ½ [M_c(S_c) - M_c(S_0)] + ½ [M_0(S_c) - M_0(S_0)]. The order
    difference is [M_c(S_c) - M_0(S_c)] - [M_c(S_0) - M_0(S_0)]: how much larger the policy change is at the
    checkpoint's states than at the start's.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`: all checkpoints and state sets, the first checkpoint first.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`; intervals are 95 %, paired and clustered by prompt. All parts of one
        (checkpoint, metric, number of orders) rest on the prompts that have a defined value in every sample, so policy
        change and state change add up to the on-policy change. A metric that is nowhere defined at the start's states
        of a later checkpoint (a sampled one) has NaN. Empty where there is one checkpoint, and where `start` or
        `on-policy` was not scored.

    Notes
    -----
    Caution: one order alone books the interaction of both changes on the state change; a large order difference says
    that the split depends on the order. The mean over own states is also moved by which responses got longer.

    References
    ----------
    The decomposition is that of Kitagawa (1955), Components of a difference between two rates; averaging both orders,
    Das Gupta (1978).
    """
    labels = list(dict.fromkeys(states["label"]))
    by_set = dict(iter(states.groupby(["label", "states"], sort=False)))
    rows: list[dict[str, Any]] = []
    for label in labels[1:]:
        places = {"first": labels[0], "now": label}
        found = [by_set.get((places[whose], state_set)) for state_set, whose in _SAMPLES.values()]
        samples = [sample for sample in found if sample is not None]
        if all(sample is not None for sample in found[:3]):
            rows += _rows(samples)
    types = {"from_step": "Int64", "step": "Int64", "k": "Int64", "approximate": "bool"}
    return pd.DataFrame(rows, columns=SPLIT_COLUMNS).astype(types)


def _rows(samples: list[pd.DataFrame]) -> list[dict[str, Any]]:
    """Give the rows of one checkpoint, metric by metric."""
    first, now = samples[0].iloc[0], samples[1].iloc[0]
    pair = {"from_step": first["step"], "from_label": first["label"], "step": now["step"], "label": now["label"]}
    columns = [sample_of(sample) for sample in samples]
    estimates = {
        (part, orders): stats.clustered_contrasts(columns[: len(weights)], weights)
        for orders, parts in ((1, _ONE_ORDER), (2, _BOTH_ORDERS))[: len(samples) - 2]
        for part, weights in parts.items()
    }
    return [
        pair
        | {"teacher": now["teacher"], "metric": name, "part": part, "orders": orders}
        | {"k": now["k"] if BY_NAME[name].depends_on_k else pd.NA}
        | {column: value for column, value in estimate_columns(of[i]).items() if column in SPLIT_COLUMNS}
        for i, name in enumerate(METRIC_NAMES)
        for (part, orders), of in estimates.items()
    ]
