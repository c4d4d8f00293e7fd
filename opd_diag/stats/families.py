"""Many numbers looked at together: bands for whole curves, p-values for whole families."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from opd_diag.stats.estimate import Estimate, Floats, check_level


def simultaneous_band(
    estimates: Sequence[Estimate], draws: npt.ArrayLike, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Give a band that holds the whole curve at once, where intervals hold each point alone.

    Formula: value ± c · standard error; c from the `level` quantile over resamplings of the largest |draw - mean| of
    the curve, each in units of its own deviation (sup-t), carried over to the t of each point at equal probability.

    Parameters
    ----------
    estimates
        (C,) points of the curve, with their errors and degrees of freedom.
    draws
        (B, C) the same in every resampling of prompts (:meth:`~opd_diag.stats.Resampling.means`).
    level
        Coverage of the whole curve, between 0 and 1.

    Returns
    -------
    low, high
        (C,) each; NaN where a point has no interval. Never narrower than the points' own intervals.

    Raises
    ------
    ValueError
        `draws` has not one column a point, or `level` is not between 0 and 1.

    References
    ----------
    Montiel Olea and Plagborg-Møller (2019), Simultaneous confidence bands, Journal of Applied Econometrics 34(1).

    Examples
    --------
    >>> points = [Estimate(v, v - 0.2, v + 0.2, 0.1, 99, 99, 0, degrees_of_freedom=98.0) for v in (1.0, 2.0)]
    >>> low, high = simultaneous_band(points, np.random.default_rng(0).normal(size=(4000, 2)))
    >>> ((high - low) / 0.2).round(1).tolist()  # two points alone would have 2.0 each
    [2.2, 2.2]
    """
    check_level(level)
    table = np.asarray(draws, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(estimates):
        raise ValueError(f"Draws need one column a point, expected (B, {len(estimates)}), found {table.shape}.")
    errors = np.array([e.standard_error for e in estimates])
    values = np.array([e.value for e in estimates])
    critical = np.full(len(estimates), math.nan)
    usable = np.isfinite(errors) & np.isfinite(table).all(axis=0)
    apart = table[:, usable] - table[:, usable].mean(axis=0)
    spread = apart.std(axis=0)
    widest = float(ndtri((1 + level) / 2))
    if (spread > 0).any():
        largest = np.abs(apart[:, spread > 0] / spread[spread > 0]).max(axis=1)
        widest = max(widest, float(np.quantile(largest, level)))
    degrees = np.array([e.degrees_of_freedom for e in estimates])
    critical[usable] = stdtrit(degrees[usable], ndtr(widest))
    return values - critical * errors, values + critical * errors


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values so that the chance of any false claim in the family stays under the level; NaN is left out.

    Formula: sorted, the i-th smallest of m becomes the largest of (m - j + 1) p_j over j ≤ i, at most 1.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2).

    Examples
    --------
    >>> holm([0.01, float("nan"), 0.04, 0.03]).round(2).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
