"""Rows of the second pass: values, intervals and differences follow from what is stored, prompt by prompt."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from opd_diag import metrics, stats
from opd_diag.errors import StoreError
from opd_diag.records.fits import TEMPERATURES, Fits
from opd_diag.tables import assemble, fits_table
from opd_diag.tables.fits import FIT_COLUMNS, FIT_METRICS, fit_differences, fit_rows, fits_by_part, load_fits

from .made_up import a_run

GRID = torch.tensor(TEMPERATURES, dtype=torch.float64)
PROMPTS = (3, 4, 6, 7, 9, 12, 20, 21)


def made_up(seed=0, *, sharper=1.4, noise=0.5, prompts=PROMPTS, states=3, label="step 20", state_set="on-policy"):
    """Fits of known distributions, and all that the naive formulas need: log-probabilities and every G."""
    random = np.random.default_rng(seed)
    prompt_index = np.repeat(prompts, [states + p % 2 for p in prompts])
    n = len(prompt_index)
    teacher = torch.from_numpy(random.normal(size=(n, 30)) * 2).log_softmax(-1)
    student = (sharper * (teacher + noise * torch.from_numpy(random.normal(size=(n, 30))))).log_softmax(-1)
    hidden = torch.from_numpy(random.normal(size=(n, 5)) + 0.5)
    gradients = metrics.reverse_kl_gradient(student, teacher)
    products = metrics.gradient_products(gradients, hidden).numpy()
    belongs = (prompt_index[:, None] == np.array(prompts)).astype(float)
    curve = metrics.tempered_reverse_kl(student, teacher, GRID)
    fits = Fits(
        prompt_index=prompt_index,
        rollout_index=prompt_index % 2,
        position=np.arange(n),
        tempered_reverse_kl=curve.reverse_kl.numpy(),
        tempered_slope=curve.slope.numpy(),
        has_gradient=np.ones(n, dtype=bool),
        prompts=np.array(prompts),
        gradient_products=belongs.T @ products @ belongs,
        gradient_squared_norms=belongs.T @ products.diagonal(),
        least_squared_norms=np.zeros(len(prompts)),
        about={"label": label, "step": 20, "states": state_set},
    )
    return fits, products


def naive(fits, products, prompts):
    """The three metrics over the states of some prompts, from states and pairs."""
    used = np.flatnonzero(np.isin(fits.prompt_index, prompts))
    means = [torch.from_numpy(x[used].mean(0)) for x in (fits.tempered_reverse_kl, fits.tempered_slope)]
    fit = metrics.fitted_temperature(*means, GRID)
    pairs = [products[t, u] for t in used for u in used if fits.prompt_index[t] != fits.prompt_index[u]]
    coherence = np.mean(pairs) / products.diagonal()[used].mean()
    return {
        "fitted_temperature": fit.temperature.item(),
        "reverse_kl_after_temperature": fit.reverse_kl.item(),
        "gradient_coherence": coherence,
    }


def jackknifed(value, without):
    return stats.clustered_jackknife(value, without, n=len(without))


def brute(fits, products):
    """Each metric and its interval, leaving out prompt by prompt and starting anew each time."""
    whole = naive(fits, products, PROMPTS)
    without = [naive(fits, products, [p for p in PROMPTS if p != gone]) for gone in PROMPTS]
    return {name: jackknifed(whole[name], [w[name] for w in without]) for name in FIT_METRICS} | {
        "fitted_temperature": jackknifed(
            math.log(whole["fitted_temperature"]), [math.log(w["fitted_temperature"]) for w in without]
        )
    }


def by_metric(rows):
    return {row["metric"]: row for row in rows}


def test_values_and_intervals_are_those_of_leaving_out_prompts():
    fits, products = made_up()
    rows, expected = by_metric(fit_rows(fits)), brute(fits, products)
    assert list(rows) == list(FIT_METRICS)
    for name, estimate in expected.items():
        there = math.exp if name == "fitted_temperature" else float
        for column in ("value", "ci_low", "ci_high"):
            assert rows[name][column] == pytest.approx(there(getattr(estimate, column)), rel=1e-9)
        assert rows[name]["ci_low"] < rows[name]["value"] < rows[name]["ci_high"]
        assert rows[name]["aggregation"] == "subsample"
        assert (rows[name]["n_states"], rows[name]["n_rollouts"]) == (len(fits), 8)
        assert (rows[name]["n_prompts"], rows[name]["n_undefined"]) == (8, 0)


def test_planted_temperature_without_noise_leaves_nothing():
    fits, _ = made_up(sharper=1.4, noise=0.0)
    rows = by_metric(fit_rows(fits))
    assert rows["fitted_temperature"]["value"] == pytest.approx(1.4, rel=4e-4)
    assert 0 <= rows["reverse_kl_after_temperature"]["value"] < 5e-5
    row = fits_table(_parts(fits), fits_by_part([fits])).iloc[0]
    assert row["reverse_kl"] > 0.02
    assert row["explained_share"] == pytest.approx(1, abs=2e-3)


def test_of_a_kl_that_is_rounding_no_share_is_told():
    nearly, _ = made_up(sharper=1.0, noise=1e-3)
    row = fits_table(_parts(nearly), fits_by_part([nearly])).iloc[0]
    assert 0 < row["reverse_kl_after_temperature"] < row["reverse_kl"] < 1e-6
    assert np.isnan(row["explained_share"])
    clearly, _ = made_up(sharper=1.0, noise=0.01)
    row = fits_table(_parts(clearly), fits_by_part([clearly])).iloc[0]
    assert 0 < row["explained_share"] < 0.2


def test_differences_are_paired_over_the_prompts_that_both_have():
    earlier, first = made_up(0)
    later, second = made_up(1, prompts=(4, 6, 7, 9, 12, 20, 21, 30), sharper=0.9)
    shared = [4, 6, 7, 9, 12, 20, 21]
    found = fit_differences(earlier, later)
    assert list(found) == list(FIT_METRICS)
    for name, estimate in found.items():

        def at(prompts, name=name):
            return naive(later, second, prompts)[name] - naive(earlier, first, prompts)[name]

        expected = jackknifed(at(shared), [at([p for p in shared if p != gone]) for gone in shared])
        assert estimate.value == pytest.approx(expected.value, rel=1e-9)
        assert estimate.ci_low == pytest.approx(expected.ci_low, rel=1e-8)
        assert estimate.n_clusters == 7
    assert found["fitted_temperature"].ci_high < 0, "the student became flatter"


def test_of_a_set_without_fits_there_is_nothing():
    fits, _ = made_up()
    assert fit_rows(None) == []
    assert fit_differences(None, fits) == fit_differences(fits, None) == {}
    empty = fits_table(_parts(fits), {})
    assert list(empty.columns) == FIT_COLUMNS
    assert empty.empty


def _parts(*fits):
    return pd.DataFrame(
        [{"step": of.about["step"], "label": of.label, "teacher": "big", "states": of.states} for of in fits]
    )


@pytest.mark.parametrize(("sharper", "end"), [(0.15, "below"), (6.0, "above")])
def test_a_temperature_beyond_those_tried_is_no_number_and_the_table_says_where(sharper, end):
    fits, _ = made_up(sharper=sharper, noise=0.0)
    rows = by_metric(fit_rows(fits))
    for name in ("fitted_temperature", "reverse_kl_after_temperature"):
        assert [rows[name][column] for column in ("value", "ci_low", "ci_high")] == pytest.approx(
            [np.nan] * 3, nan_ok=True
        )
    row = fits_table(_parts(fits), fits_by_part([fits])).iloc[0]
    assert row["beyond"] == end
    assert row["reverse_kl"] > 0.01
    assert np.isnan(row["explained_share"])
    inside, _ = made_up()
    assert fits_table(_parts(inside), fits_by_part([inside])).iloc[0]["beyond"] == ""


def test_an_interval_that_needs_a_temperature_beyond_those_tried_is_none():
    """One prompt decides that the best temperature lies inside: without it, nobody knows."""
    fits, _ = made_up(sharper=6.0, noise=0.0)
    other, _ = made_up(sharper=0.3, noise=0.0)
    rows = fits.prompt_index == PROMPTS[0]
    mixed = replace(
        fits,
        tempered_reverse_kl=np.where(rows[:, None], 30 * other.tempered_reverse_kl, fits.tempered_reverse_kl),
        tempered_slope=np.where(rows[:, None], 30 * other.tempered_slope, fits.tempered_slope),
    )
    row = by_metric(fit_rows(mixed))["fitted_temperature"]
    assert 0.25 < row["value"] < 4
    assert np.isnan(row["ci_low"])


def test_undefined_states_are_left_out_and_counted():
    fits, products = made_up()
    broken = replace(
        fits, tempered_reverse_kl=fits.tempered_reverse_kl.copy(), tempered_slope=fits.tempered_slope.copy()
    )
    gone = np.flatnonzero(fits.prompt_index == PROMPTS[2])  # a whole prompt
    broken.tempered_reverse_kl[gone] = np.inf
    broken.tempered_slope[gone] = np.nan
    row = by_metric(fit_rows(broken))["reverse_kl_after_temperature"]
    others = [p for p in PROMPTS if p != PROMPTS[2]]
    assert row["value"] == pytest.approx(naive(fits, products, others)["reverse_kl_after_temperature"])
    assert (row["n_states"], row["n_undefined"], row["n_prompts"]) == (len(fits) - len(gone), len(gone), 7)
    assert by_metric(fit_rows(broken))["gradient_coherence"]["n_undefined"] == 0
    assert fit_differences(fits, broken)["fitted_temperature"].n_clusters == 7


def test_a_model_without_gradients_has_no_coherence():
    fits, _ = made_up()
    none = replace(
        fits,
        has_gradient=np.zeros(len(fits), dtype=bool),
        gradient_products=np.zeros((8, 8)),
        gradient_squared_norms=np.zeros(8),
    )
    rows = by_metric(fit_rows(none))
    assert np.isnan(rows["gradient_coherence"]["value"])
    assert (rows["gradient_coherence"]["n_states"], rows["gradient_coherence"]["n_undefined"]) == (0, len(fits))
    assert rows["fitted_temperature"]["value"] > 1
    assert np.isnan(fit_differences(none, fits)["gradient_coherence"].value)


def test_summary_differences_and_table_hold_them_on_the_sets_that_have_them(tmp_path):
    run = a_run(steps=(10, 20))
    prompts = tuple(range(6))
    made = [
        made_up(i, prompts=prompts, label=f"step {step}", state_set=states)[0]
        for i, (step, states) in enumerate((s, of) for s in (10, 20) for of in ("on-policy", "start"))
    ]
    tables = assemble([(s.scores, s.rollouts) for s in run], k=4, fits=made[:-1])
    rows = tables.summary[tables.summary["metric"].isin(FIT_METRICS)]
    assert len(rows) == 9
    assert rows["within_floor"].isna().all()
    row = rows[(rows["label"] == "step 20") & (rows["metric"] == "gradient_coherence")].iloc[0]
    assert row["states"] == "on-policy"
    assert row["value"] == by_metric(fit_rows(made[2]))["gradient_coherence"]["value"]
    changes = tables.differences[tables.differences["metric"].isin(FIT_METRICS)]
    assert changes["states"].tolist() == ["on-policy"] * 3
    expected = fit_differences(made[0], made[2])
    assert changes["value"].tolist() == [expected[name].value for name in FIT_METRICS]
    assert tables.fits[["label", "states"]].values.tolist() == [
        ["step 10", "on-policy"], ["step 10", "start"], ["step 20", "on-policy"],
    ]  # fmt: skip
    assert tables.fits["teacher"].unique().tolist() == ["big"]


def test_they_are_read_from_their_files(tmp_path):
    fits, _ = made_up()
    fits.save(tmp_path / "fits" / "step-000020.on-policy.safetensors")
    parts = pd.concat([_parts(fits), _parts(fits).assign(states="back")])
    found = load_fits(tmp_path, parts)
    assert list(found) == [("step 20", "on-policy")]
    assert by_metric(fit_rows(found["step 20", "on-policy"])) == by_metric(fit_rows(fits))
    (tmp_path / "fits" / "step-000020.on-policy.safetensors").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="no readable file"):
        load_fits(tmp_path, parts)
