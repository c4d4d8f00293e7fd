"""All tables of a run together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.tables.concentration import CONCENTRATION_COLUMNS, concentration_table
from opd_diag.tables.coverage import coverage_rows
from opd_diag.tables.depth import depth_table
from opd_diag.tables.floors import with_floors
from opd_diag.tables.split import SPLIT_COLUMNS, split_table
from opd_diag.tables.states import measure, rollout_table
from opd_diag.tables.summary import difference_table, summarize


@dataclass(frozen=True)
class Tables:
    """The tables of one run; their columns are described in :mod:`opd_diag.tables`."""

    states: pd.DataFrame
    rollouts: pd.DataFrame
    summary: pd.DataFrame
    concentration: pd.DataFrame
    depth: pd.DataFrame
    differences: pd.DataFrame
    coverage: pd.DataFrame = field(default_factory=lambda: coverage_rows(None))
    split: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SPLIT_COLUMNS))
    stops: pd.DataFrame = field(default_factory=pd.DataFrame)
    strata: pd.DataFrame = field(default_factory=pd.DataFrame)
    averages: pd.DataFrame = field(default_factory=pd.DataFrame)
    baselines: pd.DataFrame = field(default_factory=pd.DataFrame)
    fits: pd.DataFrame = field(default_factory=pd.DataFrame)


def assemble(
    scored: Iterable[tuple[Scores, Sequence[Rollout]]],
    *,
    k: int,
    coverage: pd.DataFrame | None = None,
    floors: Mapping[str, float] | None = None,
) -> Tables:
    """Make all tables of a run.

    Parameters
    ----------
    scored
        Scores and what they are of, one pair a (step, state set), in the order of the checkpoints.
    k
        Tokens compared.
    coverage
        Which of the teacher's states are near a checkpoint's own, one row a state looked at; None: not looked at.
    floors
        Precision floor of each metric (:mod:`opd_diag.tables.floors`); None: not measured.
    """
    states, rollouts, curves = [], [], []
    for scores, of in scored:
        states.append(measure(scores, of, k=min(k, scores.k_kept)))
        rollouts.append(rollout_table(states[-1], of))
        curves.append(concentration_table(scores, of))
    concentration = pd.concat(curves, ignore_index=True)[CONCENTRATION_COLUMNS]
    return from_rows(
        pd.concat(states, ignore_index=True), pd.concat(rollouts, ignore_index=True), concentration, coverage, floors
    )


def from_rows(
    states: pd.DataFrame,
    rollouts: pd.DataFrame,
    concentration: pd.DataFrame,
    coverage: pd.DataFrame | None = None,
    floors: Mapping[str, float] | None = None,
) -> Tables:
    """Derive summary, depth, differences and split from the rows."""
    near = coverage_rows(coverage)
    return Tables(
        states=states,
        rollouts=rollouts,
        summary=with_floors(summarize(states, rollouts, near), floors, concentration),
        concentration=concentration,
        depth=depth_table(states),
        differences=difference_table(states, rollouts, coverage=near),
        coverage=near,
        split=split_table(states),
    )
