"""Bands beside the values of a table: those of the curve they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from opd_diag import stats
from opd_diag.tables import METRIC_NAMES, assemble, summarize
from opd_diag.tables.bands import DRAWS, SEED

from .made_up import a_run


@pytest.fixture(scope="module")
def tables():
    return assemble((s.pair for s in a_run(steps=(0, 10, 20, 30))), k=8)


@pytest.mark.parametrize("metric", ["reverse_kl", "overlap_ratio"])
@pytest.mark.parametrize("state_set", ["on-policy", "start"])
def test_the_band_is_that_of_the_curve(tables, metric, state_set):
    rows = tables.summary[(tables.summary["metric"] == metric) & (tables.summary["states"] == state_set)]
    estimates, draws = [], []
    for label in rows["label"]:
        of = tables.states[(tables.states["label"] == label) & (tables.states["states"] == state_set)]
        values, prompts = of[metric].to_numpy(), of["prompt_index"].to_numpy()
        estimates.append(stats.clustered_mean(values, prompts))
        draws.append(stats.Resampling(range(6), draws=DRAWS, seed=SEED).means(values[:, None], prompts)[:, 0])
    low, high = stats.simultaneous_band(estimates, np.stack(draws, axis=1))
    assert rows["band_low"].to_numpy() == pytest.approx(low, rel=1e-5)
    assert rows["band_high"].to_numpy() == pytest.approx(high, rel=1e-5)
    assert len(rows) == 4


def test_bands_hold_the_intervals_and_are_wider(tables):
    known = tables.summary[tables.summary["metric"].isin(METRIC_NAMES) & tables.summary["ci_low"].notna()]
    assert (known["band_low"] <= known["ci_low"] + 1e-12).all()
    assert (known["band_high"] >= known["ci_high"] - 1e-12).all()
    widths = (known["band_high"] - known["band_low"]) / (known["ci_high"] - known["ci_low"])
    assert widths.median() > 1.2


def test_where_there_is_no_interval_there_is_no_band(tables):
    others = tables.summary[~tables.summary["metric"].isin(METRIC_NAMES)]
    assert len(others)
    assert others[["band_low", "band_high"]].isna().all(axis=None)
    few = summarize(tables.states[tables.states["prompt_index"] < 3])
    assert few[["ci_low", "band_low", "band_high"]].isna().all(axis=None)
    assert not few["approximate"].any()
