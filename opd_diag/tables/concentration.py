"""The concentration curve as a table: shared tokens and their mass, for every k of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.bands import BAND_COLUMNS, DRAWS, SEED
from opd_diag.tables.catalogue import PRIMARY_NAMES
from opd_diag.tables.ranges import within_range
from opd_diag.tables.rows import estimate_columns
from opd_diag.tables.states import IDENTITY, identity_of

CURVES = (
    "overlap_ratio",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "student_topk_mass",
    "teacher_topk_mass",
)
"""Quantities of the curve: what is shared, and each model's mass on its own top-k as the most that could be."""

BANDED = tuple(name for name in CURVES if name in PRIMARY_NAMES)
"""Those whose curves have bands."""

CONCENTRATION_COLUMNS = [
    *IDENTITY,
    "k",
    *(f"{name}{end}" for name in CURVES for end in ("", "_ci_low", "_ci_high")),
    *(f"{name}_{end}" for name in BANDED for end in BAND_COLUMNS),
    "n_states",
    "n_rollouts",
    "n_prompts",
]


def concentration_table(scores: Scores, rollouts: Sequence[Rollout]) -> pd.DataFrame:
    """Average the curve of one (step, state set) over its states.

    Parameters
    ----------
    scores
        N states of `rollouts`.
    rollouts
        What was scored, in the order it was scored.

    Returns
    -------
    DataFrame
        One row a k; columns as in :mod:`opd_diag.tables`; 95 % intervals clustered by prompt, and bands that hold the
        whole curve.
    """
    scored = ~scores.terminal
    rows = scores.rollout[scored]
    clusters = np.array([r.prompt_index for r in rollouts])[rows]
    grid = np.asarray(scores.grid)
    curves = {
        "overlap_ratio": scores.curve_shared[scored] / grid,
        "student_overlap_mass": scores.curve_student_shared_mass[scored],
        "teacher_overlap_mass": scores.curve_teacher_shared_mass[scored],
        "student_topk_mass": scores.curve_student_mass[scored],
        "teacher_topk_mass": scores.curve_teacher_mass[scored],
    }
    columns: dict[str, Any] = {name: value for name, (value, _) in identity_of(scores).items()} | {"k": grid}
    resampling = stats.Resampling(clusters, draws=DRAWS, seed=SEED)
    for name in CURVES:
        columns |= _curve_columns(name, curves[name].astype(float), clusters, resampling)
    columns |= {"n_states": int(scored.sum()), "n_rollouts": len(np.unique(rows))}
    columns["n_prompts"] = len(np.unique(clusters))
    return pd.DataFrame(columns)[CONCENTRATION_COLUMNS].astype({"step": "Int64"})


def _curve_columns(
    name: str, values: npt.NDArray[np.float64], clusters: npt.NDArray[np.int64], resampling: stats.Resampling
) -> dict[str, pd.Series]:
    """Give the columns of one curve, from its (N, K) values; its ends cut to what it can be at all."""
    estimates = stats.clustered_means(values, clusters)
    rows = pd.DataFrame([estimate_columns(e) for e in estimates])[["value", "ci_low", "ci_high"]].assign(metric=name)
    if name in BANDED:
        band = stats.simultaneous_band(estimates, resampling.means(values, clusters))
        rows = rows.assign(**dict(zip(BAND_COLUMNS, band, strict=True)))
    ends = within_range(rows).drop(columns="metric")
    return {name if column == "value" else f"{name}_{column}": ends[column] for column in ends}
