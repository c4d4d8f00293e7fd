"""Intervals for statistics that are no means: leave out one prompt at a time."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from opd_diag.stats.estimate import Estimate, check_level, estimate_from


def clustered_jackknife(
    value: float, left_out: npt.ArrayLike, *, n: int, n_undefined: int = 0, level: float = 0.95
) -> Estimate:
    """Give any statistic an interval clustered by prompt, from its values without each prompt.

    Formula: Var = (G - 1)/G · Σ_g (θ_(g) - θ̄)², with θ_(g) the statistic without cluster g and θ̄ their mean;
    θ ± t(G - 1) · √Var. The value itself is not corrected for bias.

    Parameters
    ----------
    value
        The statistic θ of all clusters.
    left_out
        (G,) θ_(g), one a cluster.
    n, n_undefined
        Counts of the result: what the statistic rests on, and what was left out.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        `n_clusters` is G. With fewer than 5 clusters, where `value` is not finite, or where the statistic is
        undefined (NaN) without some cluster, the interval is NaN.

    Raises
    ------
    ValueError
        `left_out` has not one dimension, or `level` is not between 0 and 1.

    Notes
    -----
    For a mean of clusters of equal size this is the interval of :func:`~opd_diag.stats.clustered_mean`. Caution: it is
    right for statistics that change little by little as clusters leave; it fails for a maximum or a median.

    References
    ----------
    Tukey (1958), Bias and confidence in not quite large samples; Efron and Stein (1981), The jackknife estimate of
    variance, Annals of Statistics 9(3).

    Examples
    --------
    >>> left_out = [6.0, 5.5, 5.0, 4.5, 4.0]  # the mean of 1, 3, 5, 7 and 9, without each
    >>> estimate = clustered_jackknife(5.0, left_out, n=5)
    >>> estimate.value, round(estimate.standard_error, 4), estimate.n_clusters
    (5.0, 1.4142, 5)
    """
    check_level(level)
    without = np.asarray(left_out, dtype=np.float64)
    if without.ndim != 1:
        raise ValueError(f"Expected one value a cluster, shape (G,), found {without.shape}.")
    groups = len(without)
    if not np.isfinite(without).all() or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, math.nan, n, groups, n_undefined)
    alike = np.full(groups, 1 / max(groups, 1))
    influence = (1 - alike) * (without.mean() - without) if groups else without
    return estimate_from(value, influence, alike, n, n_undefined, level)


def clustered_jackknife_difference(
    first: float,
    first_left_out: npt.ArrayLike,
    second: float,
    second_left_out: npt.ArrayLike,
    *,
    n: int,
    n_undefined: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Statistic of the second sample minus that of the first, paired by cluster.

    Formula: as :func:`clustered_jackknife`, with θ = θ2 - θ1 and θ_(g) = θ2_(g) - θ1_(g).

    Parameters
    ----------
    first, second
        The statistic of each sample, both over the same clusters.
    first_left_out, second_left_out
        (G,) each, the statistic without each cluster, the clusters in the same order.
    n, n_undefined, level
        As :func:`clustered_jackknife`.

    Returns
    -------
    Estimate
        As there; NaN where either sample's statistic is.

    Raises
    ------
    ValueError
        The two sides have not the same clusters, or as there.

    Examples
    --------
    >>> first, second = [6.0, 5.5, 5.0, 4.5, 4.0], [9.0, 7.5, 7.0, 6.5, 5.0]
    >>> estimate = clustered_jackknife_difference(5.0, first, 7.0, second, n=5)
    >>> estimate.value, round(estimate.standard_error, 4)
    (2.0, 1.2649)
    """
    sides = [np.asarray(first_left_out, dtype=np.float64), np.asarray(second_left_out, dtype=np.float64)]
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"Both sides need the same clusters, found shapes {sides[0].shape} and {sides[1].shape}.")
    return clustered_jackknife(second - first, sides[1] - sides[0], n=n, n_undefined=n_undefined, level=level)
