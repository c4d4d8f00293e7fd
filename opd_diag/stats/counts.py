"""Counts of correct responses: what so many tries would solve, and whether items change sides one way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from opd_diag.stats.estimate import Estimate, Floats, check_level


def pass_at_k(correct: npt.ArrayLike, total: npt.ArrayLike, k: int) -> Floats:
    """Probability that at least one of k responses to an item is correct, without bias from n ≥ k of them.

    Formula: 1 - C(n - c, k) / C(n, k), with c of n responses correct, as 1 - Π (1 - k/i) over i = n - c + 1 to n.

    Parameters
    ----------
    correct, total
        (G,) whole numbers: c and n of each item.
    k
        Tries, at least 1.

    Returns
    -------
    ndarray
        (G,) in [0, 1]; NaN for items with fewer than k responses.

    Raises
    ------
    ValueError
        `k` is below 1, or a count is not 0 to its total.

    Notes
    -----
    Caution: the estimate of one item is coarse, the mean over items is what tells. The 1 - (1 - c/n)^k that is often
    seen is too low.

    References
    ----------
    Chen et al. (2021), Evaluating large language models trained on code, arXiv 2107.03374, Eq. 1.

    Examples
    --------
    >>> pass_at_k([0, 1, 3], [4, 4, 4], 2).round(4)
    array([0. , 0.5, 1. ])
    """
    c, n = np.asarray(correct), np.asarray(total)
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}.")
    if (c < 0).any() or (c > n).any():
        raise ValueError("Correct responses must be 0 to the number of responses.")
    return np.array([_of_one(int(right), int(of), k) for right, of in zip(c, n, strict=True)], dtype=np.float64)


def tas_at_k(correct: npt.ArrayLike, total: npt.ArrayLike, signal: npt.ArrayLike, k: int) -> Floats:
    """Teacher-selection score of each item: what a teacher's signal would do for pass@k, to first order.

    Formula: k · p · (1 - p)^k · Δm, with p = c/n and Δm the mean signal of correct less that of wrong responses; 0
    where all or none are correct, as nothing is told apart there.

    Parameters
    ----------
    correct, total
        (G,) whole numbers: c of n responses of the student to each item are correct.
    signal
        (G,) Δm of each item, in nats a token: of two teachers, of the difference of their token-mean log-probabilities.
    k
        Tries, at least 1.

    Returns
    -------
    ndarray
        (G,) any sign; its mean over items is the score: above 0 speaks for the first teacher.

    Notes
    -----
    Caution: one number of one student's responses; by its authors' count it picks the better teacher in 148 of 177
    cases (as reported).

    References
    ----------
    arXiv 2608.11829 (TAS@K).

    Examples
    --------
    >>> tas_at_k([2, 0, 8], [8, 8, 8], [2.0, 5.0, 5.0], 3)  # 3 · (2/8) · (6/8)³ · 2
    array([0.6328125, 0.       , 0.       ])
    """
    c, n, delta = (np.asarray(of, dtype=np.float64) for of in (correct, total, signal))
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}.")
    p = c / n
    mixed = (c > 0) & (c < n)
    return np.asarray(np.where(mixed, k * p * (1 - p) ** k * np.where(mixed, delta, 0.0), 0.0), dtype=np.float64)


def _of_one(c: int, n: int, k: int) -> float:
    if n < k:
        return float("nan")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of as many items that changed one way and the other, by the exact test; 1 where none did.

    Formula: twice the probability of at most min(gained, lost) heads in gained + lost tosses of a fair coin, at most 1.

    Raises
    ------
    ValueError
        A count is below 0.

    References
    ----------
    McNemar (1947), Note on the sampling error of the difference between correlated proportions, Psychometrika 12.

    Examples
    --------
    >>> round(mcnemar(9, 1), 4), mcnemar(0, 0)
    (0.0215, 1.0)
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"Counts must be at least 0, found {gained} and {lost}.")
    if not gained + lost:
        return 1.0
    return float(scipy_stats.binomtest(min(gained, lost), gained + lost, 0.5).pvalue)


def net_share(gained: int, lost: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of (gained - lost) / total, of items that changed one way, the other, or not; good also where none did.

    Formula: all Δ with |gained - lost - total Δ| ≤ z √(total (2 q + Δ (1 - Δ))), q the most likely share of lost items
    under Δ (Tango's score interval). Where no item changed it is ±z²/(total + z²), Wilson's of none.

    Raises
    ------
    ValueError
        A count is below 0, more items changed than there are, there is none, or `level` is not between 0 and 1.

    References
    ----------
    Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design, Statistics in Medicine 17.

    Examples
    --------
    >>> [round(end, 3) for end in net_share(0, 0, 12)], [round(end, 3) for end in net_share(1, 0, 20)]
    ([-0.242, 0.242], [-0.119, 0.236])
    """
    check_level(level)
    if min(gained, lost) < 0 or not 0 < total >= gained + lost:
        raise ValueError(f"Changed items must be 0 to all, found {gained} and {lost} of {total}.")
    z = float(ndtri((1 + level) / 2))
    return _net_low(gained, lost, total, z), -_net_low(lost, gained, total, z)


def _net_low(gained: int, lost: int, n: int, z: float) -> float:
    def beyond(delta: float) -> float:
        half = (gained + lost - (2 * n - gained + lost) * delta) / (4 * n)
        q = half + math.sqrt(max(0.0, half**2 + lost * delta * (1 - delta) / (2 * n)))
        return gained - lost - n * delta - z * math.sqrt(max(0.0, n * (2 * q + delta * (1 - delta))))

    just_below = (gained - lost) / n - 1e-9
    return -1.0 if lost == n else float(brentq(beyond, -1.0, just_below))


def paired_share_difference(
    estimate: Estimate, first: npt.ArrayLike, second: npt.ArrayLike, level: float = 0.95
) -> Estimate:
    """Give the second share minus the first the interval that so few changes leave open; any other as it is.

    Where clusters change from 0 to 1, from 1 to 0 or not at all, as solved prompts do, the t interval is far too narrow
    when few change, and has no width when none does: the interval is that of :func:`net_share`.

    Parameters
    ----------
    estimate
        The difference, paired by cluster, with its interval.
    first, second
        (G,) the share of each cluster, in the same order.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        Its standard error is that whose t reaches as far as the interval does.
    """
    changes = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if math.isnan(estimate.standard_error) or not np.isin(changes, (-1.0, 0.0, 1.0)).all():
        return estimate
    low, high = net_share(int((changes > 0).sum()), int((changes < 0).sum()), len(changes), level)
    reach = max(high - estimate.value, estimate.value - low)
    error = reach / float(stdtrit(estimate.degrees_of_freedom, (1 + level) / 2))
    return replace(estimate, ci_low=low, ci_high=high, standard_error=error)


def changed_items(
    first: npt.ArrayLike, first_total: npt.ArrayLike, last: npt.ArrayLike, last_total: npt.ArrayLike
) -> Floats:
    """Two-sided p-values of no change in the share of correct responses, item by item, held together.

    Formula: Fisher's exact test of each item's two counts, adjusted over all items so that of those below a level no
    more than that share are expected to be false (Benjamini and Hochberg).

    Parameters
    ----------
    first, first_total, last, last_total
        (G,) correct responses and responses of each item, before and after.

    Returns
    -------
    ndarray
        (G,) adjusted p-values in [0, 1].

    Notes
    -----
    Caution: with few responses an item cannot show a change: of four and four, not even 0 and 4 does among many items.

    References
    ----------
    Fisher (1935), The logic of inductive inference; Benjamini and Hochberg (1995), Controlling the false discovery
    rate.

    Examples
    --------
    >>> changed_items([0, 8, 4], [8, 8, 8], [8, 8, 5], [8, 8, 8]).round(4).tolist()
    [0.0005, 1.0, 1.0]
    """
    counts = np.stack([np.asarray(of) for of in (first, first_total, last, last_total)], axis=1)
    if not len(counts):
        return np.zeros(0)
    found = [scipy_stats.fisher_exact(np.array([[a, n - a], [b, m - b]])).pvalue for a, n, b, m in counts.tolist()]
    adjusted: Floats = scipy_stats.false_discovery_control(found)
    return adjusted
