"""How unevenly a quantity lies over states: its percentiles, and how much of its sum the largest values hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.tables.rows import groups_of
from opd_diag.tables.states import IDENTITY

PERCENTS = (50, 90, 99)
"""Percentiles that are told."""

FEWEST = {50: 1, 90: 10, 99: 100}
"""Values from which a sentence or a picture tells each: a tenth of fewer than 10 is less than one of them."""

TOPS = {"held_by_1": 0.01, "held_by_10": 0.1}
"""Columns of what the largest values hold, and their share of the states."""

TAIL_COLUMNS = [
    *IDENTITY, "metric", *(f"p{percent}" for percent in PERCENTS),
    *(f"{name}{end}" for name in TOPS for end in ("", "_ci_low", "_ci_high", "_approximate")),
    "n_states", "n_prompts", "n_undefined", "n_infinite",
]  # fmt: skip

Floats = npt.NDArray[np.float64]


def tail_table(states: pd.DataFrame, metric: str = "reverse_kl") -> pd.DataFrame:
    """Give percentiles of a metric over states, and how much of its sum the largest values hold.

    Parameters
    ----------
    states
        From :func:`~opd_diag.tables.measure`.
    metric
        A metric that is 0 or more.

    Returns
    -------
    DataFrame
        One row a (checkpoint, state set), `TAIL_COLUMNS`. ``p99`` is as in :func:`percentile_place`; ``held_by_1`` and
        ``held_by_10`` as in :func:`top_share`, with 95 % intervals by the jackknife over prompts, cut to what a share
        can be, and whether they are approximate (:attr:`opd_diag.stats.Estimate.is_approximate`). States where the
        metric is undefined are left out and counted; where it is infinite, it is infinite in the percentiles, and what
        the largest hold is undefined.
    """
    rows = []
    for identity, group in groups_of(states, IDENTITY):
        known = group[group[metric].notna()]
        values, prompts = known[metric].to_numpy(float), known["prompt_index"].to_numpy()
        row: dict[str, Any] = identity | {"metric": metric}
        for percent in PERCENTS:
            row[f"p{percent}"] = float(values[percentile_place(values, percent)]) if len(values) else math.nan
        for name, top in TOPS.items():
            held = stats.clustered_jackknife(*top_share(values, prompts, top), n=len(values))
            low, high = np.clip([held.ci_low, held.ci_high], top, 1.0)
            row |= {name: held.value, f"{name}_ci_low": low, f"{name}_ci_high": high}
            row[f"{name}_approximate"] = held.is_approximate
        counts = {"n_states": len(values), "n_prompts": len(np.unique(prompts))}
        missing = {"n_undefined": len(group) - len(values), "n_infinite": int(np.isinf(values).sum())}
        rows.append(row | counts | missing)
    flags = dict.fromkeys((f"{name}_approximate" for name in TOPS), bool)
    return pd.DataFrame(rows, columns=TAIL_COLUMNS).astype({"step": "Int64", **flags})


def percentile_place(values: npt.ArrayLike, percent: int) -> int:
    """Give the place of the value that is a percentile: the least one that so many percent of all do not exceed.

    It is one of the values, so that it can be shown; of equal ones it is the first.

    Parameters
    ----------
    values
        (n,) all defined, at least one; infinite ones are larger than all others.
    percent
        1 to 100.

    Examples
    --------
    >>> percentile_place([5.0, 1.0, 4.0, 2.0], 50), percentile_place([5.0, 1.0, 4.0, 2.0], 99)
    (3, 0)
    """
    numbers = np.asarray(values, dtype=np.float64)
    rank = -(-len(numbers) * percent // 100)  # whole numbers alone, so that .99 · 300 is 297
    return int(np.argmax(numbers == np.sort(numbers)[rank - 1]))


def top_share(sizes: npt.ArrayLike, prompts: npt.ArrayLike, top: float) -> tuple[float, Floats]:
    """Give the share of a sum that lies in the largest of its terms.

    Formula: Σ_{i ≤ m} x_(i) / Σ_i x_(i), x in falling order and m = top · n, where the last term counts in part if m is
    no whole number.

    Parameters
    ----------
    sizes
        (n,) terms, 0 or more, all defined.
    prompts
        (n,) prompt of each.
    top
        Share of the terms that is the top, in (0, 1).

    Returns
    -------
    tuple
        The share, in [top, 1], and (G,) the share without each prompt, by rising number. NaN for fewer than 1/top
        terms, and where the sum is 0 or infinite.

    Examples
    --------
    >>> share, _ = top_share([6.0] + 9 * [1.0], [0, 1] * 5, 0.1)
    >>> share
    0.4
    """
    falling = np.asarray(sizes, dtype=np.float64)
    names, codes = np.unique(np.asarray(prompts), return_inverse=True)
    order = np.argsort(-falling, kind="stable")
    falling, codes = falling[order], codes[order]
    counts, totals = np.bincount(codes), np.bincount(codes, weights=falling)
    whole, n = float(falling.sum()), len(falling)
    left_out = np.full(len(names), np.nan)
    if not math.isfinite(whole):
        return math.nan, left_out
    for prompt, count in enumerate(counts):
        head = slice(0, math.ceil(top * (n - count)) + int(count))  # enough, whatever of it is this prompt's
        others = falling[head][codes[head] != prompt]
        left_out[prompt] = _share(others, n - int(count), whole - float(totals[prompt]), top)
    return _share(falling, n, whole, top), left_out


def _share(falling: Floats, n: int, total: float, top: float) -> float:
    """Give the share of `total` in the top of `n` sizes, of which at least the first come falling."""
    if n < round(1 / top) or not total > 0:
        return math.nan
    whole, part = divmod(top * n, 1.0)
    sum_ = float(falling[: int(whole)].sum())
    return (sum_ + part * float(falling[int(whole)]) if part else sum_) / total
