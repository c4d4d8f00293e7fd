"""Whether nothing happens: that must be shown, and "not significant" does not show it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from opd_diag.stats.estimate import MIN_CLUSTERS, Estimate, Floats

Likeness = Literal["different", "equivalent", "inconclusive"]

ALPHA = 0.05


@dataclass(frozen=True)
class Equivalence:
    """Whether a number is 0 within delta, for these very checkpoints and teachers."""

    outcome: Likeness
    """``different``: established beyond `delta`. ``equivalent``: established within `delta`. ``inconclusive``: neither,
    or there is no interval."""
    estimate: Estimate
    delta: float
    low: float
    high: float
    """The interval that must lie within ±`delta`: of 90 %, so that each side errs 5 times in 100."""
    clusters_needed: int | None
    """How many prompts would decide it, if number and spread stay as they are; None where it is decided, where there is
    no interval, or where the number lies so close to `delta` that a million would not do."""


def equivalence(estimate: Estimate, delta: float, *, one_sided: bool = False) -> Equivalence:
    """Hold a difference against ±`delta`, with three answers.

    Two one-sided tests at 5 %: ``equivalent`` where the 90 % interval lies within (-delta, delta), ``different`` where
    the 95 % interval lies beyond delta on one side. One-sided only the upper side can fail: ``equivalent`` where the
    one-sided 95 % bound is under delta (non-inferiority), ``different`` where the lower one is over it.

    Parameters
    ----------
    estimate
        A difference, or a quantity that is 0 between equals.
    delta
        Greater than 0, chosen before looking.
    one_sided
        Whether only a rise counts: where a fall does no harm, or of a quantity that is at least 0 by nature, as a KL
        between two teachers.

    Raises
    ------
    ValueError
        `delta` is not finite or not over 0.

    References
    ----------
    Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach.

    Examples
    --------
    >>> small = Estimate(0.001, -0.005, 0.007, 0.003, 900, 40, 0, degrees_of_freedom=39.0)
    >>> equivalence(small, 0.02).outcome, equivalence(small, 0.004).outcome, equivalence(small, 0.004).clusters_needed
    ('equivalent', 'inconclusive', 111)
    """
    if not (math.isfinite(delta) and delta > 0):
        raise ValueError(f"Delta must be finite and over 0, found {delta}.")
    low, high = estimate.interval(1 - 2 * ALPHA)
    outcome: Likeness = "inconclusive"
    if max(-low, high) < delta or (one_sided and high < delta):
        outcome = "equivalent"
    elif (low > delta) if one_sided else (estimate.ci_low > delta or estimate.ci_high < -delta):
        outcome = "different"
    needed = _clusters_needed(estimate, delta, one_sided) if outcome == "inconclusive" else None
    return Equivalence(outcome, estimate, delta, low, high, needed)


def _clusters_needed(estimate: Estimate, delta: float, one_sided: bool) -> int | None:
    """Find how many clusters make the error small against the distance from `delta`."""
    value, n = estimate.value if one_sided else abs(estimate.value), estimate.n_clusters
    distance = abs(delta - value)
    if not estimate.standard_error > 0 or not distance > 0:
        return None
    inside = one_sided or value < delta
    wanted, degrees = float(n), estimate.degrees_of_freedom
    for _ in range(20):  # t falls with the degrees of freedom, which grow with the clusters
        quantile = float(stdtrit(max(degrees * wanted / n, 1.0), 1 - ALPHA if inside else 1 - ALPHA / 2))
        wanted = max(MIN_CLUSTERS, n * (quantile * estimate.standard_error / distance) ** 2)
    return math.ceil(wanted) if wanted <= 1e6 else None


def detectable_difference(estimate: Estimate, power: float = 0.8) -> float:
    """Smallest true difference that as many prompts would show, at 5 %, so often as `power` says.

    Formula: (t(1 - 5 %/2) + t(power)) · standard error. NaN where there is no interval.

    Examples
    --------
    >>> estimate = Estimate(0.001, -0.005, 0.007, 0.003, 900, 40, 0, degrees_of_freedom=39.0)
    >>> round(detectable_difference(estimate), 4)
    0.0086
    """
    if math.isnan(estimate.standard_error):
        return math.nan
    quantiles = stdtrit(estimate.degrees_of_freedom, [1 - ALPHA / 2, power])
    return float(quantiles.sum()) * estimate.standard_error


def plateau_weights(order: npt.ArrayLike) -> Floats:
    """Give the weights whose sum with the means of a curve's last part is its drift: slope times length.

    With :func:`~opd_diag.stats.clustered_contrasts` they give the drift with an interval over prompts. Of two points
    the drift is their difference.

    Parameters
    ----------
    order
        (C,) places of the checkpoints of that part: their steps, or 0, 1, 2, …

    Examples
    --------
    >>> plateau_weights([0, 1]).tolist(), plateau_weights([0, 10, 20]).tolist()
    ([-1.0, 1.0], [-1.0, 0.0, 1.0])
    """
    x = np.asarray(order, dtype=np.float64)
    if len(x) < 2 or not np.ptp(x) > 0:
        raise ValueError(f"A drift needs two places at least, found {x.tolist()}.")
    around = x - x.mean()
    return np.asarray(around * np.ptp(x) / float(around @ around))


def plateau(order: npt.ArrayLike, values: npt.ArrayLike, drift: Estimate, delta: float) -> Equivalence:
    """Whether the last part of a curve stays level: its drift is 0 within `delta`.

    Parameters
    ----------
    order, values
        (C,) places and means of the checkpoints of that part.
    drift
        Slope times length, with its error over prompts (:func:`plateau_weights`).
    delta
        As :func:`equivalence`.

    Notes
    -----
    From four checkpoints on their scatter around the line is an error of the drift too, and takes in what all prompts
    of a checkpoint share; the wider interval counts. With fewer, the answer is about these checkpoints alone.

    Examples
    --------
    >>> drift = Estimate(0.002, -0.004, 0.008, 0.003, 900, 40, 0, degrees_of_freedom=39.0)
    >>> plateau([1, 2, 3, 4], [0.50, 0.51, 0.50, 0.502], drift, 0.02).outcome
    'inconclusive'
    >>> plateau([1, 2, 3, 4], [0.500, 0.501, 0.500, 0.502], drift, 0.02).outcome
    'equivalent'
    """
    x, y = np.asarray(order, dtype=np.float64), np.asarray(values, dtype=np.float64)
    weights = plateau_weights(x)
    if len(x) < 4 or math.isnan(drift.standard_error):
        return equivalence(drift, delta)
    line = np.polynomial.Polynomial.fit(x, y, 1)
    scatter = math.sqrt(float(((y - line(x)) ** 2).sum()) / (len(x) - 2) * float(weights @ weights))
    wider = replace(drift, standard_error=scatter, degrees_of_freedom=float(len(x) - 2))
    (low, high), before = wider.interval(0.95), drift.ci_high - drift.ci_low
    return equivalence(replace(wider, ci_low=low, ci_high=high) if high - low > before else drift, delta)
