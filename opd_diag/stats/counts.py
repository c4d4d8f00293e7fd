"""Counts of correct responses: what so many tries would solve, and whether items change sides one way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

Floats = npt.NDArray[np.float64]


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
