"""Shares of few trials, and what a share that none or all had leaves open."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from opd_diag.stats.estimate import Estimate, check_level


def wilson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share k/n of independent trials, good also at 0, at 1 and of few trials; NaN without a trial.

    References
    ----------
    Wilson (1927), Probable inference, Journal of the American Statistical Association 22.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(58, 60)]
    [0.886, 0.991]
    """
    check_level(level)
    if not 0 <= hits <= trials:
        raise ValueError(f"Hits must be 0 to the number of trials, found {hits} of {trials}.")
    if not trials:
        return math.nan, math.nan
    z = float(ndtri((1 + level) / 2))
    share, more = hits / trials, z * z / trials
    middle = (share + more / 2) / (1 + more)
    half = z / (1 + more) * math.sqrt(share * (1 - share) / trials + more / (4 * trials))
    return (middle - half if hits else 0.0), (middle + half if hits < trials else 1.0)


def open_share(estimate: Estimate, values: npt.ArrayLike, level: float = 0.95) -> Estimate:
    """Give the share of none, or of all, what it leaves open; any other estimate as it is.

    Where all values are 0, or all 1, nothing varies, and an interval from their variance has no width. Formula:
    Wilson's interval, [0, z²/(G + z²)] of none, with each cluster as one trial, as if those of one cluster were alike.

    Parameters
    ----------
    estimate
        Of `values`, with its interval.
    values
        (N,) between 0 and 1; NaN is left out.
    level
        Coverage of the interval, between 0 and 1.

    Examples
    --------
    >>> from opd_diag.stats import clustered_mean
    >>> never = open_share(clustered_mean([0.0] * 12, range(12)), [0.0] * 12)
    >>> never.value, never.ci_low, round(never.ci_high, 3)
    (0.0, 0.0, 0.242)
    """
    share = _constant(values)
    if math.isnan(estimate.standard_error) or share is None:
        return estimate
    low, high = _wilson_of(share, estimate, level)
    return replace(estimate, ci_low=low, ci_high=high, standard_error=_error(high - low, estimate, level))


def open_share_difference(
    estimate: Estimate, first: npt.ArrayLike, second: npt.ArrayLike, level: float = 0.95
) -> Estimate:
    """Do :func:`open_share` for the second share minus the first, of the same clusters, where neither varies.

    Formula: d - √((d₂ - l₂)² + (u₁ - d₁)²) and d + √((u₂ - d₂)² + (d₁ - l₁)²), with l and u the ends of each one's
    Wilson interval (Newcombe's square-and-add), both of the clusters that they share.

    References
    ----------
    Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in Medicine 17,
    method 10.

    Examples
    --------
    >>> from opd_diag.stats import clustered_mean_difference
    >>> never = [0.0] * 12
    >>> same = open_share_difference(clustered_mean_difference(never, range(12), never, range(12)), never, never)
    >>> same.value, round(same.ci_low, 3), round(same.ci_high, 3)
    (0.0, -0.242, 0.242)
    """
    one, two = _constant(first), _constant(second)
    if math.isnan(estimate.standard_error) or one is None or two is None:
        return estimate
    (low_1, high_1), (low_2, high_2) = (_wilson_of(share, estimate, level) for share in (one, two))
    low = two - one - math.hypot(two - low_2, high_1 - one)
    high = two - one + math.hypot(high_2 - two, one - low_1)
    error = _error(max(high - estimate.value, estimate.value - low), estimate, level)
    return replace(estimate, ci_low=low, ci_high=high, standard_error=error)


def _constant(values: npt.ArrayLike) -> float | None:
    """Give 0 or 1 where all defined values are just that."""
    known = np.unique(np.asarray(values, dtype=np.float64))
    known = known[~np.isnan(known)]
    return float(known[0]) if len(known) == 1 and known[0] in (0.0, 1.0) else None


def _wilson_of(share: float, estimate: Estimate, level: float) -> tuple[float, float]:
    """Give Wilson's interval of 0 or 1, each cluster of the estimate a trial."""
    return wilson(round(share * estimate.n_clusters), estimate.n_clusters, level)


def _error(reach: float, estimate: Estimate, level: float) -> float:
    """Give the standard error whose t reaches as far as the interval does."""
    return reach / float(stdtrit(estimate.degrees_of_freedom, (1 + level) / 2))
