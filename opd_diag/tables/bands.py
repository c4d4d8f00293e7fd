"""Bands that hold whole curves at once, from one set of resampled prompts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.tables.catalogue import METRIC_NAMES
from opd_diag.tables.rows import sample_of

DRAWS = 2000
"""Resamplings of prompts behind bands, intervals of tau and change points."""

SEED = 0

BAND_COLUMNS = ["band_low", "band_high"]

ERROR_COLUMNS = ["standard_error", "degrees_of_freedom"]
"""What a band takes of an estimate that tables do not keep."""


def with_bands(
    rows: pd.DataFrame,
    states: pd.DataFrame,
    curve: list[str],
    place: list[str],
    metrics: Sequence[str] = METRIC_NAMES,
) -> pd.DataFrame:
    """Put beside each value of a metric of the catalogue the band of the curve it belongs to.

    Parameters
    ----------
    rows
        With the columns of an estimate (:func:`~opd_diag.tables.rows.estimate_columns`), `metric`, `curve` and `place`.
    states
        What the rows are means of, with the columns `curve` and `place`.
    curve
        Columns that tell curves apart, beside the metric.
    place
        Columns that tell the places of one curve apart.
    metrics
        Those that get bands, of the catalogue.

    Returns
    -------
    DataFrame
        `rows` with `band_low` and `band_high`; NaN for other metrics and where there is no interval.
    """
    resampling = stats.Resampling(states["prompt_index"].to_numpy(), draws=DRAWS, seed=SEED)
    columns = [METRIC_NAMES.index(metric) for metric in metrics]
    ends = np.full((len(rows), 2), np.nan)
    numbered = rows.assign(row=np.arange(len(rows)))[rows["metric"].isin(metrics)]
    of_curve = dict(iter(numbered.groupby(curve, sort=False)))
    for key, of_states in states.groupby(curve, sort=False):  # one curve at a time: draws of all would fill the memory
        draws = {}
        for at, of in of_states.groupby(place, sort=False):
            values, prompts, weights = sample_of(of)
            draws[at] = resampling.means(values[:, columns], prompts, weights[:, columns])
        for metric, of in of_curve[key].groupby("metric", sort=False):
            resampled = [draws[at][:, metrics.index(str(metric))] for at in _keys(of, place)]
            points = [_estimate(row) for row in of[list(_PARTS)].to_dict("records")]
            band = stats.simultaneous_band(points, np.stack(resampled, axis=1))
            ends[of["row"].to_numpy()] = np.stack(band, axis=1)
    return rows.assign(band_low=ends[:, 0], band_high=ends[:, 1])


def _keys(rows: pd.DataFrame, names: list[str]) -> list[tuple[Hashable, ...]]:
    return list(zip(*(rows[name] for name in names), strict=True))


_PARTS = ("value", "ci_low", "ci_high", "standard_error", "n_states", "n_prompts", "degrees_of_freedom")


def _estimate(row: dict[Hashable, Any]) -> stats.Estimate:
    value, low, high, error, n, n_prompts, degrees = (row[name] for name in _PARTS)
    return stats.Estimate(value, low, high, error, n, n_prompts, 0, degrees_of_freedom=degrees)
