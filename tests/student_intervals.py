"""The clustered t-interval a second time, by matrices as the papers write it, for the tests of several rooms."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student_t

LEAST = 5
"""Fewer clusters have no interval."""


def error_of(influences, shares):
    """Standard error and degrees of freedom, from each cluster's influence and its share of what is counted.

    Bell and McCaffrey: residuals r = B u, B = I - p 1ᵀ, where the effects u of the clusters have variance p². Each
    squared residual is divided by its variance in units of p²; the sum has two moments of a scaled chi-square.
    """
    r, p = np.asarray(influences, dtype=float), np.asarray(shares, dtype=float)
    if len(r) < LEAST:
        return np.nan, np.nan
    residual = np.eye(len(p)) - np.outer(p, np.ones(len(p)))
    covariance = residual @ np.diag(p**2) @ residual.T
    scale = np.sqrt(p**2 / np.diag(covariance))
    kernel = scale[:, None] * covariance * scale[None, :]
    return np.sqrt(((scale * r) ** 2).sum()), np.trace(kernel) ** 2 / np.trace(kernel @ kernel)


def interval_of(value, influences, shares, level=0.95):
    """Value, low, high."""
    error, degrees = error_of(influences, shares)
    half = error * student_t.ppf((1 + level) / 2, degrees)
    return value, value - half, value + half


def influences_of(values, clusters, names, weights=None):
    """Weighted mean over the clusters of these names; by name what it adds to the error and its share; NaN left out."""
    counts = np.ones(len(values)) if weights is None else weights
    rows = [(v, w, c) for v, w, c in zip(values, counts, clusters, strict=True) if not np.isnan(v) and c in names]
    total = sum(w for _, w, _ in rows)
    mean = sum(w * v for v, w, _ in rows) / total
    moved = [sum(w * (v - mean) for v, w, c in rows if c == name) / total for name in names]
    return mean, np.array(moved), np.array([sum(w for _, w, c in rows if c == name) / total for name in names])


def defined_clusters(values, clusters):
    """Names of clusters with a defined value, sorted."""
    return sorted({c for v, c in zip(values, clusters, strict=True) if not np.isnan(v)})


def within(estimate, low=0.0, high=1.0):
    """Value and ends, the ends no further than the least and the greatest value there can be."""
    value, *ends = estimate
    return (value, *(min(max(end, low), high) if end == end else end for end in ends))
