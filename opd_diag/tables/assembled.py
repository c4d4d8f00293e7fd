"""All tables of a run together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from opd_diag.records.fits import Fits
from opd_diag.records.rollout import Rollout
from opd_diag.records.scores import Scores
from opd_diag.records.vocabulary import Token
from opd_diag.tables.averages import AVERAGE_COLUMNS, average_table
from opd_diag.tables.baselines import baseline_rows, baseline_table
from opd_diag.tables.concentration import CONCENTRATION_COLUMNS, concentration_table
from opd_diag.tables.coverage import coverage_rows
from opd_diag.tables.depth import depth_table
from opd_diag.tables.fits import FIT_COLUMNS, FitsByPart, fits_by_part, fits_table
from opd_diag.tables.floors import with_floors
from opd_diag.tables.k_sweep import sweep_table
from opd_diag.tables.logged import LOGGED_COLUMNS
from opd_diag.tables.reconciliation import RECONCILIATION_COLUMNS, reconciliation_table
from opd_diag.tables.split import SPLIT_COLUMNS, split_table
from opd_diag.tables.states import measure, rollout_table
from opd_diag.tables.stops import stop_rows, stop_table
from opd_diag.tables.strata import strata_rows, strata_table
from opd_diag.tables.summary import difference_table, summarize
from opd_diag.tables.tails import TAIL_COLUMNS, tail_table


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
    stops: pd.DataFrame = field(default_factory=lambda: stop_rows(None))
    strata: pd.DataFrame = field(default_factory=lambda: strata_rows(None))
    averages: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=AVERAGE_COLUMNS))
    tails: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=TAIL_COLUMNS))
    sweep: pd.DataFrame = field(default_factory=lambda: sweep_table(()))
    baselines: pd.DataFrame = field(default_factory=lambda: baseline_rows(None))
    fits: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=FIT_COLUMNS))
    logged: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LOGGED_COLUMNS))
    reconciliation: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=RECONCILIATION_COLUMNS))


def assemble(
    scored: Iterable[tuple[Scores, Sequence[Rollout]]],
    *,
    k: int,
    coverage: pd.DataFrame | None = None,
    floors: Mapping[str, float] | None = None,
    tokens: Mapping[int, Token] | None = None,
    fits: Iterable[Fits] = (),
    logged: pd.DataFrame | None = None,
    recorded: Mapping[str, int] | None = None,
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
    tokens
        What ids look like, to find where responses give their answers; None: not looked for.
    fits
        What a second pass left of some checkpoints and state sets.
    logged
        What the trainer logged, from :func:`~opd_diag.tables.logged_table`; None: not looked for.
    recorded
        How many responses a trainer recorded of each checkpoint's very weights, by label; None: it recorded none.
    """
    states, rollouts, curves, baselines, sweeps, stops = [], [], [], [], [], [stop_rows(None)]
    responses: list[Sequence[Rollout]] = []
    for scores, of in scored:
        responses.append(of)
        states.append(measure(scores, of, k=min(k, scores.k_kept)))
        rollouts.append(rollout_table(states[-1], of))
        curves.append(concentration_table(scores, of))
        stops.append(stop_table(scores, of, tokens))
        sweeps.append(sweep_table([(scores, of)]))
        baselines.append(baseline_table([(scores, of)], k=k, floors=floors))
    concentration = pd.concat(curves, ignore_index=True)[CONCENTRATION_COLUMNS]
    tables = from_rows(
        pd.concat(states, ignore_index=True),
        pd.concat(rollouts, ignore_index=True),
        concentration,
        coverage,
        floors,
        pd.concat([of for of in stops if len(of)] or stops[:1], ignore_index=True),
        fits_by_part(fits),
    )
    sweep = pd.concat(sweeps, ignore_index=True)
    tables = replace(tables, baselines=pd.concat(baselines, ignore_index=True), sweep=sweep)
    if logged is None:
        return tables
    compared = reconciliation_table(zip(states, responses, strict=True), recorded or {}, logged)
    return replace(tables, logged=logged, reconciliation=compared)


def from_rows(
    states: pd.DataFrame,
    rollouts: pd.DataFrame,
    concentration: pd.DataFrame,
    coverage: pd.DataFrame | None = None,
    floors: Mapping[str, float] | None = None,
    stops: pd.DataFrame | None = None,
    fits: FitsByPart | None = None,
) -> Tables:
    """Derive summary, depth, differences, split, strata, averages and tails from the rows."""
    near, stopping = coverage_rows(coverage), stop_rows(stops)
    return Tables(
        states=states,
        rollouts=rollouts,
        summary=with_floors(summarize(states, rollouts, near, stopping, fits), floors, concentration),
        concentration=concentration,
        depth=depth_table(states),
        differences=difference_table(states, rollouts, coverage=near, stops=stopping, fits=fits),
        coverage=near,
        split=split_table(states),
        stops=stopping,
        strata=strata_table(states, rollouts, stopping),
        averages=average_table(states),
        tails=tail_table(states),
        fits=fits_table(concentration, fits or {}),
    )
