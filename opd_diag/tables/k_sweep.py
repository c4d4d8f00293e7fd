"""How many most probable ids a teacher's server must return for this pair: bounds at every K up to what it gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.states import IDENTITY, identity_of

SWEEP_COLUMNS = [*IDENTITY, "metric", "top", "bound_low", "bound_high", "n_states"]

SWEPT = ("forward_kl", "reverse_kl", "jensen_shannon", "common_mass", "teacher_entropy")
"""Metrics that take whole distributions, and have bounds that a larger K narrows."""


def sweep_table(scored: Iterable[tuple[Scores, Sequence[Rollout]]]) -> pd.DataFrame:
    """Average, for every K of a sweep, the bounds that a server's first K ids would have left.

    Parameters
    ----------
    scored
        Scores and what they are of, one pair a (step, state set), in the order of the checkpoints.

    Returns
    -------
    DataFrame
        Columns as in :mod:`opd_diag.tables`, one row a (step, state set, metric, K); token means over all states, in
        the unit of the metric. Empty where whole distributions were seen.

    Notes
    -----
    From one answer: the first K ids of a larger answer are those of a smaller one, and the bounds at K are those of
    them, of the sampled token, and of the ids that were asked for.
    """
    rows: list[dict[str, Any]] = []
    for scores, _ in scored:
        about = {name: value for name, (value, _) in identity_of(scores).items()}
        states = ~np.asarray(scores.terminal)
        for name in SWEPT if scores.bounds else ():
            ends = np.asarray(scores.bounds[name], dtype=np.float64)[states]
            for j, top in enumerate(scores.bound_ks):
                low, high = ends[:, j].mean(axis=0)
                rows.append(
                    about | {"metric": name, "top": top, "bound_low": low, "bound_high": high, "n_states": len(ends)}
                )
    types = {"step": "Int64", "top": "int64", "n_states": "int64"}
    return pd.DataFrame(rows, columns=SWEEP_COLUMNS).astype(types)


def sufficient(sweep: pd.DataFrame, metric: str, width: float) -> int | None:
    """Give the smallest K whose bounds are no wider than `width` on every checkpoint and state set; None: none is.

    Examples
    --------
    >>> rows = pd.DataFrame({"metric": "forward_kl", "top": [8, 16], "bound_low": 0.1, "bound_high": [0.4, 0.11]})
    >>> sufficient(rows, "forward_kl", 0.02), sufficient(rows, "forward_kl", 0.001)
    (16, None)
    """
    rows = sweep[sweep["metric"] == metric]
    widest = (rows["bound_high"] - rows["bound_low"]).groupby(rows["top"]).max()
    enough = widest.index[widest <= width]
    return int(enough[0]) if len(enough) else None
