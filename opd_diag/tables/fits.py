"""From the second pass over some states to rows: the fitted temperature, the KL that remains, gradient coherence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from opd_diag import metrics, stats
from opd_diag.metrics.temperature import FLAT
from opd_diag.records.fits import TEMPERATURES, Fits
from opd_diag.tables.coverage import slug_of
from opd_diag.tables.rows import estimate_columns

FIT_METRICS = ("fitted_temperature", "reverse_kl_after_temperature", "gradient_coherence")
"""Rows of the summary and of the differences, in their order."""

SUBSAMPLE = "subsample"
"""What the summary calls their aggregation."""

QUANTITIES = (*FIT_METRICS[:2], "reverse_kl", "explained_share", FIT_METRICS[2])
"""Columns of the table of fits, each with an interval."""

FIT_COLUMNS = [
    "step", "label", "teacher", "states",
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_ci_low", "_ci_high")),
    "beyond", "n_states", "n_rollouts", "n_prompts", "n_undefined",
]  # fmt: skip

BEYOND = {-1: "below", 0: "", 1: "above"}
"""What the table says of a best temperature outside the temperatures tried."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FitsByPart = Mapping[tuple[str, str], Fits]
"""By (label, state set)."""

_ONE = TEMPERATURES.index(1.0)


@dataclass(frozen=True)
class _Statistic:
    """One quantity of all prompts, and without each of them."""

    value: float
    left_out: Floats
    n: int
    n_undefined: int
    rows: npt.NDArray[np.bool_]
    """(N,) states that it rests on."""


def fits_by_part(fits: Iterable[Fits]) -> dict[tuple[str, str], Fits]:
    """Give fits by what they are of."""
    return {(part.label, part.states): part for part in fits}


def load_fits(out_dir: Path, parts: pd.DataFrame) -> dict[tuple[str, str], Fits]:
    """Read what a replay wrote.

    Parameters
    ----------
    out_dir
        Folder of the report.
    parts
        (label, step, states) of each checkpoint and state set; those without a file have no fits.

    Raises
    ------
    StoreError
        A file is damaged.
    """
    found = []
    for (label, state_set), group in parts.groupby(["label", "states"], sort=False):
        path = out_dir / "fits" / f"{slug_of(str(label), group)}.{state_set}.safetensors"
        if path.is_file():
            found.append(Fits.load(path))
    return fits_by_part(found)


def fit_rows(fits: Fits | None) -> list[dict[str, Any]]:
    """Give the summary's rows of one (checkpoint, state set), without what names it; none without fits."""
    if fits is None:
        return []
    statistics = _statistics(fits, fits.prompts)
    return [
        estimate_columns(_estimate(name, statistics[name]))
        | {"metric": name, "k": pd.NA, "aggregation": SUBSAMPLE}
        | _counts(fits, statistics[name])
        for name in FIT_METRICS
    ]


def fit_differences(earlier: Fits | None, later: Fits | None) -> dict[str, stats.Estimate]:
    """Give, by metric, the later fits minus the earlier ones, over the prompts that both have, paired by prompt."""
    if earlier is None or later is None:
        return {}
    found = {}
    for name in FIT_METRICS:
        shared = np.intersect1d(earlier.prompt_index[_known(earlier, name)], later.prompt_index[_known(later, name)])
        first, second = (_statistics(fits, shared)[name] for fits in (earlier, later))
        undefined = sum(int((~_known(fits, name)).sum()) for fits in (earlier, later))
        found[name] = stats.clustered_jackknife_difference(
            first.value, first.left_out, second.value, second.left_out, n=second.n, n_undefined=undefined
        )
    return found


def fits_table(parts: pd.DataFrame, fits: FitsByPart) -> pd.DataFrame:
    """Lay out what is known of each (checkpoint, state set) that has fits; columns as in :mod:`opd_diag.tables`.

    Parameters
    ----------
    parts
        The columns `step`, `label`, `teacher` and `states` of a table, in the order of the checkpoints.
    fits
        By (label, state set).
    """
    rows = []
    for identity in parts[FIT_COLUMNS[:4]].drop_duplicates().to_dict("records"):
        part = fits.get((str(identity["label"]), str(identity["states"])))
        if part is not None:
            rows.append(identity | _row(part))
    return pd.DataFrame(rows, columns=FIT_COLUMNS).astype({"step": "Int64"})


def _row(fits: Fits) -> dict[str, Any]:
    statistics = _statistics(fits, fits.prompts)
    row: dict[str, Any] = {}
    for name in QUANTITIES:
        estimate = _estimate(name, statistics[name])
        row |= {name: estimate.value, f"{name}_ci_low": estimate.ci_low, f"{name}_ci_high": estimate.ci_high}
    at_all = _curves(fits, fits.prompts)[0]
    row["beyond"] = BEYOND[int(_fitted(at_all)[2][0])]
    counts = _counts(fits, statistics["reverse_kl"])
    return row | counts | {"n_prompts": len(np.unique(fits.prompt_index[statistics["reverse_kl"].rows]))}


def _estimate(name: str, statistic: _Statistic) -> stats.Estimate:
    """Give a quantity its interval; that of a temperature is made on its logarithm, so that it stays above 0."""
    counts = {"n": statistic.n, "n_undefined": statistic.n_undefined}
    if name != "fitted_temperature":
        return stats.clustered_jackknife(statistic.value, statistic.left_out, **counts)
    found = stats.clustered_jackknife(math.log(statistic.value), np.log(statistic.left_out), **counts)
    value, low, high = (math.exp(end) for end in (found.value, found.ci_low, found.ci_high))
    return replace(found, value=value, ci_low=low, ci_high=high)


def _counts(fits: Fits, statistic: _Statistic) -> dict[str, Any]:
    rollouts = np.stack([fits.prompt_index, fits.rollout_index], 1)[statistic.rows]
    return {
        "n_states": statistic.n,
        "n_rollouts": len(np.unique(rollouts, axis=0)),
        "n_undefined": statistic.n_undefined,
    }


def _known(fits: Fits, name: str) -> npt.NDArray[np.bool_]:
    """Tell which states define a quantity."""
    if name == "gradient_coherence":
        return fits.has_gradient
    return np.asarray(np.isfinite(fits.tempered_reverse_kl + fits.tempered_slope).all(1))


def _statistics(fits: Fits, prompts: Ints) -> dict[str, _Statistic]:
    """Give all quantities over the states of some prompts, and without each prompt."""
    curves, known = _curves(fits, prompts)
    temperature, after, _ = _fitted(curves)
    before = curves[0][:, _ONE]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(before > FLAT, 1 - after / before, np.nan)  # of rounding there is no share
    about = int(known.sum()), int((np.isin(fits.prompt_index, prompts) & ~known).sum()), known
    values = {
        "fitted_temperature": temperature,
        "reverse_kl_after_temperature": after,
        "reverse_kl": before,
        "explained_share": share,
    }
    found = {name: _Statistic(float(v[0]), v[1:], *about) for name, v in values.items()}
    return found | {"gradient_coherence": _coherence(fits, prompts)}


def _curves(fits: Fits, prompts: Ints) -> tuple[tuple[Floats, Floats], npt.NDArray[np.bool_]]:
    """Give mean values and slopes, (1 + P, G) each: over all prompts that have a state, then without each of them."""
    known = _known(fits, "reverse_kl") & np.isin(fits.prompt_index, prompts)
    present, group = np.unique(fits.prompt_index[known], return_inverse=True)
    columns = np.concatenate([fits.tempered_reverse_kl, fits.tempered_slope], 1)[known]
    sums = np.zeros((len(present), columns.shape[1]))
    np.add.at(sums, group, columns)
    counts = np.bincount(group, minlength=len(present)).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = _with_each_left_out(sums) / _with_each_left_out(counts[:, None])
    return (means[:, : len(TEMPERATURES)], means[:, len(TEMPERATURES) :]), known


def _with_each_left_out(sums: Floats) -> Floats:
    total: Floats = sums.sum(0, keepdims=True)
    return np.concatenate([total, total - sums])


def _fitted(curves: tuple[Floats, Floats]) -> tuple[Floats, Floats, Ints]:
    values, slopes = (torch.from_numpy(c) for c in curves)
    fit = metrics.fitted_temperature(values, slopes, torch.tensor(TEMPERATURES, dtype=torch.float64))
    return fit.temperature.numpy(), fit.reverse_kl.numpy(), fit.beyond.numpy()


def _coherence(fits: Fits, prompts: Ints) -> _Statistic:
    known = fits.has_gradient & np.isin(fits.prompt_index, prompts)
    counts = np.bincount(np.searchsorted(fits.prompts, fits.prompt_index[known]), minlength=len(fits.prompts))
    used = np.flatnonzero(counts)
    parts = fits.gradient_products[np.ix_(used, used)], fits.gradient_squared_norms[used], counts[used]
    value, left_out = metrics.gradient_coherence(
        *(torch.from_numpy(np.array(part)) for part in (*parts, fits.least_squared_norms[used]))
    )
    undefined = int((np.isin(fits.prompt_index, prompts) & ~known).sum())
    return _Statistic(float(value), left_out.numpy(), int(known.sum()), undefined, known)
