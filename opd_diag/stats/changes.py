"""Where a short curve changes its level: over positions or over checkpoints."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr

from opd_diag.stats.estimate import MIN_CLUSTERS, Floats
from opd_diag.stats.resampling import percentile_interval

ALPHA = 0.05

MOST_ORDERS = 2000
"""Orders of the points that are looked at where there are more."""

Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ChangePoint:
    """Where a curve changes its level, or that no change is established."""

    location: int | None
    """Index of the first point after the change; None: none is established."""
    location_low: int | None
    location_high: int | None
    """Between them lies the location in 95 % of the resamplings; None where there is none."""
    before: float
    after: float
    """Means of the points before and after the best split, those with small errors counting more; NaN where the curve
    has fewer than three points or `MIN_CLUSTERS` prompts."""
    p_value: float
    """Of no change at all, against resampled prompts; NaN where it cannot be said."""
    p_orders: float
    """Of points in random order; NaN where it was not asked for."""

    @property
    def jump(self) -> float:
        """After less before."""
        return self.after - self.before


def change_point(
    values: npt.ArrayLike,
    draws: npt.ArrayLike,
    n_clusters: int,
    *,
    delta: float = 0.0,
    shared_effects: bool = False,
) -> ChangePoint:
    """Find the one split of a curve that tells its two sides apart best, and whether that is more than chance.

    Formula: the split that leaves least squares around the means of both sides, points weighted by 1/variance over the
    resamplings. p-value: how often resampled curves, moved onto a level one, have as large a jump at any split, each in
    units of its deviation over the resamplings. Location interval: where the resampled curves have their best split.

    Parameters
    ----------
    values
        (P,) means of the curve, in order; what is not finite is left out.
    draws
        (B, P) the same in every resampling of prompts (:meth:`~opd_diag.stats.Resampling.means`).
    n_clusters
        Prompts behind the curve; of few the resamplings vary too little, which is made up for by Student's t.
    delta
        A jump of at most so much is none, and no point counts as surer than half of it: else a step far below it,
        between points that hardly vary, would tell its sides apart better than the one that is looked for.
    shared_effects
        Whether all prompts of a point share an effect, as checkpoints do: then the best split must also stand out among
        those of the same points in random order, which takes eight points at least.

    Returns
    -------
    ChangePoint
        ``location`` None unless every p-value is at most 5 % and the jump is beyond `delta`.

    Raises
    ------
    ValueError
        Shapes differ, or `delta` is negative.

    Notes
    -----
    Caution: it looks for one step. A curve that declines evenly changes too, and its location is where it is steepest
    or in the middle, with a wide interval.

    References
    ----------
    Antoch and Hušková (2001), Permutation tests in change point analysis; Montiel Olea and Plagborg-Møller (2019), for
    the largest of several deviations.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> curve = np.array([1.0, 1.0, 1.0, 0.2, 0.2])
    >>> found = change_point(curve, curve + rng.normal(scale=0.05, size=(500, 5)), 100)
    >>> found.location, found.location_low, found.location_high, found.p_value
    (3, 3, 3, 0.0)
    """
    curve, table = np.asarray(values, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if curve.ndim != 1 or table.ndim != 2 or table.shape[1] != len(curve):
        raise ValueError(f"Draws need one column a point, expected (B, {len(curve)}), found {table.shape}.")
    if not delta >= 0:
        raise ValueError(f"Delta must be at least 0, found {delta}.")
    known = np.flatnonzero(np.isfinite(curve) & np.isfinite(table).all(axis=0))
    if len(known) < 3 or n_clusters < MIN_CLUSTERS:
        return ChangePoint(None, None, None, math.nan, math.nan, math.nan, math.nan)
    curve, table = curve[known], table[:, known]
    before, after, gain = _splits(np.maximum(table.var(axis=0), (delta / 2) ** 2))
    jumps, resampled = curve @ (after - before), table @ (after - before)
    best = int(np.argmax(jumps**2 * gain))
    p_value = _p_none(jumps, resampled, n_clusters)
    p_orders = _p_orders(curve, after - before, gain) if shared_effects else math.nan
    levels = float(curve @ before[:, best]), float(curve @ after[:, best])
    if p_value > ALPHA or p_orders > ALPHA or abs(levels[1] - levels[0]) <= delta:
        return ChangePoint(None, None, None, *levels, p_value, p_orders)
    low, high = percentile_interval(np.argmax(resampled**2 * gain, axis=1))
    first, last = known[1 + math.floor(low)], known[1 + math.ceil(high)]
    return ChangePoint(int(known[1 + best]), int(first), int(last), *levels, p_value, p_orders)


def _p_none(jumps: Floats, resampled: Floats, n_clusters: int) -> float:
    """How often level curves have as large a jump somewhere, in units of its deviation."""
    varies = resampled.std(axis=0)
    varies = np.where(varies > 0, varies, np.inf)
    largest = (np.abs(resampled - resampled.mean(axis=0)) / varies).max(axis=1)
    # means vary more than resampled means do, by (G + 1)/(G - 1)
    deviation = float((np.abs(jumps) / varies).max()) * math.sqrt((n_clusters - 1) / (n_clusters + 1))
    return float((largest >= _as_normal(deviation, n_clusters)).mean())


def _as_normal(deviation: float, n_clusters: int) -> float:
    """Give the deviation of a normal that is as rare as this one of Student's t."""
    return -float(ndtri(stdtr(n_clusters - 1, -deviation)))


def _splits(variances: Floats) -> tuple[Floats, Floats, Floats]:
    """Give (P, P - 1) weights of the means before and after each split, and what its jump² takes off the squares."""
    largest = float(variances.max())
    exact = 1 / np.maximum(variances / largest, 1e-6) if largest > 0 else np.ones_like(variances)
    points = len(exact)
    is_after = np.arange(points)[:, None] > np.arange(points - 1)
    sides = [np.where(of, exact[:, None], 0.0) for of in (~is_after, is_after)]
    left, right = (of.sum(axis=0) for of in sides)
    return sides[0] / left, sides[1] / right, left * right / (left + right)


def _p_orders(curve: Floats, splits: Floats, gain: Floats) -> float:
    """How often the points in another order have as good a split."""
    best = ((curve[_orders(len(curve))] @ splits) ** 2 * gain).max(axis=1)
    observed = ((curve @ splits) ** 2 * gain).max()
    return float((best >= observed * (1 - 1e-12)).mean())


def _orders(points: int) -> Ints:
    """All orders of few points; of more, the given one and random ones from a fixed seed."""
    if math.factorial(points) <= MOST_ORDERS:
        return np.array(list(itertools.permutations(range(points))))
    rng = np.random.default_rng(points)
    return np.array([np.arange(points), *(rng.permutation(points) for _ in range(MOST_ORDERS - 1))])
