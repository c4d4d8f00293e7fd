"""One set of resampling weights for all metrics, checkpoints, state sets and teachers."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from opd_diag.stats.clustered import checked
from opd_diag.stats.estimate import Floats, check_level

BLOCK = 1000
"""Resamplings multiplied at once: what bounds the memory beside the result."""


class Resampling:
    """Random weights of prompts, the same for whoever asks, so that everything computed with them goes together.

    Every prompt weighs 1 on average, exponentially distributed and independent of the others (Bayesian bootstrap); its
    weights follow from the seed and its own label alone. So a prompt weighs the same in every state set, under every
    teacher and in every run that has it. What is computed inside: ratio means by :meth:`means`, and from these
    differences, :func:`~opd_diag.stats.taus`, :func:`~opd_diag.stats.sen_slopes` and bands, row by row.

    Parameters
    ----------
    clusters
        Labels of the prompts, each once or many times.
    draws
        Number of resamplings B.
    seed
        Of the weights.

    Attributes
    ----------
    labels
        (G,) the distinct labels, sorted.
    weights
        (B, G) float32.

    References
    ----------
    Rubin (1981), The Bayesian bootstrap, Annals of Statistics 9(1).

    Examples
    --------
    >>> some, more = Resampling(["a", "b"], draws=3), Resampling(["c", "b", "a"], draws=3)
    >>> bool((some.weights == more.weights[:, :2]).all()), more.weights.shape
    (True, (3, 3))
    """

    def __init__(self, clusters: npt.ArrayLike, *, draws: int = 2000, seed: int = 0) -> None:
        if draws < 1:
            raise ValueError(f"Expected at least one resampling, found draws={draws}.")
        self.labels = np.unique(np.asarray(clusters))
        self.weights = np.empty((draws, len(self.labels)), dtype=np.float32)
        for column, label in enumerate(self.labels):
            self.weights[:, column] = _stream(seed, label).standard_exponential(draws, dtype=np.float32)

    def means(self, values: npt.ArrayLike, clusters: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
        """Give the ratio mean of every column in every resampling.

        Parameters
        ----------
        values, clusters, weights
            (N, M), (N,) and (N, M), as :func:`~opd_diag.stats.clustered_means`; clusters among `labels`.

        Returns
        -------
        ndarray
            (B, M); NaN where a column has no defined value.

        Raises
        ------
        ValueError
            A cluster is none of `labels`, or shapes differ.

        Examples
        --------
        >>> Resampling([0, 1], draws=2).means([[1.0], [1.0]], [0, 1]).tolist()
        [[1.0], [1.0]]
        """
        return self.means_of(*self.sums(values, clusters, weights))

    def sums(
        self, values: npt.ArrayLike, clusters: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Add up, by prompt, what :meth:`means_of` needs: (G, M) weighted values and (G, M) what they count."""
        table, names, counted = checked(values, clusters, weights, 0.5)
        codes = np.minimum(np.searchsorted(self.labels, names), len(self.labels) - 1)
        if len(names) and (self.labels[codes] != names).any():
            raise ValueError(f"No weights for cluster {names[self.labels[codes] != names][0]}; draw them with it.")
        counted = np.where(np.isnan(table), 0.0, counted)
        tops = np.where(np.isnan(table), 0.0, table) * counted
        shape = (len(self.labels), table.shape[1])
        summed = np.zeros(shape), np.zeros(shape)
        for of, into in zip((tops, counted), summed, strict=True):
            for column in range(shape[1]):
                into[:, column] = np.bincount(codes, weights=of[:, column], minlength=shape[0])
        return summed

    def means_of(self, tops: Floats, totals: Floats) -> Floats:
        """Divide resampled sums: (B, M) from (G, M) weighted values and (G, M) what they count, block by block."""
        result = np.full((len(self.weights), tops.shape[1]), math.nan)
        # sums of what lies around the mean: float32 products of large numbers would cost digits
        whole = totals.sum(0)
        middle = np.divide(tops.sum(0), whole, out=np.full(len(whole), math.nan), where=whole > 0)
        with np.errstate(invalid="ignore"):  # an infinite mean stays one in every resampling
            apart = np.nan_to_num(tops - totals * middle, posinf=0.0, neginf=0.0).astype(np.float32)
        counted, some = totals.astype(np.float32), whole > 0
        for start in range(0, len(result), BLOCK):
            weights = self.weights[start : start + BLOCK]
            with np.errstate(all="ignore"):  # float32 products raise flags at random in some builds of BLAS
                result[start : start + BLOCK, some] = (weights @ apart[:, some]) / (weights @ counted[:, some])
        return result + middle


def taus(draws: npt.ArrayLike) -> Floats:
    """Kendall's tau (tau-a) of every row with the order of its columns; pairs that are not finite are left out.

    Examples
    --------
    >>> taus([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]).round(3).tolist()
    [1.0, -0.333]
    """
    y = np.asarray(draws, dtype=np.float64)
    summed, pairs = np.zeros(len(y)), np.zeros(len(y))
    for later in range(y.shape[1]):
        for earlier in range(later):
            with np.errstate(invalid="ignore"):  # infinity less infinity
                sign = np.sign(y[:, later] - y[:, earlier])
            known = np.isfinite(y[:, later]) & np.isfinite(y[:, earlier])
            pairs += known
            summed += np.where(known, sign, 0.0)
    return np.divide(summed, pairs, out=np.full(len(pairs), math.nan), where=pairs > 0)


def sen_slopes(order: npt.ArrayLike, draws: npt.ArrayLike) -> Floats:
    """Sen's slope of every row: the median over pairs of columns of change divided by distance in `order`.

    Examples
    --------
    >>> sen_slopes([0, 10, 20], [[0.0, 10.0, 40.0]]).tolist()
    [2.0]
    """
    x, y = np.asarray(order, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    later, earlier = np.triu_indices(len(x), 1)[::-1]
    return np.asarray(np.median((y[:, later] - y[:, earlier]) / (x[later] - x[earlier]), axis=1))


def percentile_interval(draws: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Middle part of resampled values; NaN where any is undefined.

    Examples
    --------
    >>> percentile_interval(range(101), 0.5)
    (25.0, 75.0)
    """
    check_level(level)
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _stream(seed: int, label: object) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
