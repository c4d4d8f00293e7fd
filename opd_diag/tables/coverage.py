"""Which of the teacher's states are near a checkpoint's own: the table, and its file in OUT_DIR."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from opd_diag.errors import StoreError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import replaced_whole

COVERAGE_COLUMNS = [
    "step", "label", "teacher", "prompt_index", "prompt_id", "rollout_index", "position", "is_covered",
]  # fmt: skip

_TYPES = {
    "step": "Int64",
    "prompt_index": "int64",
    "rollout_index": "int64",
    "position": "int64",
    "is_covered": "boolean",
}


def coverage_rows(coverage: pd.DataFrame | None) -> pd.DataFrame:
    """Give the columns of a coverage table in order and type; of None, an empty table.

    `is_covered` is a nullable boolean: missing where :func:`opd_diag.metrics.covered` is undefined.
    """
    table = pd.DataFrame(columns=COVERAGE_COLUMNS) if coverage is None else coverage
    return table[COVERAGE_COLUMNS].astype(_TYPES)


def save_coverage(path: Path, coverage: pd.DataFrame) -> None:
    """Write the rows of one checkpoint, ``coverage/<checkpoint>.parquet``, whole or not at all."""
    with replaced_whole(path) as part:
        coverage_rows(coverage).to_parquet(part, index=False)


def load_coverage(out_dir: Path, checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Read what a replay wrote of `checkpoints`, in their order.

    Parameters
    ----------
    out_dir
        Folder of the report.
    checkpoints
        (label, step) of each; those without a file have no rows.

    Raises
    ------
    StoreError
        A file is damaged.
    """
    tables = [coverage_rows(None)]
    for label, group in checkpoints.groupby("label", sort=False):
        path = out_dir / "coverage" / f"{slug_of(str(label), group)}.parquet"
        if path.is_file():
            tables.append(_coverage(path))
    return pd.concat(tables[1:], ignore_index=True) if len(tables) > 1 else tables[0]


def slug_of(label: str, rows: pd.DataFrame) -> str:
    """Give the name that files about the checkpoint of `rows` have."""
    step = rows["step"].iloc[0]
    return Checkpoint(label, None if pd.isna(step) else int(step), Path(), "full").slug


def _coverage(path: Path) -> pd.DataFrame:
    try:
        return coverage_rows(pd.read_parquet(path))
    except (OSError, pa.ArrowInvalid, ValueError, KeyError) as error:
        raise StoreError(f"{path} is no readable coverage table: {error}. Run report again.") from error
