"""The concentration curve as a table: shared tokens and their mass, for every k of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.states import IDENTITY, identity_of

CURVES = (
    "overlap_ratio",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "student_topk_mass",
    "teacher_topk_mass",
)
"""Quantities of the curve: what is shared, and each model's mass on its own top-k as the most that could be."""

CONCENTRATION_COLUMNS = [
    *IDENTITY,
    "k",
    *(f"{name}{end}" for name in CURVES for end in ("", "_ci_low", "_ci_high")),
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
        One row a k; columns as in :mod:`opd_diag.tables`; 95 % intervals clustered by prompt.
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
    for name in CURVES:
        estimates = stats.clustered_means(curves[name].astype(float), clusters)
        columns[name] = [e.value for e in estimates]
        columns[f"{name}_ci_low"] = [e.ci_low for e in estimates]
        columns[f"{name}_ci_high"] = [e.ci_high for e in estimates]
    columns |= {"n_states": int(scored.sum()), "n_rollouts": len(np.unique(rows))}
    columns["n_prompts"] = len(np.unique(clusters))
    return pd.DataFrame(columns)[CONCENTRATION_COLUMNS].astype({"step": "Int64"})
