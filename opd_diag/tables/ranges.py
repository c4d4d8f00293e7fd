"""What each quantity of a summary can be at all, and intervals that stay within it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opd_diag.tables.catalogue import CATALOGUE
from opd_diag.tables.diversity import DIVERSITY
from opd_diag.tables.stops import STOP_METRICS

_SHARE, _AT_LEAST_0 = (0.0, 1.0), (0.0, math.inf)

SHARES = ("accuracy", "truncation_rate", "cycle_ratio", "repetition_rate")
"""Shares of responses, or of their tokens: of none and of all the interval is Wilson's (:func:`stats.open_share`)."""

RANGES: dict[str, tuple[float, float]] = {
    **{metric.name: (metric.low, metric.high) for metric in CATALOGUE},
    **dict.fromkeys(
        (*SHARES, "teacher_state_coverage", "top_advantage_share", "reward_auroc", "pass_at_k", *STOP_METRICS), _SHARE
    ),
    **{name: _SHARE if n > 1 else _AT_LEAST_0 for name, n in DIVERSITY.items()},
    **dict.fromkeys(("response_length", "compression_ratio"), _AT_LEAST_0),
    **dict.fromkeys(("fitted_temperature", "reverse_kl_after_temperature"), _AT_LEAST_0),
    "gradient_coherence": (-math.inf, 1.0),
}
"""Least and greatest value of each; whatever is not here can be any number."""


def range_of(name: str) -> tuple[float, float]:
    """Give the least and the greatest value of a quantity of a summary; infinite where there is none.

    Examples
    --------
    >>> range_of("overlap_ratio"), range_of("entropy_difference")
    ((0.0, 1.0), (-inf, inf))
    """
    return RANGES.get(name, (-math.inf, math.inf))


_ENDS = ("ci_low", "ci_high", "band_low", "band_high")


def within_range(table: pd.DataFrame) -> pd.DataFrame:
    """Cut intervals and bands of levels to what their metric can be at all, which takes nothing from their coverage.

    Parameters
    ----------
    table
        With the columns `metric`, `ci_low` and `ci_high`, and bands or not; of levels and not of differences.
    """
    ranges = np.array([range_of(name) for name in table["metric"]]).reshape(-1, 2)
    ends = {name: table[name].to_numpy(float) for name in _ENDS if name in table}
    # what is as large as its range by rounding alone keeps its value inside its interval
    value = table["value"].to_numpy(float)
    low, high = np.fmin(ranges[:, 0], value), np.fmax(ranges[:, 1], value)
    return table.assign(**{name: np.clip(end, low, high) for name, end in ends.items()})
