"""Means of many small groups: how far they differ beyond chance, and each one drawn toward the mean of all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from opd_diag.stats.clustered import checked, one_column
from opd_diag.stats.estimate import Floats, half_width


@dataclass(frozen=True)
class GroupMeans:
    """Means of G groups; NaN wherever something is undefined."""

    means: Floats
    """(G,) of the defined values of each group; NaN of a group without any."""
    counts: npt.NDArray[np.intp]
    """(G,) defined values."""
    half_widths: Floats
    """(G,) half of the interval of each mean; NaN where no group has two values."""
    shrunken: Floats
    """(G,) each mean drawn toward the mean of all, the more the less it is known; the mean itself where that cannot be
    said."""
    within: float
    """Variance of values within a group, pooled over all groups; NaN where no group has two values."""
    between: float
    """Variance of the groups' true means, at least 0; NaN where `within` is or there is one group."""
    reliability: float
    """Share of the variance of the means that is a difference between groups: 0, chance alone ranks them; 1, none of it
    is chance. NaN where `between` is or nothing varies."""


def group_means(values: npt.ArrayLike, groups: npt.ArrayLike, *, level: float = 0.95) -> GroupMeans:
    """Give the mean of each group with its interval, and how far the means can be told apart.

    Formula: σ² = Σ_gi (x_gi - x̄_g)² / (N - G); x̄_g ± t(N - G) σ/√n_g. τ² = max(0, (M - σ²)/n₀), with M = Σ_g n_g
    (x̄_g - x̄)² / (G - 1) and n₀ = (N - Σ_g n_g²/N) / (G - 1). b_g = τ²/(τ² + σ²/n_g); m = Σ b_g x̄_g / Σ b_g;
    shrunken_g = m + b_g (x̄_g - m). Reliability is τ²/(τ² + mean of σ²/n_g).

    Parameters
    ----------
    values
        (N,) numbers; NaN is undefined and left out.
    groups
        (N,) label of the group of each value, of any dtype that sorts. Results come in the order of the sorted labels.
    level
        Coverage of the intervals, between 0 and 1.

    Raises
    ------
    ValueError
        The lengths differ, or `level` is not between 0 and 1.

    Notes
    -----
    Caution: one σ² for all groups gives groups of a few values an interval at all, which then covers as often as it
    says over all groups together: more often in groups that vary little, less often in those that vary much.

    References
    ----------
    Searle, Casella and McCulloch (1992), Variance components, sections 3.6 and 9.2 (analysis of variance estimators,
    unbalanced; best predictors); Efron and Morris (1975), Data analysis using Stein's estimator.

    Examples
    --------
    >>> found = group_means([1.0, 3.0, 5.0, 7.0, 9.0, 11.0], ["a", "a", "b", "b", "c", "c"])
    >>> found.means.tolist(), found.within, found.between, round(found.reliability, 4)
    ([2.0, 6.0, 10.0], 2.0, 15.0, 0.9375)
    >>> found.shrunken.tolist()
    [2.25, 6.0, 9.75]
    """
    table, labels, _ = checked(one_column(values), groups, None, level)
    _, codes = np.unique(labels, return_inverse=True)
    size = int(codes.max(initial=-1)) + 1
    known = ~np.isnan(table[:, 0])
    x, of = table[known, 0], codes[known]
    counts = np.bincount(of, minlength=size)
    some = counts > 0
    means = np.full(size, math.nan)
    means[some] = np.bincount(of, weights=x, minlength=size)[some] / counts[some]
    n, n_groups = len(x), int(some.sum())
    if n <= n_groups:
        nan = np.full(size, math.nan)
        return GroupMeans(means, counts, nan, means.copy(), math.nan, math.nan, math.nan)
    within = float(((x - means[of]) ** 2).sum()) / (n - n_groups)
    errors = np.full(size, math.nan)
    errors[some] = within / counts[some]
    halves = np.sqrt(errors) * half_width(1.0, n - n_groups, level)
    between = _between(x, means[some], counts[some], within)
    total = between + float(errors[some].mean())
    reliability = between / total if total > 0 else math.nan
    return GroupMeans(means, counts, halves, _shrunken(means, errors, between), within, between, reliability)


def _between(x: Floats, means: Floats, counts: npt.NDArray[np.intp], within: float) -> float:
    """Give the variance between groups by the moments of an analysis of variance; NaN of one group."""
    if len(means) < 2:
        return math.nan
    among = float((counts * (means - x.mean()) ** 2).sum()) / (len(means) - 1)
    size = (len(x) - float((counts**2).sum()) / len(x)) / (len(means) - 1)
    return max(0.0, (among - within) / size)


def _shrunken(means: Floats, errors: Floats, between: float) -> Floats:
    """Draw each mean toward the mean of all; where all variance is chance, every one is the mean of all."""
    totals = between + errors
    if not np.nansum(totals) > 0:  # one group, or nothing varies
        return means.copy()
    kept = between / totals
    weights = kept if between > 0 else 1 / totals
    middle = float(np.nansum(weights * means) / np.nansum(weights))
    return middle + kept * (means - middle)
