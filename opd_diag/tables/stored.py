"""Tables in OUT_DIR: written one file a (step, state set), read back without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from opd_diag.errors import RolloutsError, StoreError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import replaced_whole
from opd_diag.records.rollout import Rollout, load_rollouts
from opd_diag.tables.assembled import Tables, from_rows
from opd_diag.tables.catalogue import METRIC_NAMES
from opd_diag.tables.states import rollout_table


def save_states(out_dir: Path, states: pd.DataFrame) -> None:
    """Write ``states/<checkpoint>.<state set>.parquet``, each whole or not at all."""
    for (label, state_set), group in states.groupby(["label", "states"], sort=False):
        step = group["step"].iloc[0]
        slug = _slug(str(label), None if pd.isna(step) else int(step))
        with replaced_whole(out_dir / "states" / f"{slug}.{state_set}.parquet") as part:
            group.to_parquet(part, index=False)


def load_tables(out_dir: Path, concentration: pd.DataFrame) -> Tables:
    """Read the rows of a finished report and derive the rest.

    Parameters
    ----------
    out_dir
        Folder of the report.
    concentration
        Its concentration table, as ``report.json`` has it; the order of its rows is that of the checkpoints.

    Raises
    ------
    StoreError
        A file is missing or damaged, or was written with another catalogue of metrics.
    """
    states, rollouts = [], []
    for (label, state_set), group in concentration.groupby(["label", "states"], sort=False):
        step = group["step"].iloc[0]
        slug = _slug(str(label), None if pd.isna(step) else int(step))
        states.append(_states(out_dir / "states" / f"{slug}.{state_set}.parquet"))
        source = "start" if state_set == "start" else slug
        rollouts.append(rollout_table(states[-1], _rollouts(out_dir / "rollouts" / f"{source}.jsonl")))
    return from_rows(_stacked(states), _stacked(rollouts), concentration)


def _states(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise StoreError(f"{path} is no readable state table: {error}. Run report again.") from error
    missing = sorted(set(METRIC_NAMES) - set(table.columns))
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


def _slug(label: str, step: int | None) -> str:
    return Checkpoint(label, step, Path(), "full").slug
