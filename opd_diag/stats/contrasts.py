"""Differences of means, and any other weighted sum of means, paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from opd_diag.stats.clustered import Ints, checked, influences, one_column, shares_of
from opd_diag.stats.estimate import Estimate, Floats, estimate_from

Sample = tuple[npt.ArrayLike, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
"""(N, M) numbers, their (N,) clusters and, for ratios of sums, (N, M) what each number counts."""


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
    d_g = (S2_g - x̄2 N2_g)/N2 - (S1_g - x̄1 N1_g)/N1; variance and interval from d_g as there, a cluster's share being
    the mean of its shares of both samples.

    Parameters
    ----------
    first, second
        (N1,) and (N2,) numbers; NaN is undefined: left out and counted.
    first_clusters, second_clusters
        (N1,) and (N2,) labels; equal labels are paired. A cluster without a defined value on one side is left out on
        both, so either mean may differ from the sample's own :func:`~opd_diag.stats.clustered_mean`.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        `n` counts the values of `second` that were used, `n_clusters` the shared clusters, `n_undefined` the NaN of
        both samples. Without a shared cluster, `value` is NaN; with fewer than 5, `value` stands and the interval is
        NaN; where a mean is not finite, the interval is NaN.

    Raises
    ------
    ValueError
        As :func:`~opd_diag.stats.clustered_mean`.

    Notes
    -----
    Pairing takes out what a prompt adds to both means, so the interval is narrower than that of two unpaired samples
    whenever prompts that score high in one score high in the other.

    References
    ----------
    Miller (2024), arXiv 2411.00640, section 4 (paired differences).

    Examples
    --------
    >>> estimate = clustered_mean_difference([1.0, 5.0, 0.0, 2.0, 2.0], range(5), [2.0, 8.0, 1.0, 2.0, 2.0], range(5))
    >>> estimate.value, round(estimate.standard_error, 4)
    (1.0, 0.5477)
    """
    return clustered_mean_differences(
        one_column(first), first_clusters, one_column(second), second_clusters, level=level
    )[0]


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
    return clustered_contrasts([(first, first_clusters), (second, second_clusters)], (-1.0, 1.0), level=level)


def clustered_contrasts(samples: Sequence[Sample], weights: Sequence[float], *, level: float = 0.95) -> list[Estimate]:
    """Weighted sum of the means of several samples, paired by cluster; for every column at once.

    Formula: Σ_s w_s x̄_s, each x̄_s the mean over the defined values of the clusters that all samples have;
    d_g = Σ_s w_s (S_sg - x̄_s N_sg)/N_s, with S_sg the sum and N_sg the number of the values of sample s in cluster g,
    or, where the values have weights of their own, the sums of weighted values and of weights;
    Var = Σ_g c_g d_g² and the interval as for a mean, a cluster's share p_g being the average of its shares of the
    samples, weighted by |w_s|.

    Parameters
    ----------
    samples
        One or more pairs of (N_s, M) numbers and their (N_s,) clusters; NaN is undefined: left out and counted. Equal
        labels are paired. A third (N_s, M) array is what each number counts, as in
        :func:`~opd_diag.stats.clustered_mean`.
    weights
        One number a sample. A sample of weight 0 adds nothing but still says which clusters count, so that several
        contrasts of the same samples are about the same clusters, and their values add up.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    list of Estimate
        M of them, in the order of the columns. Each column is restricted to the clusters that have a defined value in
        every sample. `n` counts the values of the last sample that were used, `n_clusters` the shared clusters,
        `n_undefined` the NaN of all samples. Without a shared cluster, `value` is NaN; with fewer than 5, `value`
        stands and the interval is NaN; where a mean of weight other than 0 is not finite, the interval is NaN.

    Raises
    ------
    ValueError
        Lengths or numbers of columns differ, there is no sample or not one weight a sample, or `level` is not between
        0 and 1.

    Notes
    -----
    Caution: means are over values, not over clusters, so a prompt with long responses weighs more, and differently in
    each sample.

    References
    ----------
    Cameron and Miller (2015), A practitioner's guide to cluster-robust inference, section II; Miller (2024), arXiv
    2411.00640, section 4.

    Examples
    --------
    >>> once, twice, thrice = ([[1.0], [5.0]], [0, 1]), ([[2.0], [8.0]], [0, 1]), ([[2.0], [9.0]], [0, 1])
    >>> [e.value for e in clustered_contrasts([once, twice, thrice], (-0.5, 1.0, -0.5))]
    [0.75]
    """
    if not samples or len(samples) != len(weights):
        raise ValueError(f"Every sample needs one weight, found {len(samples)} samples and {len(weights)} weights.")
    chosen = range(len(samples))
    return [column.contrast(chosen, weights, level) for column in columns_of(samples, level)]


def columns_of(samples: Sequence[Sample], level: float) -> list[Column]:
    """Give every column of some samples, with clusters numbered alike in all of them, or say what does not fit."""
    checks = (checked(values, clusters, own[0] if own else None, level) for values, clusters, *own in samples)
    tables, labels, counted = zip(*checks, strict=True)
    columns = [table.shape[1] for table in tables]
    if len(set(columns)) > 1:
        raise ValueError(f"All samples need the same columns, found {' and '.join(map(str, columns))}.")
    _, codes = np.unique(np.concatenate(labels), return_inverse=True)
    size = int(codes.max(initial=-1)) + 1
    apart = np.split(codes, np.cumsum([len(of) for of in labels])[:-1])
    return [
        Column([(table[:, i], of, w[:, i]) for table, of, w in zip(tables, apart, counted, strict=True)], size)
        for i in range(columns[0])
    ]


class Column:
    """One column of several samples, of which any number of contrasts can be asked; each mean is taken once."""

    def __init__(self, samples: list[tuple[Floats, Ints, Floats]], size: int) -> None:
        self.samples, self.size = samples, size
        self.defined = [~np.isnan(values) for values, _, _ in samples]
        self.present = [
            np.bincount(codes[known], minlength=size) > 0
            for (_, codes, _), known in zip(samples, self.defined, strict=True)
        ]
        self.undefined = [int((~known).sum()) for known in self.defined]
        self._means: dict[tuple[int, bytes], tuple[int, float, Floats, Floats]] = {}

    def contrast(self, chosen: Sequence[int], weights: Sequence[float], level: float) -> Estimate:
        """Weighted sum of the means of the chosen samples, over the clusters that all of these have."""
        shared = np.logical_and.reduce([self.present[i] for i in chosen])
        value, influence, n = 0.0, np.zeros(self.size), 0
        shares, sides = np.zeros(self.size), max(sum(abs(weight) for weight in weights), np.finfo(float).tiny)
        for i, weight in zip(chosen, weights, strict=True):
            n, mean, of_cluster, share = self._mean(i, shared)
            if weight or not n:  # 0 times infinity would be undefined, and nothing shared must be
                value, influence = value + weight * mean, influence + weight * of_cluster
                shares += abs(weight) / sides * share
        undefined = sum(self.undefined[i] for i in chosen)
        return estimate_from(value, influence[shared], shares[shared], n, undefined, level)

    def _mean(self, i: int, shared: npt.NDArray[np.bool_]) -> tuple[int, float, Floats, Floats]:
        key = (i, shared.tobytes())
        if key not in self._means:
            values, codes, counted = self.samples[i]
            used = self.defined[i] & shared[codes]
            mean, of_cluster = influences(values[used], codes[used], counted[used], self.size)
            self._means[key] = int(used.sum()), mean, of_cluster, shares_of(codes[used], counted[used], self.size)
        return self._means[key]
