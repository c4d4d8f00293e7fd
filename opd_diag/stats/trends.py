"""Whether a number rises or falls over the checkpoints of a run: a change that counts, and an order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from opd_diag.stats.estimate import Estimate
from opd_diag.stats.resampling import percentile_interval, taus

ALPHA = 0.05
"""Level of every test here."""

Course = Literal["rises", "falls", "changes", "no trend", "unknown"]


@dataclass(frozen=True)
class Trend:
    """What the curve over these checkpoints does. It describes them: another seed may behave otherwise."""

    outcome: Course
    """``rises`` or ``falls``: the change is established beyond `delta`, and the order of the checkpoints goes the same
    way. ``changes``: the change is established and the order is not. ``no trend``: the change is not established, which
    does not say that there is none (:func:`~opd_diag.stats.equivalence` may). ``unknown``: there is no interval."""
    change: Estimate
    """Last minus first, paired by prompt."""
    delta: float
    """What the change must exceed."""
    tau: float
    """Kendall's tau of the means with their order; NaN with fewer than three checkpoints."""
    tau_low: float
    tau_high: float
    """95 % of tau over resampled prompts, for these very checkpoints; NaN without resamplings."""
    p_value: float
    """Exact, of tau over all orders of the checkpoints; NaN with fewer than three."""
    n_checkpoints: int
    order_is_tested: bool
    """Whether `p_value` could be at most 5 % at all. If not (up to three checkpoints, four without a direction known
    before), the outcome asks for every checkpoint in order, and a run whose checkpoints only scatter is taken for a
    trend more often than 5 times in 100 unless its scatter is small beside `delta`."""

    @property
    def sign(self) -> int:
        """1 of a rise, -1 of a fall, 0 otherwise."""
        return {"rises": 1, "falls": -1}.get(self.outcome, 0)


def trend(
    values: npt.ArrayLike,
    change: Estimate,
    *,
    delta: float = 0.0,
    direction: int = 0,
    draws: npt.ArrayLike | None = None,
) -> Trend:
    """Judge a curve over checkpoints: whether its total change is beyond `delta`, and whether they lie in order.

    The change is established where its interval lies beyond `delta` on one side. The order is tested by Kendall's tau
    against all orders of the checkpoints. Both must hold and agree.

    Parameters
    ----------
    values
        (C,) one mean a checkpoint, in their order; what is not finite is left out.
    change
        Last minus first, paired by prompt (:func:`~opd_diag.stats.clustered_mean_difference`).
    delta
        At least 0: what a change must exceed to count; the larger of twice the precision floor and a documented effect.
    direction
        1 or -1 where a rise or a fall was asked for before looking: the p-value is one-sided, and the other direction
        is then tested one-sided as well, each at 5 %. 0: two-sided.
    draws
        (B, C) the means in every resampling of prompts (:meth:`~opd_diag.stats.Resampling.means`), for tau's interval.

    Raises
    ------
    ValueError
        `delta` is negative or not finite, `direction` is not -1, 0 or 1, or `draws` has other columns than `values`.

    Notes
    -----
    An effect that all prompts of a checkpoint share (its place in the noise of training) is in no interval over
    prompts, and tests over prompts such as Page's take it for a trend, 11 to 34 times in 100 in simulations. Over
    all orders of the checkpoints the test is exact where such effects are exchangeable, whatever their size, from four
    checkpoints on with a direction and five without. It does not hold where they wander from checkpoint to checkpoint:
    nothing within one run can tell such a course from a trend.

    References
    ----------
    Kendall (1938), A new measure of rank correlation; Mann (1945), Nonparametric tests against trend.

    Examples
    --------
    >>> change = Estimate(-0.4, -0.5, -0.3, 0.05, 900, 40, 0, degrees_of_freedom=39.0)
    >>> found = trend([0.9, 0.8, 0.6, 0.55, 0.5], change, delta=0.02, direction=-1)
    >>> found.outcome, round(found.tau, 3), round(found.p_value, 4), found.order_is_tested
    ('falls', -1.0, 0.0083, True)
    """
    if not (math.isfinite(delta) and delta >= 0):
        raise ValueError(f"Delta must be finite and at least 0, found {delta}.")
    if direction not in (-1, 0, 1):
        raise ValueError(f"The direction must be -1, 0 or 1, found {direction}.")
    curve = np.asarray(values, dtype=np.float64)
    known = np.isfinite(curve)
    n = int(known.sum())
    sign = (change.ci_low > delta) - (change.ci_high < -delta)
    sides = 1 if direction else 2
    tested = n > 1 and sides / math.factorial(n) <= ALPHA
    tau, p = kendall_tau(range(len(curve)), curve), order_p_value(curve[known], sides=sides)
    in_order = (p <= ALPHA if tested else len(set(np.sign(np.diff(curve[known])))) == 1) and (n == 2 or tau * sign > 0)
    outcome: Course = "unknown" if math.isnan(change.ci_low) or n < 2 else "no trend"
    if sign and outcome != "unknown":
        outcome = ("rises" if sign > 0 else "falls") if in_order else "changes"
    low, high = _tau_interval(draws, known) if n > 2 else (math.nan, math.nan)
    return Trend(outcome, change, delta, tau, low, high, p, n, tested)


def _tau_interval(draws: npt.ArrayLike | None, known: npt.NDArray[np.bool_]) -> tuple[float, float]:
    if draws is None:
        return math.nan, math.nan
    table = np.asarray(draws, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(known):
        raise ValueError(f"Draws need one column a value, expected (B, {len(known)}), found {table.shape}.")
    return percentile_interval(taus(table[:, known]))


def order_p_value(values: npt.ArrayLike, *, sides: int = 1) -> float:
    """How often a random order of the checkpoints is as much an order as this one; exact, NaN below three.

    One-sided in the direction in which they lie; doubled, at most 1, with `sides` 2. Ties count as no order, which
    makes it a little too large.

    Examples
    --------
    >>> order_p_value([1.0, 2.0, 3.0, 4.0]) * 24, order_p_value([1.0, 2.0, 4.0, 3.0]) * 24
    (1.0, 4.0)
    """
    curve = np.asarray(values, dtype=np.float64)
    n = len(curve)
    if n < 3:
        return math.nan
    later, earlier = np.triu_indices(n, 1)[::-1]
    score = abs(int(np.sign(curve[later] - curve[earlier]).sum()))
    counts = np.ones(1)  # permutations by number of inversions: adding the m-th checkpoint makes 0 to m - 1 more
    for m in range(2, n + 1):
        counts = np.convolve(counts, np.full(m, 1 / m))
    inversions = np.arange(len(counts))
    return min(1.0, sides * float(counts[n * (n - 1) // 2 - 2 * inversions >= score].sum()))


def kendall_tau(order: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Kendall's rank correlation (tau-b) of `values` with `order`: 1 if every later value is higher, -1 if lower.

    Parameters
    ----------
    order
        (C,) what puts the values in order, for example the step.
    values
        (C,) one number a checkpoint; NaN and infinite ones are left out.

    Returns
    -------
    float
        In [-1, 1]; NaN with fewer than three finite points, or where either side is constant.

    Raises
    ------
    ValueError
        The lengths differ.

    Notes
    -----
    Caution: it describes this run's curve and tests nothing. Checkpoints of one run share its seed, prompts and data
    order, so they are no independent draws: a p-value or an interval from the points alone would be several times too
    sure, and none is given. Nor does it tell how large the change is: a rise of 0.001 per step scores 1 like any other.

    References
    ----------
    Kendall (1945), The treatment of ties in ranking problems.

    Examples
    --------
    >>> round(kendall_tau([0, 20, 40, 60], [0.1, 0.3, 0.2, 0.4]), 4)
    0.6667
    """
    x, y = np.asarray(order, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"Every value needs its place: expected two shapes (C,), found {x.shape} and {y.shape}.")
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.sum() < 3:
        return math.nan
    from scipy.stats import kendalltau  # scipy.stats takes half a second to import; only this function needs it

    return float(kendalltau(x[finite], y[finite]).statistic)
