"""Means and differences of means with intervals that know that states of one prompt go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, and what it rests on; NaN wherever something is undefined."""

    value: float
    """The mean, or the difference of two; NaN when there is no defined value."""
    ci_low: float
    """Lower end of the interval; NaN with fewer than two clusters or where `value` is not finite."""
    ci_high: float
    """Upper end, as `ci_low`."""
    standard_error: float
    """CR1 standard error of `value`; NaN where the interval is."""
    n: int
    """Values that `value` is a mean of; of a difference, those of the second sample."""
    n_clusters: int
    """Clusters that those values come from; of a difference, the shared ones."""
    n_undefined: int
    """NaN values left out; of a difference, those of both samples together."""


def clustered_mean(values: npt.ArrayLike, clusters: npt.ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean over all defined values, with an interval clustered by `clusters`.

    Formula: x̄ = Σ_g S_g / Σ_g N_g, with S_g the sum and N_g the number of the defined values of cluster g;
    Var = G/(G - 1) · Σ_g (S_g - x̄ N_g)² / N² (CR1); x̄ ± t(G - 1) · √Var.

    Parameters
    ----------
    values
        (N,) numbers; NaN is undefined: left out and counted.
    clusters
        (N,) label of the cluster of each value (the prompt), of any dtype that sorts.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        Without a defined value, `value` is NaN. With one cluster, `value` stands and the interval is NaN. With an
        infinite value the mean is infinite (NaN if both signs occur) and the interval NaN.

    Raises
    ------
    ValueError
        The lengths differ, or `level` is not between 0 and 1.

    Notes
    -----
    Caution: every state counts alike, so a prompt with long responses weighs more. Where all values are equal the
    interval has no width, which says that nothing varied in this sample and not that nothing can. Below about 20
    clusters with heavy tails the coverage falls short of `level`.

    References
    ----------
    Miller (2024), Adding error bars to evals, arXiv 2411.00640; Cameron and Miller (2015), A practitioner's guide to
    cluster-robust inference, section II.

    Examples
    --------
    >>> estimate = clustered_mean([1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"])
    >>> estimate.value, estimate.standard_error, estimate.n, estimate.n_clusters
    (4.0, 2.0, 4, 2)
    """
    return clustered_means(_column(values), clusters, level=level)[0]


def clustered_means(values: npt.ArrayLike, clusters: npt.ArrayLike, *, level: float = 0.95) -> list[Estimate]:
    """Do :func:`clustered_mean` for every column at once, sorting the clusters only once.

    Parameters
    ----------
    values
        (N, M) numbers; each column leaves out its own NaN.
    clusters, level
        As there, one label a row.

    Returns
    -------
    list of Estimate
        M of them, in the order of the columns.

    Examples
    --------
    >>> [e.value for e in clustered_means([[1.0, 10.0], [3.0, 30.0]], [0, 1])]
    [2.0, 20.0]
    """
    table, labels = _checked(values, clusters, level)
    _, codes = np.unique(labels, return_inverse=True)
    size = int(codes.max(initial=-1)) + 1
    return [_mean(column, codes, size, level) for column in table.T]


def clustered_mean_difference(
    first: npt.ArrayLike,
    first_clusters: npt.ArrayLike,
    second: npt.ArrayLike,
    second_clusters: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> Estimate:
    """Mean of the second sample minus mean of the first, paired by cluster.

    Formula: x̄2 - x̄1, each the mean over the defined values of the clusters that both samples have;
    d_g = (S2_g - x̄2 N2_g)/N2 - (S1_g - x̄1 N1_g)/N1; Var = G/(G - 1) · Σ_g d_g²; interval with t(G - 1).

    Parameters
    ----------
    first, second
        (N1,) and (N2,) numbers; NaN is undefined: left out and counted.
    first_clusters, second_clusters
        (N1,) and (N2,) labels; equal labels are paired. A cluster without a defined value on one side is left out on
        both, so either mean may differ from the sample's own :func:`clustered_mean`.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        `n` counts the values of `second` that were used, `n_clusters` the shared clusters, `n_undefined` the NaN of
        both samples. Without a shared cluster, `value` is NaN; with one, `value` stands and the interval is NaN; where
        a mean is not finite, the interval is NaN.

    Raises
    ------
    ValueError
        As :func:`clustered_mean`.

    Notes
    -----
    Pairing takes out what a prompt adds to both means, so the interval is narrower than that of two unpaired samples
    whenever prompts that score high in one score high in the other.

    References
    ----------
    Miller (2024), arXiv 2411.00640, section 4 (paired differences).

    Examples
    --------
    >>> estimate = clustered_mean_difference([1.0, 5.0], ["a", "b"], [2.0, 8.0], ["a", "b"])
    >>> estimate.value, estimate.standard_error
    (2.0, 1.0)
    """
    return clustered_mean_differences(_column(first), first_clusters, _column(second), second_clusters, level=level)[0]


def clustered_mean_differences(
    first: npt.ArrayLike,
    first_clusters: npt.ArrayLike,
    second: npt.ArrayLike,
    second_clusters: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> list[Estimate]:
    """Do :func:`clustered_mean_difference` for every column of (N1, M) and (N2, M) numbers at once.

    Each column leaves out its own NaN and its own unshared clusters; parameters otherwise as there, one label a row.

    Returns
    -------
    list of Estimate
        M of them, in the order of the columns.

    Examples
    --------
    >>> table = [[1.0, 2.0], [3.0, 4.0]]
    >>> [e.value for e in clustered_mean_differences(table, [0, 1], [[2.0, 2.0], [4.0, 4.0]], [0, 1])]
    [1.0, 0.0]
    """
    table1, labels1 = _checked(first, first_clusters, level)
    table2, labels2 = _checked(second, second_clusters, level)
    if table1.shape[1] != table2.shape[1]:
        raise ValueError(f"Both samples need the same columns, found {table1.shape[1]} and {table2.shape[1]}.")
    _, codes = np.unique(np.concatenate([labels1, labels2]), return_inverse=True)
    size = int(codes.max(initial=-1)) + 1
    codes1, codes2 = codes[: len(labels1)], codes[len(labels1) :]
    return [
        _difference(column1, codes1, column2, codes2, size, level)
        for column1, column2 in zip(table1.T, table2.T, strict=True)
    ]


def _mean(values: Floats, codes: Ints, size: int, level: float) -> Estimate:
    defined = ~np.isnan(values)
    value, influence = _influence(values[defined], codes[defined], size)
    present = np.bincount(codes[defined], minlength=size) > 0
    n = int(defined.sum())
    return _estimate(value, influence[present], n, len(values) - n, level)


def _difference(values1: Floats, codes1: Ints, values2: Floats, codes2: Ints, size: int, level: float) -> Estimate:
    defined1, defined2 = ~np.isnan(values1), ~np.isnan(values2)
    shared = np.bincount(codes1[defined1], minlength=size) > 0
    shared &= np.bincount(codes2[defined2], minlength=size) > 0
    used1, used2 = defined1 & shared[codes1], defined2 & shared[codes2]
    mean1, influence1 = _influence(values1[used1], codes1[used1], size)
    mean2, influence2 = _influence(values2[used2], codes2[used2], size)
    undefined = int((~defined1).sum() + (~defined2).sum())
    return _estimate(mean2 - mean1, (influence2 - influence1)[shared], int(used2.sum()), undefined, level)


def _influence(values: Floats, codes: Ints, size: int) -> tuple[float, Floats]:
    """Give the mean and each cluster's (S_g - x̄ N_g)/N, summed from residuals so that a large mean costs no digits."""
    with np.errstate(invalid="ignore"):  # both infinities: their mean is NaN
        mean = float(values.mean()) if len(values) else math.nan
    if not math.isfinite(mean):
        return mean, np.full(size, math.nan)
    return mean, np.bincount(codes, weights=values - mean, minlength=size) / len(values)


def _estimate(value: float, influence: Floats, n: int, n_undefined: int, level: float) -> Estimate:
    groups = len(influence)
    error = half = math.nan
    if groups > 1 and math.isfinite(value):
        error = math.sqrt(groups / (groups - 1) * float(influence @ influence))
        half = error * float(stdtrit(groups - 1, (1 + level) / 2))
    return Estimate(value, value - half, value + half, error, n, groups, n_undefined)


def _column(values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"Values must have one dimension, found shape {array.shape}.")
    return array[:, None]


def _checked(values: npt.ArrayLike, clusters: npt.ArrayLike, level: float) -> tuple[Floats, npt.NDArray[Any]]:
    table, labels = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if table.ndim != 2 or labels.ndim != 1 or len(table) != len(labels):
        raise ValueError(
            f"Every row of values needs one cluster: expected shapes (N, M) and (N,), found {table.shape} and "
            f"{labels.shape}."
        )
    if not 0 < level < 1:
        raise ValueError(f"The level must lie between 0 and 1, found {level}.")
    return table, labels
