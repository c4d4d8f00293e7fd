"""Differences of means of two samples that share no cluster, and means of estimates that may depend on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opd_diag.stats.estimate import FEW_DEGREES, Estimate, check_level, half_width


def unpaired_difference(first: Estimate, second: Estimate, *, level: float = 0.95) -> Estimate:
    """Second mean minus first, of two samples without a cluster in common.

    Formula: x̄2 - x̄1 ± t(ν) √(e1² + e2²), e the standard errors; ν = (e1² + e2²)² / (e1⁴/ν1 + e2⁴/ν2) (Welch and
    Satterthwaite), ν1 and ν2 those of the two means.

    Parameters
    ----------
    first, second
        Means with their intervals, as :func:`~opd_diag.stats.clustered_mean` gives them.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        `n` counts the values of `second`, `n_clusters` the clusters of both, `n_undefined` the NaN of both. Without an
        interval of either there is none.

    References
    ----------
    Welch (1947), The generalization of Student's problem when several different population variances are involved,
    Biometrika 34.

    Examples
    --------
    >>> from opd_diag.stats import clustered_mean
    >>> one, two = (clustered_mean(v, range(5)) for v in ([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 5.0, 6.0, 7.0]))
    >>> found = unpaired_difference(one, two)
    >>> found.value, round(found.standard_error, 4), round(found.degrees_of_freedom, 9)
    (2.0, 1.0, 8.0)
    """
    check_level(level)
    squares = (first.standard_error**2, second.standard_error**2)
    freedoms = (first.degrees_of_freedom, second.degrees_of_freedom)
    parts = sum(s**2 / f for s, f in zip(squares, freedoms, strict=True))
    degrees = sum(squares) ** 2 / parts if parts > 0 else (math.nan if math.isnan(parts) else min(freedoms))
    return _estimate(
        second.value - first.value,
        math.sqrt(sum(squares)),
        degrees,
        level,
        n=second.n,
        n_clusters=first.n_clusters + second.n_clusters,
        n_undefined=first.n_undefined + second.n_undefined,
        is_approximate=first.is_approximate or second.is_approximate,
    )


def cautious_mean(estimates: Sequence[Estimate], *, level: float = 0.95) -> Estimate:
    """Mean of estimates that may depend on each other in any way, with an interval that is never too narrow for that.

    Formula: mean of the values ± t(min ν) · mean of the standard errors, which is their error if all err together.

    Parameters
    ----------
    estimates
        One or more.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        `n` and `n_undefined` are sums, `n_clusters` the largest of all.

    Examples
    --------
    >>> one = Estimate(1.0, 0.0, 2.0, 0.5, 10, 5, 0, degrees_of_freedom=4.0)
    >>> both = cautious_mean([one, Estimate(2.0, 1.0, 3.0, 0.7, 10, 5, 0, degrees_of_freedom=9.0)])
    >>> both.value, round(both.standard_error, 9), both.degrees_of_freedom
    (1.5, 0.6, 4.0)
    """
    check_level(level)
    if not estimates:
        raise ValueError("A mean of estimates needs at least one.")
    size = len(estimates)
    return _estimate(
        sum(e.value for e in estimates) / size,
        sum(e.standard_error for e in estimates) / size,
        min(e.degrees_of_freedom for e in estimates),
        level,
        n=sum(e.n for e in estimates),
        n_clusters=max(e.n_clusters for e in estimates),
        n_undefined=sum(e.n_undefined for e in estimates),
        is_approximate=any(e.is_approximate for e in estimates),
    )


def _estimate(
    value: float,
    error: float,
    degrees: float,
    level: float,
    *,
    n: int,
    n_clusters: int,
    n_undefined: int,
    is_approximate: bool,
) -> Estimate:
    """Make an estimate of a value and its error; without an error there is no interval."""
    if not (math.isfinite(value) and math.isfinite(error) and math.isfinite(degrees)):
        return Estimate(value, math.nan, math.nan, math.nan, n, n_clusters, n_undefined)
    half = half_width(error, degrees, level)
    rough = is_approximate or degrees < FEW_DEGREES
    return Estimate(value, value - half, value + half, error, n, n_clusters, n_undefined, degrees, rough)
