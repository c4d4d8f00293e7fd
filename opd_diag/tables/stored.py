"""Tables in OUT_DIR: written one file a (step, state set), read back without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from opd_diag.errors import RolloutsError, StoreError
from opd_diag.records.files import replaced_whole
from opd_diag.records.rollout import Rollout, load_rollouts
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.tables.assembled import Tables, from_rows
from opd_diag.tables.baselines import load_baselines
from opd_diag.tables.catalogue import METRIC_NAMES, WEIGHTS
from opd_diag.tables.coverage import load_coverage, slug_of
from opd_diag.tables.fits import load_fits
from opd_diag.tables.states import rollout_table
from opd_diag.tables.stops import load_stops

SHARED_ROLLOUTS = ("start", "teacher")
"""State sets whose rollouts are one file for all checkpoints, named after the set; the others are the checkpoint's."""


def save_states(out_dir: Path, states: pd.DataFrame) -> list[str]:
    """Write ``states/<checkpoint>.<state set>.parquet``, each whole or not at all; give their names in `out_dir`."""
    names = []
    for (label, state_set), group in states.groupby(["label", "states"], sort=False):
        names.append(f"states/{slug_of(str(label), group)}.{state_set}.parquet")
        with replaced_whole(out_dir / names[-1]) as part:
            group.to_parquet(part, index=False)
    return names


def load_tables(out_dir: Path, concentration: pd.DataFrame, floors: Mapping[str, float] | None = None) -> Tables:
    """Read the rows of a finished report and derive the rest.

    Parameters
    ----------
    out_dir
        Folder of the report.
    concentration
        Its concentration table, as ``report.json`` has it; the order of its rows is that of the checkpoints.
    floors
        Its precision floors; None where it has none.

    Raises
    ------
    StoreError
        A file is missing or damaged, or was written with another catalogue of metrics.
    """
    states, rollouts = [], []
    for (label, state_set), group in concentration.groupby(["label", "states"], sort=False):
        table, of = load_state_set(out_dir, slug_of(str(label), group), str(state_set))
        states.append(table)
        rollouts.append(rollout_table(table, of))
    # files of an earlier report that scored more may still lie there
    both = {"on-policy", "teacher"} <= {*concentration["states"]}
    coverage = load_coverage(out_dir, concentration) if both else None
    stops = load_stops(out_dir, concentration)
    fits = load_fits(out_dir, concentration)
    tables = from_rows(_stacked(states), _stacked(rollouts), concentration, coverage, floors, stops, fits)
    return replace(tables, baselines=load_baselines(out_dir))


def load_state_set(out_dir: Path, slug: str, state_set: str) -> tuple[pd.DataFrame, list[Rollout]]:
    """Read the state table of one checkpoint on one state set, and the responses whose states these are.

    Raises
    ------
    StoreError
        As :func:`load_tables`.
    """
    source = state_set if state_set in SHARED_ROLLOUTS else slug
    source += f".{state_set}" if state_set == NEAR_ON_POLICY else ""
    return (
        _states(out_dir / "states" / f"{slug}.{state_set}.parquet"),
        _rollouts(out_dir / "rollouts" / f"{source}.jsonl"),
    )


def _states(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise StoreError(f"{path} is no readable state table: {error}. Run report again.") from error
    missing = sorted({*METRIC_NAMES, *WEIGHTS} - set(table.columns))
    if missing:
        raise StoreError(f"{path} lacks {', '.join(missing)}: another version wrote it. Run report again.")
    return table


def _rollouts(path: Path) -> list[Rollout]:
    try:
        return load_rollouts(path)
    except RolloutsError as error:  # of our own, so the way out is another than for a user's file
        found = "is damaged" if path.is_file() else "is missing"
        raise StoreError(f"{path} {found}. Run report again.") from error


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)
